"""Rows of JSON lines, read one by one, and of one JSON value, held whole. No torch here."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from fairlead.data.encodings import UNREADABLE_BYTES, guess_of, not_utf8
from fairlead.data.streams import CHUNK_BYTES, MAX_ROW_BYTES, Row, open_whole
from fairlead.errors import ExitCode, UserError

MAX_DEPTH = 200  # of lists and objects in each other; a tree of replies needs two per reply
_KEY = re.compile(rb'"\s*:')


def json_rows(
    path: Path, stream: BinaryIO, head: bytes, *, lines: bool, encoding: str
) -> tuple[Iterator[tuple[int, Row]], str]:
    """Rows of a UTF-8 stream that begins with `head`, with line or position, and a note where name and content differ.

    `lines` is whether the name says JSON lines. `encoding` is the file's own, for messages. Raises UserError (65) for
    one JSON value that cannot be parsed; a bad line is only a bad row.
    """
    if _are_lines(head, lines=lines):
        return _line_rows(stream, encoding), "" if lines else "JSON lines, though its name says JSON"
    data = open_whole(path, stream)
    try:
        whole = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if lines or _opens_with_a_row(data):
            return _line_rows(data, encoding), "" if lines else "JSON lines, though its name says JSON"
        raise _not_json(path, data, error, encoding) from None
    is_list = isinstance(whole, list) and not _is_dialogue(whole)
    note = "one JSON list, though its name says JSON lines" if lines and is_list else ""
    return _rows_of(data, whole, is_list=is_list), note


def _are_lines(head: bytes, *, lines: bool) -> bool:
    """Whether a file that begins so holds a row per line."""
    first, _, rest = head.lstrip().partition(b"\n")
    if rest.strip() and _is_whole(first):
        return True
    return lines and not first.startswith(b"[")


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict | list)
    except orjson.JSONDecodeError:
        return False


def _opens_with_a_row(data: bytes) -> bool:
    """As `_are_lines`, for a first line that is longer than the sample."""
    first, _, rest = data.lstrip().partition(b"\n")
    return bool(rest.strip()) and first.startswith(b"{") and _is_whole(first)


def _not_json(path: Path, data: bytes, error: orjson.JSONDecodeError, encoding: str) -> UserError:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as bad:
        if encoding == "utf-8":
            return not_utf8(path, guess_of(data), f"at byte {bad.start}")
        fix = "name another encoding"
        return UserError(f"the file is not {encoding}", where=str(path), fix=fix, exit_code=ExitCode.BAD_DATA)
    where = f"{path}:{error.lineno}"
    return UserError(f"this is not JSON: {error.msg}", where=where, fix="mend the file", exit_code=ExitCode.BAD_DATA)


def _rows_of(data: bytes, whole: Any, *, is_list: bool) -> Iterator[tuple[int, Row]]:
    values = whole if is_list else [whole]
    shapes = [_shape(value) for value in values]
    repeated = [False] * len(values)
    if _may_repeat(data, sum(num_keys for num_keys, _ in shapes)) and _all_flat(shapes):
        again = _reparsed(data)
        repeated = [_has_repeated(value) for value in (again if is_list else [again])]
    for number, (value, (_, depth), twice) in enumerate(zip(values, shapes, repeated, strict=True), start=1):
        yield number, _REPEATED if twice else _as_row(value, depth)


def _all_flat(shapes: list[tuple[int, int]]) -> bool:
    return all(depth <= MAX_DEPTH for _, depth in shapes)  # deeper ones would exhaust the parser's recursion


# --- lines


def _line_rows(stream: BinaryIO | bytes, encoding: str) -> Iterator[tuple[int, Row]]:
    if isinstance(stream, bytes):
        stream = io.BytesIO(stream)
    number = 0
    with stream:
        while line := stream.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
                size = len(line) + _skip_line(stream)
                yield number, f"the line has {size >> 20} MiB, more than {MAX_ROW_BYTES >> 20}"
            elif line.strip():
                yield number, _parsed(line, encoding)


def _skip_line(stream: BinaryIO) -> int:
    """Pass over the rest of a line, piece by piece; how many bytes that were."""
    size = 0
    while piece := stream.readline(CHUNK_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _parsed(line: bytes, encoding: str) -> Row:
    if UNREADABLE_BYTES in line:
        return f"not {encoding.upper()}: some bytes of the line stand for no character"
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _reason(line, error)
    num_keys, depth = _shape(value)
    if depth <= MAX_DEPTH and _may_repeat(line, num_keys) and _has_repeated(_reparsed(line)):
        return _REPEATED
    return _as_row(value, depth)


def _reason(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as bad:
        return f"not UTF-8 at byte {bad.start} of the line (perhaps {guess_of(line)})"
    cut = (
        "; the file may have been cut off here" if not line.endswith(b"\n") and not line.rstrip().endswith(b"}") else ""
    )
    return f"not JSON: {error.msg} (column {error.colno}){cut}"


# --- what JSON allows and a row may not have

_REPEATED = "a key comes twice in one object, so a value would be lost"


class _Repeated(dict[str, Any]):
    """An object with a key that comes twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeated(found)


def _reparsed(data: bytes) -> Any:
    """JSON that was parsed already, by a slower parser that sees keys that come twice."""
    return json.loads(data, object_pairs_hook=_object)


def _may_repeat(data: bytes, num_keys: int) -> bool:
    """Whether JSON may have more keys than were left of them; never False where it has."""
    if sum(1 for _ in _KEY.finditer(data)) <= num_keys:
        return False
    # Some were quotes within a text; what is left to be taken for a key is a text that begins with a colon
    return sum(1 for _ in _KEY.finditer(data.replace(b"\\\\", b"").replace(b'\\"', b""))) > num_keys


def _shape(value: object) -> tuple[int, int]:
    """How many keys all objects of a value have together, and how deep it is nested."""
    num_keys = depth = 0
    level = [value] if isinstance(value, dict | list) else []
    while level:
        depth += 1
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                num_keys += len(item)
                below += [child for child in item.values() if isinstance(child, dict | list)]
            else:
                below += [child for child in item if isinstance(child, dict | list)]
        level = below
    return num_keys, depth


def _has_repeated(value: object) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, _Repeated) or any(map(_has_repeated, children))


def _is_dialogue(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value)


def _as_row(value: object, depth: int) -> Row:
    if depth > MAX_DEPTH:
        return f"nested {depth} levels deep, more than {MAX_DEPTH}"
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and _is_dialogue(value):
        return {"messages": value}  # one conversation as a bare list, as ColossalChat writes it
    return f"a row is an object, this is a {type(value).__name__}"
