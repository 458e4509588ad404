"""Training checkpoints: written whole, verified before use, the older kept until the newer is safe.

The room above (runtime) decides what is in one; here is how it gets to the disk and back.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.artifacts.atomic import folder_bytes, new_folder, remove, write_bytes
from fairlead.artifacts.hashing import files_in, open_sealed_json, sealed_json
from fairlead.artifacts.manifest import MANIFEST_NAME, FileFacts, check_files, file_facts
from fairlead.errors import ExitCode, UserError

_STEP = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every byte is as it was written."""

    path: Path
    step: int
    facts: dict[str, Any]
    """What the caller saved beside the files: world size, threads, seed, config digest, byte lengths of journals."""
    skipped: tuple[tuple[Path, str], ...]
    """Newer checkpoints that could not be used, and why. The caller tells the user."""


def save_checkpoint(
    folder: Path, step: int, write: Callable[[Path], None], *, facts: Mapping[str, Any], keep: int
) -> Path:
    """Save `folder/checkpoints/step-NNNNNN` and then delete the oldest beyond `keep` (at least 2).

    `write` fills the folder it is given; rank 0 alone calls this. `facts` are JSON values. Checkpoints of later steps
    belong to a past that was rolled back and are deleted too. Raises UserError (74) when the disk refuses: what was
    saved before stays, and the message names it.
    """
    assert keep >= 2
    earlier = [path for at, path in _steps(folder) if at <= step]
    size_bytes = folder_bytes(earlier[-1]) if earlier else 0
    final = folder / "checkpoints" / f"step-{step:06d}"
    try:
        with new_folder(final, replace=True, num_bytes=size_bytes) as tmp:
            write(tmp)
            files = {name: entry.model_dump() for name, entry in file_facts(tmp, files_in(tmp)).items()}
            write_bytes(tmp / MANIFEST_NAME, sealed_json({"step": step, "facts": dict(facts), "files": files}))
    except UserError as error:
        if error.exit_code is not ExitCode.IO or not earlier:
            raise
        what = f"{error.what}; the last good checkpoint is {earlier[-1].name}"
        raise UserError(what, fix=error.fix, exit_code=ExitCode.IO) from error
    for path in [path for at, path in _steps(folder) if at > step]:
        remove(path)
    drop_old_checkpoints(folder, keep=keep)
    return final


def drop_old_checkpoints(folder: Path, *, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of a stage's folder."""
    for _, path in _steps(folder)[:-keep]:
        remove(path)


def drop_checkpoints_since(folder: Path, step: int) -> None:
    """Delete the checkpoints of `step` and later."""
    for path in [path for at, path in _steps(folder) if at >= step]:
        remove(path)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a stage's folder that is whole, or None when there never was one.

    Raises UserError (65) when there are some and none is whole: starting again from zero is for the user to decide.
    """
    skipped: list[tuple[Path, str]] = []
    for step, path in reversed(_steps(folder)):
        try:
            return Checkpoint(path, step, _verified_facts(path, step), tuple(skipped))
        except UserError as error:
            skipped.append((path, error.what))
    if not skipped:
        return None
    what = f"no checkpoint in {folder / 'checkpoints'} can be used: " + "; ".join(reason for _, reason in skipped)
    fix = f"delete {folder} to start this stage over, or restore it from a copy"
    raise UserError(what, fix=fix, exit_code=ExitCode.BAD_DATA)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the facts of a checkpoint and those of this run, such as `num_threads 2 -> 1`.

    Only the keys of `now` are compared. An empty list means that resuming is bit-exact on a CPU.
    """
    return [f"{key} {saved.get(key)} -> {now[key]}" for key in now if saved.get(key) != now[key]]


def _verified_facts(path: Path, step: int) -> dict[str, Any]:
    try:
        manifest = open_sealed_json(path / MANIFEST_NAME)
    except FileNotFoundError:
        raise UserError(f"{path / MANIFEST_NAME} is missing", exit_code=ExitCode.BAD_DATA) from None
    if manifest["step"] != step:
        what = f"{path} holds step {manifest['step']}; it was renamed by hand"
        raise UserError(what, exit_code=ExitCode.BAD_DATA)
    check_files(path, {name: FileFacts(**facts) for name, facts in manifest["files"].items()})
    return manifest["facts"]


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of every checkpoint by rising step, whole or not."""
    places = (folder / "checkpoints").glob("step-*")
    return sorted((int(match[1]), path) for path in places if (match := _STEP.fullmatch(path.name)))


def last_step(folder: Path) -> int | None:
    """Step of the newest checkpoint, unverified; None without one."""
    steps = _steps(folder)
    return steps[-1][0] if steps else None
