"""Files of rows: JSON, JSONL, CSV and Parquet, plain or gzipped, become dictionaries. No torch here."""

import codecs
import csv
import gzip
import hashlib
import io
import shlex
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.errors import ExitCode, UserError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".parquet")
MAX_RATIO = 200  # decompressed bytes per compressed byte; text rarely reaches 20, a bomb has 1000
MAX_FILE_BYTES = 4 << 30  # of one file, after decompression
MAX_ROW_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_BAD, _MISSING = ExitCode.BAD_DATA, ExitCode.MISSING_INPUT
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Row = dict[str, Any] | str
"""A row, or the reason why it cannot be used."""


def expand(paths: Iterable[Path | str]) -> list[Path]:
    """The data files that the paths name, in order; a folder stands for all data files below it, sorted."""
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(p for p in path.rglob("*") if p.is_file() and _format(p)) if path.is_dir() else [path]
        if not found:
            fix = "name a folder with rows"
            raise UserError(
                "the folder holds no data files", where=str(path), want=_known(), fix=fix, exit_code=_MISSING
            )
        files += found
    return files


def read_rows(path: Path | str) -> Iterator[tuple[int, Row]]:
    """Rows of one file with their numbers from 1: lines of JSONL and CSV, positions in a JSON list or Parquet table.

    A row that cannot be parsed comes as the reason in words. A JSON list is accepted under the name .jsonl, and JSON
    lines under the name .json. CSV cells are always text. Raises UserError where the file as a whole cannot be used.
    """
    rows, _ = read_rows_and_digest(path)
    yield from rows


def read_rows_and_digest(path: Path | str) -> tuple[Iterator[tuple[int, Row]], str]:
    """As `read_rows`, with the sha256 of the file's bytes as they lie on disk."""
    path = Path(path)
    form = _format(path)
    if not form:
        got = path.suffix or "no suffix"
        fix = "convert it, or rename it if only its name is unusual"
        raise UserError("this kind of file is not known", where=str(path), got=got, want=_known(), fix=fix)
    stored = _read(path)
    data = _decompressed(path, stored) if path.suffix == ".gz" else stored
    if data.startswith(b"version https://git-lfs"):
        what = "this is a Git-LFS pointer, not the data"
        raise UserError(what, where=str(path), fix="run: git lfs pull", exit_code=_BAD)
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data[:_CHUNK_BYTES].strip() and not data.strip():
        raise UserError("the file is empty", where=str(path), fix="name a file with rows", exit_code=_MISSING)
    if data.startswith(_UTF16) and form != ".parquet":
        raise _not_utf8(path, "UTF-16", "at byte 0")
    match form:
        case ".parquet":
            rows = _parquet_rows(path, data)
        case ".csv":
            rows = _csv_rows(path, data)
        case _:
            rows = _json_rows(path, data, lines=form != ".json")
    return rows, hashlib.sha256(stored).hexdigest()


def _format(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _known() -> str:
    return ", ".join(SUFFIXES) + ", or one of these with .gz"


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _too_large(path, size)
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path), fix="check the path", exit_code=_MISSING) from None
    except OSError as error:
        what, fix = f"the file cannot be read ({error.strerror})", "check the path and its permissions"
        raise UserError(what, where=str(path), fix=fix, exit_code=_MISSING) from error


def _too_large(path: Path, size: int) -> UserError:
    return UserError(
        "the file is too large",
        where=str(path),
        got=f"{size / 2**30:.1f} GiB",
        want=f"at most {MAX_FILE_BYTES / 2**30:.0f} GiB",
        fix="split it into several files and name their folder",
        exit_code=_BAD,
    )


