"""Rows of plain text, for pre-training: what counts as one document is decided by one rule and told. No torch here.

1. Text with `<|endoftext|>` in it: what stands between two of those is a document.
2. Otherwise, where every line that is not blank is long: each line is a document (one article a line).
3. Otherwise it is one running text, such as a play or a book with lines of ordinary length: it is given in pieces that
   end at the first blank line behind `PIECE_CHARS` characters. Nothing but blank lines at the ends is lost.

The rule is chosen by the beginning of the file.
"""

import io
from collections.abc import Iterator
from itertools import count
from typing import BinaryIO

from fairlead.data.encodings import MARKING, UNREADABLE
from fairlead.data.streams import MAX_ROW_BYTES, Row

SEPARATOR = "<|endoftext|>"
LONG_LINE_CHARS = 200  # text with hard line breaks has lines of 60 to 120
PIECE_CHARS = 16 << 10


def text_rows(stream: BinaryIO, head: bytes, encoding: str) -> tuple[Iterator[tuple[int, Row]], str]:
    """Documents as rows {"text": ...} with the line each begins on, and the rule that was taken."""
    text = io.TextIOWrapper(stream, "utf-8", errors=MARKING, newline="")  # type: ignore[arg-type]
    sample = head.decode("utf-8", errors="replace")
    if SEPARATOR in sample:
        pieces, note = _separated(text), f"documents between {SEPARATOR}"
    elif all(len(line) >= LONG_LINE_CHARS for line in _whole_lines(sample)):
        pieces, note = _by_line(text), "one document a line"
    else:
        pieces, note = _running(text), "one running text, in pieces that end at blank lines"
    return ((line, _row(piece, encoding)) for line, piece in pieces), note


def _whole_lines(sample: str) -> list[str]:
    """Lines that are not blank; the last one may be cut by the end of the sample."""
    lines = [line for line in sample.splitlines() if line.strip()]
    return lines[:-1] if len(lines) > 1 else lines


def _row(piece: str, encoding: str) -> Row:
    if len(piece) > MAX_ROW_BYTES:
        return f"a document has more than {MAX_ROW_BYTES >> 20} MiB"
    if UNREADABLE in piece:
        return f"not {encoding.upper()}: some bytes of the text stand for no character"
    return {"text": piece}


def _lines(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Lines with their numbers and ends; of one that is too long the first part, which is too long for a row."""
    with text:
        for number in count(1):
            line = text.readline(MAX_ROW_BYTES + 1)
            if not line:
                return
            yield number, line
            while len(line) > MAX_ROW_BYTES and line[-1] not in "\r\n":
                line = text.readline(MAX_ROW_BYTES + 1)


def _parts(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    """Lines with their numbers and ends, a long one in parts; no part ends within a separator."""
    number, kept = 1, ""
    with text:
        while line := text.readline(MAX_ROW_BYTES + 1):
            part, kept = kept + line, ""
            is_end = part[-1] in "\r\n"
            begun = next((size for size in range(len(SEPARATOR) - 1, 0, -1) if part.endswith(SEPARATOR[:size])), 0)
            part, kept = part[: len(part) - begun], part[len(part) - begun :]
            yield number, part
            number += is_end
    yield number, kept


def _by_line(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    return ((number, line.rstrip("\r\n")) for number, line in _lines(text) if line.strip())


def _separated(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    held, first, size = [""], 1, 0
    for number, part in _parts(text):
        before, *others = part.split(SEPARATOR)
        if size <= MAX_ROW_BYTES:  # a document that is too long is rejected, so its end need not be kept
            held.append(before)
            size += len(before)
        for piece in others:
            if document := "".join(held).strip():
                yield first, document
            held, first, size = [piece], number, len(piece)
        if not "".join(held[:2]).strip():  # blank lines before a document are not its beginning
            held, first, size = [""], number + 1, 0
    if document := "".join(held).strip():
        yield first, document


def _running(text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
    held: list[str] = []
    first, size = 1, 0
    for number, line in _lines(text):
        if not line.strip() and not held:
            first = number + 1
            continue
        held.append(line)
        size += len(line)
        if (size >= PIECE_CHARS and not line.strip()) or size >= 4 * PIECE_CHARS:
            yield first, "".join(held).strip("\r\n")
            held, first, size = [], number + 1, 0
    if held:
        yield first, "".join(held).strip("\r\n")
