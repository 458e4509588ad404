"""Text of any encoding becomes UTF-8; what is not UTF-8 and not said to be something else is named. No torch here."""

import codecs
import io
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fairlead.data.streams import CHUNK_BYTES, archive_of, as_stream, compression_of
from fairlead.errors import ExitCode, UserError

ENCODINGS = (
    "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "gbk", "gb2312", "big5", "big5hkscs", "cp950",
    "shift_jis", "cp932", "euc_jp", "euc_kr", "cp949", "iso8859-1", "cp1252", "cp1251", "koi8-r",
)  # fmt: skip
"""What a file may be said to be written in, by Python's names; other spellings of these are understood."""

UNREADABLE = "\udcff"  # stands for bytes that the encoding does not have; no text holds it, so the row is rejected
UNREADABLE_BYTES = UNREADABLE.encode("utf-8", "surrogatepass")
MARKING = "fairlead-unreadable"
codecs.register_error(MARKING, lambda error: (UNREADABLE, error.end))  # type: ignore[attr-defined]

_MARKS = (  # the longer ones first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_FREQUENT = frozenset(
    "的一是不了在人有我他這这中大來来上個个們们到說说国國和地也子時时道出而要于於就下得可你好年生，。、："
)


def mark_of(head: bytes) -> str:
    """The encoding that a byte order mark at the start names, or an empty string."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "")


def check_encoding(encoding: str) -> str:
    """Python's name of an encoding that text may be read in. Raises UserError (2) for any other."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        name = ""
    if name not in ENCODINGS:
        raise UserError("this encoding is not known", got=encoding, want=", ".join(ENCODINGS), fix="name one of these")
    return name


def as_utf8(path: Path, stream: BinaryIO, head: bytes, encoding: str | None) -> tuple[BinaryIO, str]:
    """The stream, which begins with `head`, as UTF-8 without a byte order mark, and the name of its encoding.

    A byte order mark is believed before all else. `encoding` is that of files whose beginning is not UTF-8; without it
    a file that is mostly something else is refused by a UserError (65) with a guess. Bytes that the encoding does not
    have become `UNREADABLE`.
    """
    name = mark_of(head) or ("utf-8" if encoding is None or _is_surely_utf8(head) else encoding)
    if name == "utf-8":
        if mark_of(head):
            stream.read(len(codecs.BOM_UTF8))
        elif encoding is None:
            _check_utf8(path, head)
        return stream, name
    if name in ("utf-16", "utf-32") and not mark_of(head):
        fix = "say encoding=utf-16-le or utf-16-be" if name == "utf-16" else "convert it to UTF-8"
        what = f"the file is said to be {name.upper()} and has no byte order mark, which would say how to read it"
        raise UserError(what, where=str(path), fix=fix, exit_code=ExitCode.BAD_DATA)
    text = io.TextIOWrapper(stream, name, errors=MARKING, newline="")
    return as_stream(_transcoded(text), stream), name


def _transcoded(text: io.TextIOWrapper) -> Iterator[bytes]:
    while piece := text.read(CHUNK_BYTES):
        yield piece.encode("utf-8", "surrogatepass")


def _is_surely_utf8(head: bytes) -> bool:
    """Whether there is more than ASCII, and all of it is UTF-8: a few words of another encoding hardly ever look so."""
    num_wide = len(head.translate(None, bytes(range(128))))
    return num_wide >= 6 and _first_bad(head) is None


def _check_utf8(path: Path, head: bytes) -> None:
    """Refuse a file that begins as another encoding; single bad lines are left to whoever reads the rows.

    Another encoding: half of the lines are not UTF-8, or a tenth, and no other line has more than ASCII.
    """
    if 5 * head.count(0) > len(head):
        guess = "UTF-16-LE" if head[1::2].count(0) > head[::2].count(0) else "UTF-16-BE"
        raise not_utf8(path, guess, "every other byte is zero")
    start = _first_bad(head)
    if start is None:
        return
    lines = [line for line in head.split(b"\n")[:10_000] if line.strip()]
    wide = [line for line in lines if not line.isascii()]
    num_bad = sum(_first_bad(line) is not None for line in wide)
    is_tenth = 2 <= num_bad == len(wide) and 10 * num_bad >= len(lines)
    if is_tenth or 2 * num_bad >= len(lines):
        raise not_utf8(path, guess_of(head), f"at byte {start}")


def _first_bad(data: bytes) -> int | None:
    """The first byte that is not UTF-8; the end may lie within a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError as error:
        return error.start
    return None


def guess_of(data: bytes) -> str:
    """Which encoding bytes that are not UTF-8 may have: the one whose text has more of the most frequent characters."""
    counts: dict[str, int] = {}
    for encoding in ("gb18030", "big5"):
        try:
            # A sample may end within a character
            text = codecs.getincrementaldecoder(encoding)().decode(data)
        except UnicodeDecodeError:
            continue
        counts[encoding] = sum(map(_FREQUENT.__contains__, text))
    return max(counts, key=counts.__getitem__).upper() if counts else "Latin-1 or another 8-bit encoding"


def not_utf8(path: Path, guess: str, at: str) -> UserError:
    """The error for a file in another encoding."""
    name = guess.split(maxsplit=1)[0]
    files = shlex.quote(str(path)), shlex.quote(str(path.with_name(f"utf8-{path.name}")))
    convert = f"convert it: iconv -f {name} -t UTF-8 {files[0]} > {files[1]}"
    if compression_of(path.name) or archive_of(path):
        convert = "unpack and convert it"
    return UserError(
        f"the file is not UTF-8 ({at})",
        where=str(path),
        got=f"perhaps {guess}",
        fix=f"say encoding={name.lower()}, in training data.encoding={name.lower()}, or {convert}",
        exit_code=ExitCode.BAD_DATA,
    )
