"""One run per folder. A second one is told who is there; what a killed one left behind is taken over."""

import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import psutil

from fairlead.artifacts.atomic import explain_disk_errors, write_all
from fairlead.artifacts.hashing import canonical_json
from fairlead.errors import ExitCode, UserError

LOCK_NAME = "lock.json"
_START_TOLERANCE_SECONDS = 2.0  # psutil derives start times from the boot time, which moves a little with the clock


@dataclass(frozen=True, slots=True)
class Holder:
    """Who works in a folder."""

    pid: int
    host: str
    process_started: float
    """Seconds since 1970; tells a process from a later one that got the same number."""
    since: str
    """UTC, ISO 8601."""

    def __str__(self) -> str:
        """Shown in messages."""
        return f"pid {self.pid} on host {self.host} since {self.since}"


@contextmanager
def lock(folder: Path) -> Generator[Holder | None]:
    """Hold a folder for this process; yields the dead holder it was taken over from, or None.

    The kernel's lock (flock) decides and dies with the process, also under kill -9. The record in `lock.json` gives the
    message its names, and decides where flock cannot: on another host, and on file systems without locks.
    Raises UserError: 75 when a living process, or one on another host, holds the folder; 74 when it cannot be written.
    """
    path = folder / LOCK_NAME
    with explain_disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(path)
    try:
        left_by = _read(path)
        if left_by and _may_be_alive(left_by):
            raise _in_use(folder, left_by)
        with explain_disk_errors(path):
            os.ftruncate(descriptor, 0)
            write_all(descriptor, canonical_json(_this_process()) + b"\n")
        try:
            yield left_by
        finally:
            path.unlink(missing_ok=True)  # before the kernel's lock goes, or it could be the next holder's
    finally:
        os.close(descriptor)


def holder(folder: Path) -> Holder | None:
    """Who holds a folder now, as far as can be told from here."""
    found = _read(folder / LOCK_NAME)
    return found if found and _may_be_alive(found) else None


def require_free(folder: Path) -> None:
    """Raise UserError (75) when a living process holds a folder; takes no lock and makes nothing."""
    if found := holder(folder):
        raise _in_use(folder, found)


def _open_locked(path: Path) -> int:
    """Open the lock file and take the kernel's lock on it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _in_use(path.parent, _read(path)) from None
        except OSError:  # a file system without locks: the record alone decides
            return descriptor
        if _is_open_file(path, descriptor):
            return descriptor
        os.close(descriptor)  # the holder left between open and flock, and its file with it


def _is_open_file(path: Path, descriptor: int) -> bool:
    """Whether what lies there is what was opened. One look: between two the file may go."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _in_use(folder: Path, by: Holder | None) -> UserError:
    fix = "wait for it to end, or give another folder"
    if by and by.host != socket.gethostname():
        fix = f"if that process is gone, delete {folder / LOCK_NAME}; else wait for it to end"
    return UserError(f"{folder} is in use by {by or 'another process'}", fix=fix, exit_code=ExitCode.RETRY)


def _this_process() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process_started": psutil.Process().create_time(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _read(path: Path) -> Holder | None:
    """The record, or None when it is absent or its writer was killed while writing it."""
    try:
        return Holder(**orjson.loads(path.read_bytes()))
    except (FileNotFoundError, orjson.JSONDecodeError, TypeError):
        return None


def _may_be_alive(by: Holder) -> bool:
    if by.host != socket.gethostname():
        return True
    try:
        started = psutil.Process(by.pid).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return abs(started - by.process_started) < _START_TOLERANCE_SECONDS
