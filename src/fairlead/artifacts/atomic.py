"""Files and folders that appear whole or not at all, also when the machine stops in between.

Everything is written under a name ending in `.tmp-<8 hex digits>`, flushed to the disk with fsync, then renamed, then
the parent folder is flushed. A writer holds a lock on its temporary while it lives, so `sweep` can tell leftovers of a
killed process from the work of a living one. An fsync that fails is never tried again: the kernel may have dropped the
data already (PostgreSQL's lesson of 2018).
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fairlead.artifacts.hashing import canonical_json
from fairlead.errors import ExitCode, UserError

_CHUNK_BYTES = 1 << 20
SPACE_FACTOR = 1.2  # free space asked for, times the bytes to be written
_TEMPORARY = re.compile(r"(?P<final>.+)\.(?P<state>tmp|old)-[0-9a-f]{8}")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one step; its mode follows the umask. Raises UserError (74) when the disk refuses."""
    write_pieces(path, [data], num_bytes=len(data))


def write_pieces(path: Path, pieces: Iterable[bytes], *, num_bytes: int = 0) -> None:
    """As `write_bytes`, for what is made while it is written; `num_bytes` is how much is expected, for the message."""
    with explain_disk_errors(path, num_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp = _beside(path, "tmp")
        descriptor = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _hold(descriptor)
            for piece in _chunks(pieces):
                write_all(descriptor, piece)
            os.fsync(descriptor)
            tmp.replace(path)
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        fsync_folder(path.parent)


def _chunks(pieces: Iterable[bytes]) -> Generator[bytes]:
    """The same bytes, about a megabyte at a time."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file in one step."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step: sorted keys, one line."""
    write_bytes(path, canonical_json(value) + b"\n")


@contextmanager
def new_folder(final: Path, *, replace: bool = False, num_bytes: int = 0) -> Generator[Path]:
    """Yield an empty folder to fill; it becomes `final` when the block ends well and vanishes when it raises.

    `num_bytes` is the expected size: without room for it nothing is begun. An existing `final` is replaced only when
    asked to. Raises UserError: 2 when `final` exists, 74 when the disk refuses.
    """
    if final.exists() and not replace:
        raise UserError(f"{final} exists already", fix="give another folder, or delete this one first")
    with passing_folder(final, num_bytes=num_bytes) as tmp, explain_disk_errors(final, num_bytes):
        yield tmp
        fsync_tree(tmp)
        _move_in(tmp, final)


@contextmanager
def passing_folder(near: Path, *, num_bytes: int = 0) -> Generator[Path]:
    """Yield an empty folder beside `near` that is gone when the block ends. Raises UserError (74) as `new_folder`."""
    with explain_disk_errors(near, num_bytes):
        near.parent.mkdir(parents=True, exist_ok=True)
        require_space(near.parent, num_bytes)
        tmp = _beside(near, "tmp")
        tmp.mkdir()
        descriptor = os.open(tmp, os.O_RDONLY)
        try:
            _hold(descriptor)
            yield tmp
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
            os.close(descriptor)


def _move_in(tmp: Path, final: Path) -> None:
    """Rename `tmp` to `final`. A kill between the two renames leaves the old folder aside; `sweep` puts it back."""
    old = _beside(final, "old") if final.exists() else None
    if old:
        final.rename(old)
    try:
        tmp.rename(final)
    except OSError:
        if old:
            old.rename(final)
        raise
    fsync_folder(final.parent)
    if old:
        _delete(old)


def remove(path: Path) -> None:
    """Delete a file or folder. It loses its name first, so that a kill never leaves half of it under that name."""
    with explain_disk_errors(path):
        doomed = _beside(path, "tmp")
        path.rename(doomed)
        _delete(doomed)


def sweep(folder: Path) -> list[Path]:
    """Delete what killed writers left in a folder, at any depth; return what was deleted.

    Temporaries of living writers stay. A folder that was moved aside by a replacement that never finished is put back.
    Where the file system has no locks, nobody can tell the dead from the living, and nothing is deleted.
    """
    for entry, final, state in _temporaries(folder):
        being_replaced = any(is_held(tmp) for tmp in entry.parent.glob(f"{final.name}.tmp-*"))
        if state == "old" and not final.exists() and not being_replaced:
            entry.rename(final)
    doomed = leftovers(folder)
    for path in doomed:
        _delete(path)
    return doomed


def leftovers(folder: Path) -> list[Path]:
    """What `sweep` would delete, at any depth."""
    found = ((entry, state == "tmp" or final.exists()) for entry, final, state in _temporaries(folder))
    return [entry for entry, useless in found if useless and not is_held(entry)]


def _temporaries(folder: Path) -> list[tuple[Path, Path, str]]:
    """Each temporary at any depth with the name it stands for and its state, tmp or old."""
    found: list[tuple[Path, Path, str]] = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _TEMPORARY.fullmatch(entry.name):
            found.append((entry, entry.with_name(match["final"]), match["state"]))
        elif entry.is_dir() and not entry.is_symlink():
            found += _temporaries(entry)
    return found


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make all files in a folder durable, at any depth, with the mode the umask gives (safetensors writes 0600)."""
    file_mode = folder.stat().st_mode & 0o666
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            fsync_tree(entry)
            continue
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fchmod(descriptor, file_mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_folder(folder)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes; the system may take fewer than it was given."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def require_space(folder: Path, num_bytes: int) -> None:
    """Raise UserError (74) unless the disk of `folder` has room for `num_bytes` and a fifth more."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if num_bytes and shutil.disk_usage(place).free < num_bytes * SPACE_FACTOR:
        raise _disk_full(folder, int(num_bytes * SPACE_FACTOR))


def require_folder(folder: Path, num_bytes: int) -> None:
    """Raise UserError (74) unless files can be written in a folder, which need not exist, with room for `num_bytes`."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with explain_disk_errors(place):
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except FileNotFoundError:  # file systems such as /proc
            raise PermissionError(errno.EACCES, "cannot be written", str(place)) from None
    require_space(folder, num_bytes)


@contextmanager
def explain_disk_errors(path: Path, num_bytes: int = 0) -> Generator[None]:
    """Turn what a disk refuses (full, broken, read-only, not permitted) into a UserError (74)."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if explained := _explain(error, path, num_bytes):
            raise explained from error
        raise


def _explain(error: Exception, path: Path, num_bytes: int) -> UserError | None:
    code = error.errno if isinstance(error, OSError) else None
    if code is None and (rust := re.search(r"\(os error (\d+)\)", str(error))):  # SafetensorError and its like
        code = int(rust[1])
    place = getattr(error, "filename", None) or path
    untouched = "what was saved before is untouched"
    match code:
        case errno.ENOSPC | errno.EDQUOT:
            return _disk_full(path, num_bytes)
        case errno.EIO:
            what, fix = f"the disk failed at {place} (input/output error)", f"check the disk; {untouched}"
        case errno.EROFS:
            what, fix = f"{place} is on a read-only file system", "give a folder on another disk"
        case errno.EACCES | errno.EPERM:
            what, fix = f"no permission to write {place}", "give a folder you may write, or change its permissions"
        case errno.ENOTDIR | errno.EEXIST:
            what, fix = f"a file is in the way at {place}", "give another folder, or move the file away"
        case _:
            return None
    return UserError(what, fix=fix, exit_code=ExitCode.IO)


def _disk_full(path: Path, num_bytes: int) -> UserError:
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    needs = f"needs {size_text(num_bytes)}, " if num_bytes else ""
    what = f"disk full: {needs}has {size_text(shutil.disk_usage(place).free)} at {path}"
    fix = "free some space (`fairlead clean` lists what can go), or give a folder on another disk"
    return UserError(what, fix=fix, exit_code=ExitCode.IO)


def size_text(num_bytes: float) -> str:
    """A size for people: 812 MB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if num_bytes >= 10 or unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder, at any depth; files that vanish meanwhile are not counted."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).stat().st_size
    return total


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on a file or folder, as far as the file system can tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without locks
        return True
    finally:
        os.close(descriptor)
    return False


def _hold(descriptor: int) -> None:
    with suppress(OSError):  # a file system without locks: `sweep` then leaves everything
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def _beside(path: Path, state: str) -> Path:
    return path.with_name(f"{path.name}.{state}-{secrets.token_hex(4)}")


def _delete(path: Path) -> None:
    """Delete a file or folder that another process may be deleting too."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if path.exists():
        raise UserError(f"cannot delete {path}", fix="delete it by hand", exit_code=ExitCode.IO)
