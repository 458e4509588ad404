"""Files as streams of bytes: plain, compressed, or a member of a zip archive; no file is held whole. No torch here."""

import gzip
import hashlib
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

import pyarrow as pa

from fairlead.errors import ExitCode, UserError

MAX_RATIO = 200  # decompressed bytes per compressed byte; text rarely reaches 20, a bomb has 1000
MAX_FILE_BYTES = 256 << 30  # of one file, after decompression
MAX_WHOLE_BYTES = 4 << 30  # of what has to be held whole: one JSON list
MAX_ROW_BYTES = 64 << 20
MAX_MEMBERS = 10_000  # of one archive
CHUNK_BYTES = 256 << 10
SAMPLE_BYTES = 1 << 20  # of the beginning of a file, by which it is decided how to read it
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".xz": "xz"}
ARCHIVE = ".zip"
_BAD, _MISSING = ExitCode.BAD_DATA, ExitCode.MISSING_INPUT
_DAMAGE = (
    OSError, EOFError, MemoryError, zlib.error, lzma.LZMAError, pa.ArrowException, zipfile.BadZipFile, RuntimeError,
)  # fmt: skip

Row = dict[str, Any] | str
"""A row, or the reason why it cannot be used."""


class Chunks(io.RawIOBase):
    """An iterator of chunks as a raw stream; `behind` is closed with it."""

    def __init__(self, chunks: Iterator[bytes], behind: IO[bytes]) -> None:
        self._chunks, self._behind, self._rest = chunks, behind, memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the current chunk; 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close what is behind."""
        self._behind.close()
        super().close()


def as_stream(chunks: Iterator[bytes], behind: IO[bytes]) -> io.BufferedReader:
    """A buffered stream of the chunks, which come from `behind`."""
    return io.BufferedReader(Chunks(chunks, behind), CHUNK_BYTES)


def peeked(stream: BinaryIO, num_bytes: int) -> tuple[bytes, io.BufferedReader]:
    """The first bytes of a stream, fewer only where it is shorter, and a stream that still begins with them."""
    head = stream.read(num_bytes)
    return head, as_stream(_from(head, stream), stream)


def _from(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    if head:
        yield head
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def compression_of(name: str) -> str:
    """`.gz`, `.zst`, `.xz`, or an empty string."""
    return next((suffix for suffix in COMPRESSIONS if name.endswith(suffix)), "")


def open_stream(path: Path) -> BinaryIO:
    """The bytes of a file, or of `archive.zip/member`, decompressed as they are read.

    Raises UserError: 66 for what is not there, 65 for what is damaged, too large or unpacks to more than `MAX_RATIO`
    times its size; the last two while it is read.
    """
    file, num_bytes = _stored(path)
    suffix = compression_of(path.name)
    if not suffix:
        return file
    return as_stream(_counted(path, _unpacked(path, file, suffix), num_bytes), file)


def open_whole(path: Path, stream: BinaryIO) -> bytes:
    """All bytes of a stream, at most `MAX_WHOLE_BYTES`; closes it."""
    with stream:
        data = stream.read(MAX_WHOLE_BYTES + 1)
    if len(data) > MAX_WHOLE_BYTES:
        fix = "write it as JSON lines, one row a line: those are read row by row"
        raise _too_large(path, f"more than {MAX_WHOLE_BYTES} bytes", MAX_WHOLE_BYTES, fix)
    return data


def sha256_stored(path: Path) -> str:
    """Digest of the bytes of a file as they lie on disk; of a member of an archive, those that it unpacks to."""
    digest = hashlib.sha256()
    with _stored(path)[0] as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _stored(path: Path) -> tuple[BinaryIO, int]:
    """The bytes of a file or member before its own decompression, and how many there are."""
    archive = archive_of(path)
    if archive is not None:
        return _member(archive, path.relative_to(archive).as_posix())
    try:
        file = path.open("rb", buffering=CHUNK_BYTES)
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path), fix="check the path", exit_code=_MISSING) from None
    except OSError as error:
        what, fix = f"the file cannot be read ({error.strerror})", "check the path and its permissions"
        raise UserError(what, where=str(path), fix=fix, exit_code=_MISSING) from error
    num_bytes = path.stat().st_size
    if num_bytes > MAX_FILE_BYTES:
        file.close()
        fix = "split it into several files and name their folder"
        raise _too_large(path, f"{num_bytes / 2**30:.1f} GiB", MAX_FILE_BYTES, fix)
    return file, num_bytes


def _too_large(path: Path, got: str, limit: int, fix: str) -> UserError:
    want = f"at most {limit / 2**30:.0f} GiB"
    return UserError("the file is too large", where=str(path), got=got, want=want, fix=fix, exit_code=_BAD)


def damaged(path: Path, kind: str, error: Exception) -> UserError:
    """The error for a file whose own structure is broken."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UserError(f"the {kind} file is damaged ({reason})", where=str(path), fix="fetch it again", exit_code=_BAD)


