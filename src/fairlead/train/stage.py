"""One run of one stage on disk: its folder, lock, journals, checkpoints, interruption and end."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson
from torch import Tensor

from fairlead.artifacts.atomic import sweep, write_text
from fairlead.artifacts.checkpoints import drop_old_checkpoints
from fairlead.artifacts.identity import check_identity, files_by_name, inside_run
from fairlead.artifacts.journal import Journal
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import BaseWeights as ManifestBase
from fairlead.artifacts.manifest import Kind, Manifest, Parent, package_versions, write_manifest
from fairlead.artifacts.stages import is_finished, stage_folder
from fairlead.config.common import OptimConfig
from fairlead.config.stages import StageConfig
from fairlead.data.starter import licences
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.card import model_card
from fairlead.evaluate.report import stage_report
from fairlead.evaluate.summary import Evaluation, write_evaluation
from fairlead.models.sources import Source
from fairlead.runtime.checkpoints import TrainingState, load_state, save_state
from fairlead.runtime.interrupts import Interrupts
from fairlead.runtime.machine import matrix_rate, peak_memory_bytes
from fairlead.runtime.progress import Progress
from fairlead.runtime.sinks import Sink, open_sink
from fairlead.runtime.start import Runtime
from fairlead.train.health import RollBack
from fairlead.train.monitor import Monitor
from fairlead.train.optimizer import NonFiniteError

JOURNALS = ("metrics", "samples")
# Options that change how a stage runs, not what it makes: they may differ when it goes on. What of the machine moves a
# rounding is compared by runtime/checkpoints.py, which says so.
FREE_MACHINE_OPTIONS = {"device", "num_threads", "distributed"}
FREE_OPTIONS = {"output": True, "checkpoint": True, "health": True, "metrics": True, "runtime": FREE_MACHINE_OPTIONS}


class Stage:
    """What a loop needs besides its mathematics. Only rank 0 writes; every rank calls every method."""

    def __init__(
        self,
        name: str,
        folder: Path,
        config: StageConfig,
        runtime: Runtime,
        parents: Mapping[str, Source],
        data_digests: Mapping[str, str],
    ) -> None:
        self.name, self.folder, self.config, self.runtime = name, folder, config, runtime
        self.parents, self.data_digests = parents, data_digests
        self._interrupts = Interrupts()
        self._journals: dict[str, Journal] = {}
        self._sinks: list[Sink] = []
        self._progress: Progress | None = None
        self._started = time.monotonic()
        self._matrix_rate = 0.0
        self._flops = 0.0
        self._monitor: Monitor | None = None

    @property
    def step_scale(self) -> float:
        """What roll-backs have left of every learning rate."""
        assert self._monitor is not None
        return self._monitor.step_scale

    @property
    def optim(self) -> OptimConfig:
        """The optimizer's options, with the learning rate that roll-backs have left."""
        optim = self.config.optim
        return optim.model_copy(update={"lr": optim.lr * self.step_scale})

    def say(self, text: str) -> None:
        """A line for the user."""
        self.runtime.say(text)

    def introduce(self, notes: Sequence[str]) -> None:
        """Say where the stage runs and what its rows are."""
        self.say(f"{self.name}: {self.runtime.describe()}")
        for note in notes:
            self.say(f"{self.name}: {note}")

    def resume(self) -> TrainingState | None:
        """The state to go on from, with the journals cut back to it; None at the very beginning."""
        state = load_state(self.folder, self.runtime)
        sizes = state.journals if state else dict.fromkeys(JOURNALS, 0)
        for name in JOURNALS:
            if self.runtime.is_main:
                self._journals[name].truncate(sizes[name])
        assert self._monitor is not None
        self._monitor.recall(state.step if state else 0)
        if state is None:
            return None
        for warning in state.warnings:
            self.say(f"warning: {warning}")
        self.say(f"{self.name}: going on from step {state.step}")
        return state

    def begin(self, *, first_step: int, num_steps: int, flops_per_token: float) -> None:
        """Start the clock and the progress line."""
        self._flops = flops_per_token
        self._matrix_rate = matrix_rate(self.runtime.device, self.runtime.dtype)
        self._progress = Progress(self.name, first_step, num_steps, visible=self.runtime.is_main)

    def record(self, step: int, metrics: Mapping[str, float], *, tokens: int, rows: int, **clock: float) -> None:
        """One line each in metrics.jsonl (seed and data decide it) and timings.jsonl (the clock decides it); a verdict.

        Raises UserError or RollBack when the verdict asks for it.
        """
        assert self._progress is not None
        assert self._monitor is not None
        self._require_finite(step, metrics)
        seconds = self._progress.advance(step, tokens, metrics)
        if self.runtime.is_main:
            self._write(step, metrics, seconds, tokens=tokens, rows=rows, **clock)
        self._monitor.look(step, metrics)

    def _write(
        self, step: int, metrics: Mapping[str, float], seconds: float, *, tokens: int, rows: int, **clock: float
    ) -> None:
        flops = self._flops * tokens
        self._journals["metrics"].append({"step": step, "tokens": tokens, "flops": flops, **metrics})
        self._journals["timings"].append(
            {
                "step": step,
                "seconds": seconds,
                "tokens_per_second": tokens / seconds,
                "samples_per_second": rows / seconds,
                "steps_per_second": 1.0 / seconds,
                "mfu": flops / seconds / self._matrix_rate,
                "peak_memory_bytes": peak_memory_bytes(self.runtime.device),
                **clock,
            }
        )
        if step % self.config.metrics.every_steps == 0:
            self._tell_sinks(dict(metrics), step)

    def _require_finite(self, step: int, metrics: Mapping[str, float]) -> None:
        broken = [f"{name} {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if broken:
            raise NonFiniteError(
                f"a number is not finite at step {step}", where=str(self.folder), got=", ".join(broken[:3]),
                fix="lower optim.lr, or look at the rows of this step; the last checkpoint is intact",
                exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip

    def _tell_sinks(self, metrics: dict[str, float], step: int) -> None:
        """Trackers are a convenience: one that fails is dropped with a warning, training goes on."""
        for sink in tuple(self._sinks):
            try:
                sink.log(metrics, step)
            except Exception as error:  # noqa: BLE001 - a tracker may raise anything, of any package
                self._sinks.remove(sink)
                self._tell_failure(error)

    def _open_sinks(self) -> None:
        config = self.config.model_dump(mode="json")
        run = f"{self.folder.parent.name}/{self.folder.name}"
        for name in self.config.metrics.sinks:
            try:
                self._sinks.append(open_sink(name, run, self.folder, config))
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                self._tell_failure(error)

    def _close_sinks(self) -> None:
        for sink in self._sinks:
            try:
                sink.close()
            except Exception as error:  # noqa: BLE001 - as above
                self._tell_failure(error)

    def _tell_failure(self, error: Exception) -> None:
        self.say(f"warning: a tracker failed and is switched off ({type(error).__name__}: {error})")

    def sample(self, row: dict[str, Any]) -> None:
        """One line in samples.jsonl."""
        if self.runtime.is_main:
            self._journals["samples"].append(row)

    def maybe_save(
        self, step: int, num_steps: int, state_of: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
    ) -> None:
        """Save when a checkpoint is due, or a signal asked to stop; in the latter case leave with 130 or 143.

        A step that shows the beginning of a fault that would roll back is no place to come back to, and not saved.
        """
        assert self._monitor is not None
        stop = self.runtime.ranks.any(self._interrupts.received is not None)
        due = step % self.config.checkpoint.every_steps == 0 and step < num_steps and not self._monitor.doubtful
        if not (stop or due):
            return
        tensors, numbers = state_of()
        for journal in self._journals.values():
            journal.flush()
        sizes = {name: self._journals[name].size_bytes for name in JOURNALS} if self.runtime.is_main else {}
        keep = self.config.checkpoint.keep
        save_state(self.folder, step, tensors, numbers, sizes, keep=keep, runtime=self.runtime)
        if stop:
            self.say(f"\n{self.name}: saved at step {step} of {num_steps}; the same command goes on from here")
            raise SystemExit(self._interrupts.exit_code)

    def leave_if_asked(self) -> None:
        """Leave with 130 or 143 when a signal asked to stop, where there is nothing to save yet."""
        if self.runtime.ranks.any(self._interrupts.received is not None):
            self.say(f"\n{self.name}: stopped before the next step; the same command begins again from there")
            raise SystemExit(self._interrupts.exit_code)

    def finish(
        self,
        kind: Kind,
        source: Source,
        write_model: Callable[[Path], None],
        *,
        evaluation: Evaluation,
        facts: Mapping[str, Any],
    ) -> Path:
        """Write the model, the evaluation, the manifest (the commit) and the pages.

        The last checkpoints stay until `fairlead clean` takes them.
        """
        if self.runtime.is_main:
            write_model(self.folder / "model")
            write_evaluation(evaluation, self.folder / "evaluation.json")
            for journal in self._journals.values():
                journal.flush()
            base = source.base
            write_manifest(
                self.folder,
                Manifest(
                    kind=kind,
                    stage=self.name,
                    parents={
                        role: Parent(path=parent.name, digest=parent.digest) for role, parent in self.parents.items()
                    },
                    config=self.config.model_dump(mode="json"),
                    data_digests=dict(self.data_digests),
                    base=ManifestBase(name=base.name, digest=base.digest, revision=base.revision or ""),
                    versions=package_versions(),
                    num_threads=self.runtime.num_threads,
                    world_size=self.runtime.ranks.world_size,
                    seed=self.runtime.seed,
                    wall_seconds=self._seconds_in_all(),
                    peak_memory_bytes=peak_memory_bytes(self.runtime.device),
                    facts={**facts, "licences": licences([p.name for p in self.parents.values()], self.data_digests)},
                ),
            )
            self._write_pages()
        self.runtime.ranks.barrier()
        return self.folder

    def _write_pages(self) -> None:
        write_text(self.folder / "README.md", model_card(self.folder))
        stage_report(self.folder, self.parents["model"].artifact)

    def _seconds_in_all(self) -> float:
        """Training time over all sessions of this stage, from its own timings, plus what this session did besides."""
        before = _recorded_seconds(self.folder / "timings.jsonl")
        trained_now = self._progress.seconds if self._progress else 0.0
        return before + (time.monotonic() - self._started - trained_now)

    @contextmanager
    def opened(self) -> Iterator["Stage"]:
        """Hold the folder: lock, journals, sinks, signals."""
        with ExitStack() as stack:
            if self.runtime.is_main:
                stack.enter_context(lock(self.folder))
                sweep(self.folder)
                sweep(self.folder / "checkpoints")
                drop_old_checkpoints(self.folder, keep=self.config.checkpoint.keep)  # a kill may have come before it
                check_identity(self.folder, self._identity())
                for name in (*JOURNALS, "timings"):
                    self._journals[name] = stack.enter_context(Journal(self.folder / f"{name}.jsonl"))
                stack.callback(self._close_sinks)
                self._open_sinks()
            self.runtime.ranks.barrier()
            self._monitor = Monitor(self.config.health, self.folder, self.runtime, self.say)
            stack.enter_context(self._interrupts)
            try:
                yield self
            except NonFiniteError as error:
                try:
                    self._monitor.not_finite(error)
                except RollBack:
                    self.leave_if_asked()
                    raise
                raise
            except RollBack:
                self.leave_if_asked()
                raise
        if self.runtime.ranks.any(self._interrupts.received is not None):
            self.say(f"{self.name}: stopped as asked, after the stage was finished")
            raise SystemExit(self._interrupts.exit_code)

    def _identity(self) -> dict[str, Any]:
        identity = {
            "config": self.config.model_dump(mode="json", exclude=FREE_OPTIONS),
            "parents": {role: source.digest for role, source in self.parents.items()},
            "data": files_by_name(self.data_digests),
        }
        return inside_run(identity, Path(self.config.output))

    def unchanged_and_finished(self) -> bool:
        """Whether the work is already done; a finished stage with other options is an error."""
        if not is_finished(self.folder):
            return False
        if self.runtime.is_main:
            check_identity(self.folder, self._identity())
            if not (self.folder / "report.html").is_file():  # killed between the commit and the pages
                with lock(self.folder):
                    self._write_pages()
            self.say(f"{self.name}: {self.folder} is finished and unchanged, skipped")
        return True


def open_stage(
    name: str, config: StageConfig, runtime: Runtime, *, parents: Mapping[str, Source], data_digests: Mapping[str, str]
) -> Stage:
    """The stage's folder inside `config.output`, and what makes it the same stage next time."""
    folder = stage_folder(Path(config.output), name)
    runtime.ranks.barrier()
    return Stage(name, folder, config, runtime, parents, data_digests)


def _recorded_seconds(path: Path) -> float:
    """Sum over the steps; of a step done twice (before and after a kill) the last counts."""
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line]
    return sum({row["step"]: row["seconds"] for row in rows}.values())
