"""Golden trajectories: twenty steps of every trainer on a CPU in float32.

`python tests/train/golden.py` writes them anew; a change of tests/golden/*.json is a change of what fairlead computes
and belongs in CHANGELOG.md.
"""

import json
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from tiny_stages import TRAINERS, TinyWorld, rows_of

FOLDER = Path(__file__).parents[1] / "golden"
OPTIONS = {
    "sft": ("num_epochs=5", "max_steps=20", "optim.warmup_steps=3", "optim.weight_decay=0.01"),
    "reward": ("num_epochs=7", "max_steps=20"),
    "dpo": ("num_epochs=7", "max_steps=20"),
    "kto": ("num_epochs=5", "max_steps=20"),
    "ppo": ("num_iterations=20", "prompts_per_iteration=4", "mini_batch_size=2", "kl.coef=0.1", "ptx_coef=0.1",
            "ptx_rows=2"),
    "grpo": ("num_iterations=20", "prompts_per_iteration=2", "num_responses_per_prompt=4", "mini_batch_size=4"),
}  # fmt: skip
KEPT = ("loss", "policy_loss", "value_loss", "ptx_loss", "grad_norm", "critic_grad_norm", "kl_mean", "score_mean",
        "entropy", "accuracy", "margin",
        "kl_mismatched")  # fmt: skip


def trajectory(world, trainer, output, *more):
    """The numbers of every step, by name."""
    ptx = (f"ptx_data={world.conversations}",) if trainer == "ppo" else ()
    stage = world.run(trainer, output, "optim.lr=0.001", *ptx, *OPTIONS[trainer], *more)
    rows = rows_of(stage / "metrics.jsonl")
    return {name: [row[name] for row in rows] for name in KEPT if all(name in row for row in rows)}


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        world = TinyWorld(Path(folder))
        for trainer in TRAINERS:
            made_with = {"torch": torch.__version__, "machine": platform.machine()}
            numbers = trajectory(world, trainer, Path(folder) / trainer)
            text = json.dumps({"made_with": made_with, "steps": numbers}, indent=1)
            (FOLDER / f"{trainer}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
