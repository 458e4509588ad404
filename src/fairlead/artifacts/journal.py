"""JSON Lines that only grow: metrics, timings, samples. A line counts once its line feed is on the disk."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from fairlead.artifacts.atomic import explain_disk_errors, fsync_folder, write_all
from fairlead.artifacts.hashing import canonical_json
from fairlead.errors import ExitCode, UserError


class Journal:
    """An append-only file of one JSON object per line; equal objects give equal bytes.

    Opening it cuts off a line that a crash left half written. A checkpoint calls `flush` and records `size_bytes`;
    resuming calls `truncate` with that number.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending; the file and its folder are made when absent. Raises UserError (74)."""
        self.path = path
        with explain_disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            whole = path.read_bytes().rfind(b"\n") + 1
            if whole < self.size_bytes:
                self.truncate(whole)
            fsync_folder(path.parent)

    def append(self, row: dict[str, Any]) -> None:
        """Add one line. Raises ValueError naming the field for NaN and infinity, UserError (74) for a full disk."""
        try:
            line = canonical_json(row) + b"\n"
        except ValueError as error:
            raise ValueError(f"{self.path.name}: {error}") from None
        with explain_disk_errors(self.path):
            write_all(self._descriptor, line)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far."""
        return os.fstat(self._descriptor).st_size

    def truncate(self, num_bytes: int) -> None:
        """Forget everything after the first `num_bytes`. Raises UserError (65) when fewer are there."""
        if num_bytes > self.size_bytes:
            what = f"{self.path} has lost lines: {self.size_bytes} bytes are left of {num_bytes}"
            fix = "restore the file, or delete the stage's folder and run again"
            raise UserError(what, fix=fix, exit_code=ExitCode.BAD_DATA)
        with explain_disk_errors(self.path):
            os.ftruncate(self._descriptor, num_bytes)
            os.fsync(self._descriptor)

    def flush(self) -> None:
        """Make every line durable."""
        with explain_disk_errors(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close; after an error without waiting for the disk, which may be what failed."""
        if error is None:
            self.close()
        else:
            os.close(self._descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines. A torn last line is left out; a broken line before it raises UserError (65)."""
    raw = path.read_bytes()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            rows.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            fix = "restore the file, or delete the stage's folder and run again"
            where = f"{path}:{number}"
            raise UserError(f"not JSON ({error})", where=where, fix=fix, exit_code=ExitCode.BAD_DATA) from None
    return rows


def last_row(path: Path, *, tail_bytes: int = 65536) -> dict[str, Any] | None:
    """The last whole line, without reading the file; None when there is none in the last `tail_bytes`."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - tail_bytes))
        lines = file.read().split(b"\n")
    if len(lines) < 2:
        return None
    try:
        return orjson.loads(lines[-2])
    except orjson.JSONDecodeError:
        return None
