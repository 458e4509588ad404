"""Watches one stage: tells a fault once, stops, or sends it back to the last good checkpoint with a smaller step.

What was told stands in health.jsonl, which no resume cuts back: it is the history of the stage, not of its weights.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairlead.artifacts.checkpoints import drop_checkpoints_since
from fairlead.artifacts.journal import Journal, read
from fairlead.config.health import HealthConfig
from fairlead.errors import ExitCode, UserError
from fairlead.runtime.start import Runtime
from fairlead.train.health import RollBack, Verdict, symptoms, verdicts

HEALTH_NAME = "health.jsonl"
NON_FINITE = ("a step too large, a broken row, or a reward that is no number", "lower optim.lr, or look at the rows")


class Monitor:
    """Every rank has one and comes to the same verdicts, because metrics are the same on all; the main rank writes."""

    def __init__(self, config: HealthConfig, folder: Path, runtime: Runtime, say: Callable[[str], None]) -> None:
        self._config, self._folder, self._runtime, self._say = config, folder, runtime, say
        path = folder / HEALTH_NAME
        self._told: list[dict[str, Any]] = read(path) if path.is_file() else []
        self._rows: list[Mapping[str, float]] = []

    @property
    def step_scale(self) -> float:
        """What every learning rate is multiplied by after the roll-backs so far."""
        return math.prod(row["scale"] for row in self._told if row["action"] == "roll_back")

    @property
    def _num_roll_backs(self) -> int:
        return sum(row["action"] == "roll_back" for row in self._told)

    @property
    def doubtful(self) -> bool:
        """Whether the newest step shows a fault, or the beginning of one, that would roll back."""
        return any(getattr(self._config, name, "off") == "roll_back" for name in symptoms(self._rows))

    def recall(self, step: int) -> None:
        """Take up the metrics of the steps up to this one."""
        path = self._folder / "metrics.jsonl"
        self._rows = [row for row in read(path) if row["step"] <= step] if path.is_file() else []

    def look(self, step: int, metrics: Mapping[str, float]) -> None:
        """Judge a step that was just recorded. Raises UserError (65) to stop, `RollBack` to begin again."""
        self._rows.append({"step": step, **metrics})
        for verdict in verdicts(self._rows):
            self._act(verdict, getattr(self._config, verdict.fault, "off"))

    def not_finite(self, error: UserError) -> None:
        """Judge a step that ended in a number that is not finite. Returns if the stage shall end with that error."""
        step = int(self._rows[-1]["step"]) + 1 if self._rows else 1
        cause, fix = NON_FINITE
        verdict = Verdict("non_finite", step, step, f"{error.what} ({error.got})", cause, fix)
        if self._config.non_finite == "roll_back":
            self._act(verdict, "roll_back")
        self._note(verdict, "stop")

    def _act(self, verdict: Verdict, action: str) -> None:
        if action == "roll_back" and self._num_roll_backs >= self._config.max_roll_backs:
            self._say(f"health: {self._num_roll_backs} roll-backs did not help")
            action = "stop"
        match action:
            case "warn":
                if all(row["fault"] != verdict.fault for row in self._told):
                    self._note(verdict, action)
                    self._say(f"warning: step {verdict.step}: {verdict}")
            case "stop":
                self._note(verdict, action)
                go_on = f"; or go on with --health.{verdict.fault.replace('_', '-')} warn"
                raise UserError(
                    f"{verdict.what}; likely cause: {verdict.cause}", where=f"{self._folder}, step {verdict.step}",
                    fix=f"{verdict.fix}, with another --output" + (go_on if verdict.fault != "non_finite" else ""),
                    exit_code=ExitCode.BAD_DATA,
                )  # fmt: skip
            case "roll_back":
                self._roll_back(verdict)

    def _roll_back(self, verdict: Verdict) -> None:
        """Forget the checkpoints that show the fault; the stage resumes from what is left, or begins again.

        Noted only then: a kill in between leaves the fault to be found once more.
        """
        if self._runtime.is_main:
            drop_checkpoints_since(self._folder, verdict.since)
        self._note(verdict, "roll_back", scale=self._config.step_factor)
        self._runtime.ranks.barrier()
        self._say(f"health: step {verdict.step}: {verdict}")
        self._say(f"health: rolling back; learning rates times {self.step_scale:g} from here")
        raise RollBack(verdict.fault)

    def _note(self, verdict: Verdict, action: str, **more: float) -> None:
        row = {
            "step": verdict.step, "since": verdict.since, "fault": verdict.fault, "action": action,
            "what": verdict.what, "cause": verdict.cause, "fix": verdict.fix, **more,
        }  # fmt: skip
        if action == "stop" and row in self._told:
            return
        self._told.append(row)
        if self._runtime.is_main:
            with Journal(self._folder / HEALTH_NAME) as journal:
                journal.append(row)
