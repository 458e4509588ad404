"""fairlead's own GRPO or PPO, from `train_grpo` or `train_ppo`; a round is one iteration.

In bfloat16 with float32 master weights, as fairlead does; the options are those of bench/prompts.py. The loop is the
real one: the turn changes where it records an iteration.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import prompts
from online import parser
from rounds import change_turns
from side import Turn

from fairlead.train.grpo import train_grpo
from fairlead.train.optimizer import Optimizer
from fairlead.train.ppo import train_ppo

STAGES = {"grpo": (prompts.grpo, train_grpo), "ppo": (prompts.ppo, train_ppo)}


def main() -> None:
    """Train until told to stop."""
    asked = parser().parse_args()
    config_of, train = STAGES[asked.stage]
    turn = Turn()
    turn.imported()
    steps: list[int] = []
    take_step = Optimizer.step

    def measure(_: int, metrics: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, Any]:
        num_steps = len(steps)
        steps.clear()
        return {
            "units": metrics["response_length"] * asked.num_prompts * asked.group, "tokens": counts["tokens"],
            "steps": num_steps, "kl": metrics["kl_mean"],
            "phases": {name: seconds for name, seconds in counts.items() if name.endswith("_seconds")},
        }  # fmt: skip

    def take_and_count(optimizer: Optimizer, step: int) -> dict[str, float]:
        steps.append(step)
        return take_step(optimizer, step)

    change_turns(turn, measure)
    Optimizer.step = take_and_count
    with tempfile.TemporaryDirectory() as folder:
        train(config_of(str(Path(folder) / "run"), asked))


if __name__ == "__main__":
    main()
