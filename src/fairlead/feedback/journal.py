"""Whether SQLite's journal (FILE-wal) was taken from a store while it held what FILE does not.

Beside an open store lies FILE-open. It goes when a store is closed in order; where it is found without the journal,
somebody has deleted labels.
"""

from pathlib import Path

from fairlead.artifacts.atomic import fsync_folder
from fairlead.errors import ExitCode, UserError


def check(path: Path) -> None:
    """Raises UserError (65) where the journal is gone."""
    if _mark(path).exists() and not _journal(path).exists():
        raise UserError(
            "the journal of this store was taken away, and with it what was said last", where=str(path),
            got=f"{_mark(path).name} without {_journal(path).name}", want=f"{_journal(path).name} beside it",
            fix=f"put it back, or restore a backup: fairlead feedback restore; to go on without it: rm {_mark(path)}",
            exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip


def begin(path: Path) -> None:
    """The store is open, and its journal there."""
    if not _mark(path).exists() and _journal(path).exists():
        _mark(path).touch(mode=0o600)
        fsync_folder(path.parent)


def end(path: Path) -> None:
    """All that the journal held is in the file now, unless others write."""
    journal = _journal(path)
    if not journal.exists() or not journal.stat().st_size:
        _mark(path).unlink(missing_ok=True)


def _journal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _mark(path: Path) -> Path:
    return path.with_name(path.name + "-open")
