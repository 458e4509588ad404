"""Runs and their stages on disk: where a stage writes, what exists, what may be deleted."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.artifacts.atomic import folder_bytes, leftovers, remove
from fairlead.artifacts.checkpoints import last_step
from fairlead.artifacts.journal import last_row
from fairlead.artifacts.lock import holder
from fairlead.artifacts.manifest import MANIFEST_NAME, read_manifest
from fairlead.errors import ExitCode, UserError

_STAGE = re.compile(r"(\d\d)-([a-z0-9][a-z0-9_-]*)")


@dataclass(frozen=True, slots=True)
class StageInfo:
    """One stage as it lies on disk."""

    path: Path
    kind: str
    """Kind of the artifact; empty while unfinished; `damaged` when the manifest cannot be trusted."""
    finished: bool
    in_use: bool
    """A living process works in it."""
    size_bytes: int
    last_step: int | None
    """Last step in metrics.jsonl, or of the newest checkpoint."""

    @property
    def name(self) -> str:
        """`01-sft`."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run as it lies on disk, with its stages in order."""

    path: Path
    stages: tuple[StageInfo, ...]
    size_bytes: int

    @property
    def name(self) -> str:
        """`demo`."""
        return self.path.name

    @property
    def finished(self) -> bool:
        """Whether every stage that was begun is finished."""
        return all(stage.finished for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Removable:
    """Something that can be deleted without losing a result."""

    path: Path
    why: str
    size_bytes: int


def stage_folder(run: Path, stage: str) -> Path:
    """`run/<nn>-<stage>`: the newest folder of that stage when there is one, else the next number. Makes nothing."""
    assert _STAGE.fullmatch(f"00-{stage}"), stage
    numbered = [(int(match[1]), match[2]) for match, _ in _stage_paths(run)]
    same = [number for number, name in numbered if name == stage]
    number = max(same) if same else max((number for number, _ in numbered), default=0) + 1
    return run / f"{number:02d}-{stage}"


def is_finished(folder: Path) -> bool:
    """Whether a stage ran to its end: its manifest is written last."""
    return (folder / MANIFEST_NAME).is_file()


def is_taken(folder: Path) -> bool:
    """Whether a stage's folder is finished or in use: nobody else may write into it."""
    return is_finished(folder) or holder(folder) is not None


def is_run(folder: Path) -> bool:
    """Whether a folder holds stages, finished or not."""
    return bool(_stage_paths(folder))


def preferred(policies: Sequence[Path]) -> Path | None:
    """Of the policies of a run, in order, the one that it stands for: the newest of ppo or grpo, else the last."""
    online = [path for path in policies if path.name.partition("-")[2] in ("ppo", "grpo")]
    return (online or policies)[-1] if policies else None


def policy_of(run: Path) -> Path:
    """The stage that a run is used by as a model, see `preferred`. Raises UserError (66) when no policy is finished."""
    folders = [folder for _, folder in _stage_paths(run)]
    found = preferred([folder for folder in folders if is_finished(folder) and read_manifest(folder).kind == "policy"])
    if found is None:
        raise UserError(
            "this run has no finished policy", where=str(run), want="a finished sft, dpo, kto, grpo or ppo stage",
            got=", ".join(folder.name + ("" if is_finished(folder) else " (unfinished)") for folder in folders),
            fix=f"`fairlead runs {shlex.quote(str(run))}` says how to go on", exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip
    return found


def list_runs(root: Path) -> list[RunInfo]:
    """`root` itself when it is a run, then every run below it, by name. A run holds a recipe or a stage."""
    runs = []
    for path in (root, *sorted(root.iterdir())) if root.is_dir() else ():
        stages = tuple(_stage_info(folder) for _, folder in _stage_paths(path))
        if stages or (path / "recipe.yaml").is_file():
            runs.append(RunInfo(path, stages, folder_bytes(path)))
    return runs


def removable(root: Path) -> list[Removable]:
    """What `fairlead clean` may delete: checkpoints of finished stages, stages that never did a step, leftovers."""
    found = []
    for run in list_runs(root):
        for stage in run.stages:
            checkpoints = stage.path / "checkpoints"
            if stage.in_use:
                continue
            if stage.finished and checkpoints.is_dir():
                found.append(Removable(checkpoints, "the stage is finished", _bytes(checkpoints)))
            elif not stage.finished and stage.last_step is None:
                found.append(Removable(stage.path, "begun, no step yet", _bytes(stage.path)))
    whole = {item.path for item in found}
    torn = [path for path in leftovers(root) if not whole.intersection(path.parents)]
    return [*(Removable(path, "left by a killed process", _bytes(path)) for path in torn), *found]


def clean(items: list[Removable]) -> int:
    """Delete what `removable` listed; return the bytes that became free."""
    there = [item for item in items if item.path.exists()]
    for item in there:
        remove(item.path)
    return sum(item.size_bytes for item in there)


def _stage_paths(run: Path) -> list[tuple[re.Match[str], Path]]:
    entries = sorted(run.iterdir()) if run.is_dir() else []
    return [(match, entry) for entry in entries if (match := _STAGE.fullmatch(entry.name)) and entry.is_dir()]


def _stage_info(folder: Path) -> StageInfo:
    try:
        kind = read_manifest(folder).kind if is_finished(folder) else ""
    except UserError:
        kind = "damaged"
    row = last_row(folder / "metrics.jsonl") or {}
    step = row.get("step", last_step(folder))
    in_use = holder(folder) is not None
    return StageInfo(folder, kind, is_finished(folder), in_use, folder_bytes(folder), step)


def _bytes(path: Path) -> int:
    return folder_bytes(path) if path.is_dir() else path.stat().st_size