def _decompressed(path: Path, stored: bytes) -> bytes:
    chunks: list[bytes] = []
    size, limit = 0, min(MAX_RATIO * len(stored), MAX_FILE_BYTES)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(stored)) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise UserError(
                        "the file unpacks to far more than it should",
                        where=str(path),
                        got=f"more than {limit} bytes from {len(stored)}",
                        want=f"at most {MAX_RATIO} times its size, and {MAX_FILE_BYTES >> 30} GiB",
                        fix="if you trust it, unpack it yourself and name the unpacked file",
                        exit_code=_BAD,
                    )
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, "gzip", str(error)) from None
    return b"".join(chunks)


def _damaged(path: Path, kind: str, reason: str) -> UserError:
    return UserError(f"the {kind} file is damaged ({reason})", where=str(path), fix="fetch it again", exit_code=_BAD)


def _guess(data: bytes) -> str:
    for encoding in ("gb18030", "big5"):
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding.upper()
    return "Latin-1 or another 8-bit encoding"


def _not_utf8(path: Path, guess: str, at: str) -> UserError:
    return UserError(
        f"the file is not UTF-8 ({at})",
        where=str(path),
        got=f"perhaps {guess}",
        fix="convert it: iconv -f {} -t UTF-8 {} > {}".format(
            guess.split(maxsplit=1)[0], shlex.quote(str(path)), shlex.quote(str(path.with_name(f"utf8-{path.name}")))
        ),
        exit_code=_BAD,
    )


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, _guess(data), f"at byte {error.start}") from None


# --- JSON and JSON lines


def _json_rows(path: Path, data: bytes, *, lines: bool) -> Iterator[tuple[int, Row]]:
    if lines and data.lstrip()[:1] != b"[":
        return _line_rows(data)
    try:
        whole = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if lines or _opens_with_a_row(data):
            return _line_rows(data)
        _text(path, data)  # names the encoding where that is the trouble
        where = f"{path}:{error.lineno}"
        raise UserError(f"this is not JSON: {error.msg}", where=where, fix="mend the file", exit_code=_BAD) from None
    if isinstance(whole, list) and not _is_dialogue(whole):
        return ((number, _as_row(value)) for number, value in enumerate(whole, start=1))
    return iter([(1, _as_row(whole))])


def _opens_with_a_row(data: bytes) -> bool:
    """Whether a file named .json holds JSON lines: several lines, and the first is a whole object."""
    first, _, rest = data.lstrip().partition(b"\n")
    try:
        return bool(rest.strip()) and isinstance(orjson.loads(first), dict)
    except orjson.JSONDecodeError:
        return False


def _line_rows(data: bytes) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        if len(line) > MAX_ROW_BYTES:
            yield number, f"the line has {len(line) >> 20} MiB, more than {MAX_ROW_BYTES >> 20}"
            continue
        try:
            line.decode("utf-8")
            yield number, _as_row(orjson.loads(line))
        except UnicodeDecodeError as error:
            yield number, f"not UTF-8 at byte {error.start} of the line (perhaps {_guess(line)})"
        except orjson.JSONDecodeError as error:
            yield number, f"not JSON: {error.msg} (column {error.colno})"


def _is_dialogue(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value)


def _as_row(value: object) -> Row:
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and _is_dialogue(value):
        return {"messages": value}  # one conversation as a bare list, as ColossalChat writes it
    return f"a row is an object, this is a {type(value).__name__}"


# --- CSV and Parquet


def _csv_rows(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.reader(io.StringIO(_text(path, data), newline=""), strict=True)
    try:
        header = next((cells for cells in reader if any(cell.strip() for cell in cells)), [])
        first_line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(header):
                yield first_line, dict(zip(header, cells, strict=True))
            elif cells:
                yield first_line, f"the row has {len(cells)} cells, the header {len(header)}"
            first_line = reader.line_num + 1
    except csv.Error as error:
        where = f"{path}:{reader.line_num}"
        raise UserError(f"this is not CSV: {error}", where=where, fix="mend the quotes", exit_code=_BAD) from None


def _parquet_rows(path: Path, data: bytes) -> Iterator[tuple[int, Row]]:
    try:
        number = 0
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, "Parquet", str(error).splitlines()[0]) from None
