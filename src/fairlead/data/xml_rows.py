"""Rows of XML: the children of the root, such as the posts of a Stack Exchange dump. No torch here."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

from fairlead.data.encodings import UNREADABLE_BYTES
from fairlead.data.streams import MAX_ROW_BYTES, Row
from fairlead.errors import ExitCode, UserError

MAX_DEPTH = 200  # of elements in each other
_PIECE_BYTES = 64 << 10


def xml_rows(path: Path, stream: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Each child of the root with its line: its attributes, and the text of its own children by their names.

    The tree is never built. Raises UserError (65) where the file is no XML from there on, and for a document type or
    an entity of its own: a few of those can unpack to more than any memory (CWE-776).
    """
    reader = _Reader(path)
    with stream:
        while piece := stream.read(_PIECE_BYTES):
            while UNREADABLE_BYTES.startswith((piece[-1:], piece[-2:])) and (more := stream.read(1)):
                piece += more
            # A document may declare an encoding, but the stream is UTF-8, with a mark where bytes had no meaning
            reader.feed(piece.replace(UNREADABLE_BYTES, "\ufffd".encode()))
            yield from reader.taken()
        reader.feed(b"", final=True)
        yield from reader.taken()


class _Reader:
    """Expat's events, gathered into rows."""

    def __init__(self, path: Path) -> None:
        self._path, self._depth, self._num_bytes, self._row_at = path, 0, 0, 0
        self._rows: deque[tuple[int, Row]] = deque()
        self._row: dict[str, Any] = {}
        self._name, self._text, self._line = "", [""], 0
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._data
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse

    def feed(self, piece: bytes, *, final: bool = False) -> None:
        self._num_bytes += len(piece)
        try:
            self._parser.Parse(piece, final)
        except expat.ExpatError as error:
            what = f"this is not XML: {expat.ErrorString(error.code)}"
            raise self._error(what, error.lineno, "mend the file, or fetch it again") from None
        begun = self._row_at if self._depth >= 2 else self._parser.CurrentByteIndex
        if self._num_bytes - begun > MAX_ROW_BYTES:
            what = f"a tag or a row has more than {MAX_ROW_BYTES >> 20} MiB"
            raise self._error(what, self._parser.CurrentLineNumber, "fetch the file again")

    def taken(self) -> Iterator[tuple[int, Row]]:
        while self._rows:
            yield self._rows.popleft()

    def _error(self, what: str, line: int, fix: str) -> UserError:
        return UserError(what, where=f"{self._path}:{line}", fix=fix, exit_code=ExitCode.BAD_DATA)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 2:
            self._row, self._line = dict(attributes), self._parser.CurrentLineNumber
            self._row_at = self._parser.CurrentByteIndex
        elif self._depth > MAX_DEPTH:
            what = f"the elements are nested more than {MAX_DEPTH} levels deep"
            raise self._error(what, self._parser.CurrentLineNumber, "give the rows as children of the root")
        elif self._depth == 3:
            self._name, self._text = name, []

    def _end(self, _: str) -> None:
        if self._depth == 3:
            self._add(self._name, "".join(self._text))
        elif self._depth == 2:
            self._rows.append((self._line, self._row))
        self._depth -= 1

    def _add(self, name: str, text: str) -> None:
        """A child's text; children of one name become a list."""
        before = self._row.get(name)
        if before is None:
            self._row[name] = text
        elif isinstance(before, list):
            before.append(text)
        else:
            self._row[name] = [before, text]

    def _data(self, text: str) -> None:
        if self._depth >= 3:
            self._text.append(text)

    def _refuse(self, *_: object) -> None:
        what = "the file declares a document type or an entity, which is not read"
        raise self._error(what, self._parser.CurrentLineNumber, "remove the declaration if you trust the file")
