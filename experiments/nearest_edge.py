"""How near a drawn number comes to the edge between two tokens, where two layouts of ranks may round to either side.

    PYTHONPATH=.:tests python experiments/nearest_edge.py    # of the case of tests/invariance that needed another seed

For each seed: the least distance of a number from the cumulative probability at which the token changes, over all draws
of the stage; and what one rounding to float32 moves those edges by.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from fairlead.generate import sampling
from tests.invariance import test_ranks
from tests.invariance.driver import run
from tiny import tiny_model

CASE = test_ranks.Case("1x8", "ppo", "full", "gpt2", checkpointed=True)


def main() -> None:
    """Run the stage under each seed."""
    distances: list[tuple[float, int, int]] = []
    draw = sampling._inverse_cdf

    def draw_and_note(probabilities: Tensor, uniforms: Tensor) -> Tensor:
        tokens = draw(probabilities, uniforms)
        edges = probabilities.double().cumsum(-1)
        points = uniforms.double()[:, None] * edges[:, -1:]
        away = (edges - points).abs()
        distances.extend(zip(away.amin(-1).tolist(), tokens.tolist(), away.argmin(-1).tolist(), strict=True))
        return tokens

    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        lab = test_ranks.Laboratory(Path(folder), lambda family: tiny_model(models / family, family))
        run([lab.job(lab.parent(CASE, stage)) for stage in ("sft", "reward")])
        sampling._inverse_cdf = draw_and_note
        for seed in (3, 5):
            job = lab.job(CASE)
            job["config"]["runtime"]["seed"] = seed
            job["config"]["output"] += f"-{seed}"
            distances.clear()
            run([job])
            nearest = sorted(distances)[:3]
            print(f"seed {seed}: {len(distances)} draws, nearest to an edge:")
            for distance, token, edge in nearest:
                print(f"  {distance:.1e} from the edge behind token {edge}, drew {token}")
    print(f"one rounding of a cumulative sum of 1 in float32: {torch.finfo(torch.float32).eps / 2:.1e}")


if __name__ == "__main__":
    main()
