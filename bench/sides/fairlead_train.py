"""fairlead's own training, from `train_sft`, `train_reward` or `train_dpo`; a round is one optimizer step.

Full fine-tuning in bfloat16 with float32 master weights, as fairlead does; all else is its default, so the rows of a
step are packed into micro-batches of 2048 tokens. The loop is the real one: the turn changes where it records a step.

A round of dpo holds the reference log-probabilities of its own pairs. fairlead reads them all before the first step;
the time of each step's pairs is measured there and added to the step's round.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from rounds import change_turns
from rows import NUM_STEPS, ROWS_PER_STEP, config_of, steps_of
from side import Turn

from fairlead.train import reference
from fairlead.train.dpo import train_dpo
from fairlead.train.reward import train_reward
from fairlead.train.sft import train_sft

TRAIN = {"sft": train_sft, "reward": train_reward, "dpo": train_dpo}


def main() -> None:
    """Train until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=TRAIN)
    parser.add_argument("rows", choices=ROWS_PER_STEP)
    parser.add_argument("--unit", choices=("rows", "tokens", "work"), default="tokens")
    arguments = parser.parse_args()
    turn = Turn()
    turn.imported()
    steps = steps_of(arguments.rows)["steps"]
    reference_seconds: list[float] = []

    read_reference = reference.step_logprobs

    def measure(step: int, metrics: Mapping[str, float], _: object) -> dict[str, float]:
        before = reference_seconds[step - 1] if reference_seconds else 0.0
        return {"units": _units(steps[step - 1], arguments), "loss": metrics["loss"], "seconds_before": before}

    def read_reference_timed(*args: Any) -> Any:
        start = time.perf_counter()
        logprobs = read_reference(*args)
        reference_seconds.append(time.perf_counter() - start)
        return logprobs

    change_turns(turn, measure)
    reference.step_logprobs = read_reference_timed
    with tempfile.TemporaryDirectory() as folder:
        TRAIN[arguments.stage](config_of(arguments.stage, arguments.rows, folder))
    raise SystemExit(f"there are rows for {NUM_STEPS} rounds only")


def _units(step: dict[str, Any], arguments: argparse.Namespace) -> float:
    """`work` counts what a stage passes through the model as tokens of sft, forward and backward.

    A prompt that two responses share counts once, however often the stage reads it. The reference's forward is a third
    of a forward and backward.
    """
    if arguments.unit == "work":
        return step["tokens_once"] * (4 / 3 if arguments.stage == "dpo" else 1)
    return step[arguments.unit]


if __name__ == "__main__":
    main()