def _unpacked(path: Path, file: BinaryIO, suffix: str) -> Iterator[bytes]:
    try:
        match suffix:
            case ".gz":
                read: Callable[[int], bytes] = gzip.GzipFile(fileobj=file).read
            case ".xz":
                read = lzma.LZMAFile(file).read  # noqa: SIM115  closed with the file
            case _:
                read = _zstd_reader(file)
        while chunk := read(CHUNK_BYTES):
            yield chunk
    except UserError:  # of the archive around it
        raise
    except _DAMAGE as error:
        raise damaged(path, COMPRESSIONS[suffix], error) from None


def _zstd_reader(file: BinaryIO) -> Callable[[int], bytes]:
    stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
    return lambda num_bytes: stream.read_buffer(num_bytes).to_pybytes()  # its read() never frees the bytes of a failure


def _counted(path: Path, chunks: Iterator[bytes], stored_bytes: int) -> Iterator[bytes]:
    """The chunks, until they are more than a file of that size should hold."""
    limit, size = min(MAX_RATIO * stored_bytes, MAX_FILE_BYTES), 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise unpacks_too_far(path, limit, stored_bytes)
        yield chunk


def unpacks_too_far(path: Path, limit: int, stored_bytes: int) -> UserError:
    """The error for a bomb."""
    return UserError(
        "the file unpacks to far more than it should",
        where=str(path),
        got=f"more than {limit} bytes from {stored_bytes}",
        want=f"at most {MAX_RATIO} times its size, and {MAX_FILE_BYTES >> 30} GiB",
        fix="if you trust it, unpack it yourself and name the unpacked file",
        exit_code=_BAD,
    )


# --- members of zip archives


def archive_of(path: Path) -> Path | None:
    """The archive that a path `archive.zip/member` reaches into, or None for a path of the file system."""
    # Not Path.is_file, which raises for a name that is too long
    return next((way for way in path.parents if way.suffix == ARCHIVE and os.path.isfile(way)), None)  # noqa: PTH113


def on_disk(path: Path) -> Path:
    """The file of the file system that holds this one: for a member its archive, else itself."""
    return archive_of(path) or path


def members(archive: Path) -> list[Path]:
    """Paths `archive.zip/member` of all files inside, sorted.

    Raises UserError (65) for an archive that is damaged, locked by a password or has links, too many members, or names
    that lead out of it: nothing of such an archive is read.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
    except (*_DAMAGE, ValueError) as error:
        raise damaged(archive, "zip", error) from None
    if len(entries) > MAX_MEMBERS:
        raise _refused(archive, f"{len(entries)} members", f"at most {MAX_MEMBERS} members")
    for entry in entries:
        _check_member(archive, entry)
    return sorted(archive / entry.filename for entry in entries if not entry.is_dir())


def _check_member(archive: Path, entry: zipfile.ZipInfo) -> None:
    name = PurePosixPath(entry.filename)
    mode = entry.external_attr >> 16
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or not name.parts:
        raise _refused(archive, f"the member {entry.filename!r}", "members that stay inside the archive")
    if stat.S_ISLNK(mode):
        raise _refused(archive, f"the link {entry.filename!r}", "files only")
    if entry.flag_bits & 1:
        raise _refused(archive, f"{entry.filename!r}, which a password locks", "an archive without a password")


def _refused(archive: Path, got: str, want: str) -> UserError:
    fix = "if you trust it, unpack it yourself and name the folder"
    return UserError("this zip archive is not read", where=str(archive), got=got, want=want, fix=fix, exit_code=_BAD)


def _member(archive: Path, name: str) -> tuple[BinaryIO, int]:
    if archive / name not in members(archive):
        fix = f"see what it holds: unzip -l {archive}"
        raise UserError(f"the archive has no member {name}", where=str(archive), fix=fix, exit_code=_MISSING)
    try:
        with zipfile.ZipFile(archive) as opened:  # stays open as long as its member
            entry = next(entry for entry in opened.infolist() if archive / entry.filename == archive / name)
            file = opened.open(entry)
    except (*_DAMAGE, ValueError) as error:
        raise damaged(archive, "zip", error) from None
    return as_stream(_counted(archive / name, _read_member(archive, file), entry.compress_size), file), entry.file_size


def _read_member(archive: Path, file: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    except _DAMAGE as error:
        raise damaged(archive, "zip", error) from None
