"""A turn that changes where a real trainer of fairlead records a step."""

from collections.abc import Callable, Mapping
from typing import Any

from side import Turn

from fairlead.train.stage import Stage

PATHS = {"output": True, "data": True, "model": {"name"}, "reward_model": True, "rewards": True}  # of this machine


def change_turns(
    turn: Turn, measure: Callable[[int, Mapping[str, float], Mapping[str, float]], dict[str, Any]]
) -> None:
    """From here on a stage waits for its turn before its first step and after each one.

    `measure(step, metrics, counts)` is what the step's round reports; `metrics` and `counts` are what it records.
    """
    begin, record = Stage.begin, Stage.record

    def begin_and_wait(stage: Stage, **options: Any) -> None:
        begin(stage, **options)
        config = stage.config.model_dump(mode="json", exclude=PATHS)
        turn.begin(config=config, threads=stage.runtime.num_threads)

    def record_and_wait(stage: Stage, step: int, metrics: Mapping[str, float], **counts: Any) -> None:
        record(stage, step, metrics, **counts)
        turn.end(**measure(step, metrics, counts))

    Stage.begin, Stage.record = begin_and_wait, record_and_wait
