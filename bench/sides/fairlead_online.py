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
from side import Turn

from fairlead.train.grpo import train_grpo
from fairlead.train.optimizer import Optimizer
from fairlead.train.ppo import train_ppo
from fairlead.train.stage import Stage

STAGES = {"grpo": (prompts.grpo, train_grpo), "ppo": (prompts.ppo, train_ppo)}


def main() -> None:
    """Train until told to stop."""
    asked = parser().parse_args()
    config_of, train = STAGES[asked.stage]
    turn = Turn()
    turn.imported()
    steps: list[int] = []
    begin, record, take_step = Stage.begin, Stage.record, Optimizer.step

    def begin_and_wait(stage: Stage, **options: Any) -> None:
        begin(stage, **options)
        turn.begin(config=stage.config.model_dump(mode="json"), threads=stage.runtime.num_threads)

    def record_and_wait(stage: Stage, step: int, metrics: Mapping[str, float], **counts: Any) -> None:
        record(stage, step, metrics, **counts)
        tokens = metrics["response_length"] * asked.num_prompts * asked.group
        phases = {name: seconds for name, seconds in counts.items() if name.endswith("_seconds")}
        turn.end(units=tokens, tokens=counts["tokens"], steps=len(steps), kl=metrics["kl_mean"], phases=phases)
        steps.clear()

    def take_and_count(optimizer: Optimizer, step: int) -> dict[str, float]:
        steps.append(step)
        return take_step(optimizer, step)

    Stage.begin, Stage.record, Optimizer.step = begin_and_wait, record_and_wait, take_and_count
    with tempfile.TemporaryDirectory() as folder:
        train(config_of(str(Path(folder) / "run"), asked))


if __name__ == "__main__":
    main()
