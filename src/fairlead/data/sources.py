"""Files of rows: one place for every format, compression and encoding; rows come one by one. No torch here.

JSON, JSON lines, CSV, TSV, Parquet, Arrow (Feather), XML, WARC and plain text; plain, as .gz, .zst or .xz, or inside a
.zip archive, whose members are named `archive.zip/member`. What is read stays bounded by a row, except one JSON list,
which is held whole.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fairlead.data.encodings import as_utf8, check_encoding, mark_of
from fairlead.data.json_rows import json_rows
from fairlead.data.plain_text import text_rows
from fairlead.data.streams import (
    ARCHIVE,
    COMPRESSIONS,
    SAMPLE_BYTES,
    Row,
    archive_of,
    compression_of,
    members,
    open_stream,
    peeked,
    sha256_stored,
)
from fairlead.data.tables import arrow_rows, csv_rows, parquet_rows
from fairlead.data.warc import warc_rows
from fairlead.data.xml_rows import xml_rows
from fairlead.errors import ExitCode, UserError

SUFFIXES = (
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".xml", ".warc", ".wet", ".txt",
)  # fmt: skip
_TEXT = ".txt"
_ABOUT = "dataset_info.json"
_NOTES = (_ABOUT, "dataset_infos.json", "dataset_dict.json")  # what the library `datasets` writes beside its rows
_BAD, _MISSING = ExitCode.BAD_DATA, ExitCode.MISSING_INPUT


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one file, read as they are asked for, once; what there is to tell about how they are read."""

    path: Path
    rows: Iterator[tuple[int, Row]]
    notes: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        return self.rows

    def digest(self) -> str:
        """The sha256 of the file's bytes as they lie on disk, read for it once more."""
        return sha256_stored(self.path)


def expand(paths: Iterable[Path | str], *, texts: bool = False) -> list[Path]:
    """The data files that the paths name, in order; a folder or a zip archive stands for all data files in it, sorted.

    Of a folder, files of plain text count only with `texts`: among rows they are notes and licences. What the library
    `datasets` notes about its files in JSON is no data either.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = list(_inside(path, texts=texts)) if path.is_dir() or path.suffix == ARCHIVE else [path]
        if not found:
            what = "the folder holds no data files" if path.is_dir() else "the archive holds no data files"
            raise UserError(what, where=str(path), want=_known(), fix="name one with rows", exit_code=_MISSING)
        files += found
    return files


def _inside(path: Path, *, texts: bool) -> Iterator[Path]:
    """Data files of a folder or an archive; archives in a folder are looked into, those in an archive are not."""
    if path.suffix == ARCHIVE and not path.is_dir():
        if not path.exists():
            raise UserError("there is no such file", where=str(path), fix="check the path", exit_code=_MISSING)
        yield from (member for member in members(path) if _counts(member, texts=texts))
        return
    for found in sorted(path.rglob("*")):
        if found.is_file() and found.suffix == ARCHIVE:
            yield from _inside(found, texts=texts)
        elif found.is_file() and _counts(found, texts=texts):
            yield found


def _counts(path: Path, *, texts: bool) -> bool:
    form = _format(path)
    return bool(form) and (texts or form != _TEXT) and not _is_note(path)


def _is_note(path: Path) -> bool:
    return path.name in _NOTES or (path.name == "state.json" and path.with_name(_ABOUT).exists())


def read_rows(path: Path | str, *, encoding: str | None = None) -> Iterator[tuple[int, Row]]:
    """Rows of one file with their numbers from 1: lines of JSONL, CSV, XML and text, positions in all other formats.

    A row that cannot be parsed comes as the reason in words. A JSON list is accepted under the name .jsonl, and JSON
    lines under the name .json. CSV cells are always text. `encoding` is that of text that is not UTF-8. Raises
    UserError where the file as a whole cannot be used, or cannot be used from there on.
    """
    return iter(open_rows(path, encoding=encoding))


def open_rows(path: Path | str, *, encoding: str | None = None) -> Rows:
    """As `read_rows`, with what there is to tell; missing, empty and unknown files are refused at once."""
    path = _only_member(Path(path))
    _check_name(path)
    form = _format(path)
    if not form:
        got = path.suffix or "no suffix"
        fix = "convert it, or rename it if only its name is unusual"
        raise UserError("this kind of file is not known", where=str(path), got=got, want=_known(), fix=fix)
    encoding = check_encoding(encoding) if encoding else None
    head, stream = peeked(open_stream(path), SAMPLE_BYTES)
    _check_head(path, head)
    match form:
        case ".parquet":
            return Rows(path, parquet_rows(path, stream), ())
        case ".arrow" | ".feather":
            return Rows(path, arrow_rows(path, stream), ())
        case ".warc" | ".wet":
            return Rows(path, warc_rows(path, stream), ())
        case _:
            return _text_rows(path, form, stream, head, encoding)


def _text_rows(path: Path, form: str, stream: BinaryIO, head: bytes, encoding: str | None) -> Rows:
    utf8, name = as_utf8(path, stream, head, encoding)
    notes = []
    if name != "utf-8":
        notes.append(f"read as {name.upper()}" + (", as its byte order mark says" if mark_of(head) else ""))
    head, utf8 = peeked(utf8, SAMPLE_BYTES)
    note = ""
    match form:
        case ".csv" | ".tsv":
            rows = csv_rows(path, utf8, delimiter="," if form == ".csv" else "\t", encoding=name)
        case ".xml":
            rows = xml_rows(path, utf8)
        case ".txt":
            rows, note = text_rows(utf8, head, name)
        case _:
            rows, note = json_rows(path, utf8, head, lines=form != ".json", encoding=name)
    return Rows(path, rows, (*notes, *filter(None, [note])))


def _only_member(path: Path) -> Path:
    """A path, or the member of an archive that holds one data file only."""
    if path.suffix != ARCHIVE or archive_of(path) is not None:
        return path
    found = list(_inside(path, texts=True))
    if len(found) != 1:
        names = ", ".join(member.name for member in found[:5]) or "none"
        fix = f"name one: {found[0]}" if found else "name a file with rows"
        raise UserError("the archive holds not one data file", where=str(path), got=names, fix=fix, exit_code=_BAD)
    return found[0]


def _check_name(path: Path) -> None:
    """Refuse a name that JSON cannot hold: records say where they come from."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        what = "the name of the file is not UTF-8"
        raise UserError(what, where=ascii(str(path)), fix="rename it", exit_code=_BAD) from None


def _check_head(path: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        what = "this is a Git-LFS pointer, not the data"
        raise UserError(what, where=str(path), fix="run: git lfs pull", exit_code=_BAD)
    if len(head) < SAMPLE_BYTES and not head.removeprefix(b"\xef\xbb\xbf").strip():
        raise UserError("the file is empty", where=str(path), fix="name a file with rows", exit_code=_MISSING)


def _format(path: Path) -> str:
    name = path.name.removesuffix(compression_of(path.name))
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _known() -> str:
    return f"{', '.join(SUFFIXES)}, one of these with {', '.join(COMPRESSIONS)}, or in a {ARCHIVE}"
