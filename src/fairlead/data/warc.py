"""Web pages of a WARC file (ISO 28500), as crawlers write them, and their text. No torch here."""

import codecs
import re
import zlib
from collections.abc import Iterator
from email.message import Message as Headers
from pathlib import Path
from typing import BinaryIO

from fairlead.data.html_text import html_text
from fairlead.data.streams import CHUNK_BYTES, Row, damaged

MAX_PAGE_BYTES = 4 << 20  # of one page; html.parser takes about a second for each MiB
MAX_HEADER_LINES = 200
_MAX_LINE_BYTES = 64 << 10
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_PARAMETER = re.compile(r"charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE | re.ASCII)
_NO_CHARSETS = ("punycode", "idna", "unicode-escape", "raw-unicode-escape", "utf-7")  # Python's own, not the web's
_PAGES = ("text/html", "application/xhtml+xml")


class _DamagedError(ValueError):
    """What is read is no WARC."""


def warc_rows(path: Path, stream: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Every response as a row {"url", "date", "text"}, counted from 1; also text that is extracted already (WET).

    A response that is no web page has `not_a_page`, which says what it is, in place of `text`. Bytes that the page's
    encoding does not have become U+FFFD, as in a browser. Raises UserError (65) where the file is damaged.
    """
    number = 0
    with stream:
        try:
            while headers := _record_headers(stream):
                kind, num_bytes = headers.get("WARC-Type", ""), _length(headers)
                if kind not in ("response", "conversion"):
                    _skip(stream, num_bytes)
                    continue
                number += 1
                row = {"url": headers.get("WARC-Target-URI", ""), "date": headers.get("WARC-Date", "")}
                if num_bytes > MAX_PAGE_BYTES:
                    _skip(stream, num_bytes)
                    yield number, row | {"not_a_page": f"larger than {MAX_PAGE_BYTES >> 20} MiB"}
                    continue
                block = _exactly(stream, num_bytes)
                yield number, row | (_page(block) if kind == "response" else {"text": block.decode(errors="replace")})
        except _DamagedError as error:
            raise damaged(path, "WARC", error) from None


def _record_headers(stream: BinaryIO) -> Headers | None:
    """Headers of the next record, or None at the end of the file."""
    while (line := stream.readline(_MAX_LINE_BYTES)) and not line.strip():
        pass
    if not line:
        return None
    if not line.startswith(b"WARC/"):
        raise _DamagedError("a record does not begin with WARC/")
    lines = []
    while (line := stream.readline(_MAX_LINE_BYTES)).strip():
        lines.append(line)
        if len(lines) > MAX_HEADER_LINES:
            raise _DamagedError(f"a record has more than {MAX_HEADER_LINES} headers")
    return _headers(lines)


def _headers(lines: list[bytes]) -> Headers:
    headers = Headers()
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        headers[re.sub(r"[^\w-]", "", name)] = " ".join(value.split())
    return headers


def _length(headers: Headers) -> int:
    value = headers.get("Content-Length", "")
    if not value.isdecimal() or len(value) > 15:
        raise _DamagedError("a record does not say its length")
    return int(value)


def _skip(stream: BinaryIO, num_bytes: int) -> None:
    while num_bytes and (chunk := stream.read(min(num_bytes, CHUNK_BYTES))):
        num_bytes -= len(chunk)
    if num_bytes:
        raise _DamagedError("the last record is cut off")


def _exactly(stream: BinaryIO, num_bytes: int) -> bytes:
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise _DamagedError("the last record is cut off")
    return data


# --- HTTP


def _page(block: bytes) -> dict[str, str]:
    """The text of an HTTP response, or why it has none."""
    head, _, body = block.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = _headers(lines)
    code = [*status.split(), b"", b""][1].decode("latin-1")
    kind = headers.get_content_type()
    if code != "200":
        return {"not_a_page": f"status {code or 'missing'}"}
    if kind not in _PAGES:
        return {"not_a_page": kind}
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        body = _joined(body)
    packed = headers.get("Content-Encoding", "identity").lower()
    if packed in ("gzip", "x-gzip", "deflate"):
        body = _inflated(body)
    elif packed != "identity" and b"<" not in body[:1000]:  # crawlers unpack, and leave the header as it was
        return {"not_a_page": f"packed as {packed}"}
    return {"text": html_text(_decoded(headers, body))}


def _joined(body: bytes) -> bytes:
    """The body without the sizes of its chunks (RFC 9112, 7.1); as it is where a crawler has joined them already."""
    pieces, at = [], 0
    while match := re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]{0,200}\r\n").match(body, at):
        size = int(match[1], 16)
        if not size:
            break
        pieces.append(body[match.end() : match.end() + size])
        at = match.end() + size + 2
    return b"".join(pieces) or body


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, MAX_PAGE_BYTES)
    except zlib.error:
        return body  # unpacked already


def _decoded(headers: Headers, body: bytes) -> str:
    declared = _CHARSET.search(body[:4096])
    said = _PARAMETER.search(headers.get("Content-Type", ""))
    name = said[1] if said else declared[1].decode("ascii") if declared else "utf-8"
    try:
        return body.decode("utf-8" if codecs.lookup(name).name in _NO_CHARSETS else name, errors="replace")
    except (LookupError, UnicodeError):  # a name that no one knows, or of no encoding of text
        return body.decode("utf-8", errors="replace")
