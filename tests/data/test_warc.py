import gzip
import zlib

import pytest

from fairlead.data.load import read_documents
from fairlead.data.sources import read_rows
from fairlead.errors import UserError

PAGE = "<title>Größe</title><p>你好</p>"


def record(kind, block, **headers):
    lines = [b"WARC/1.0", b"WARC-Type: " + kind.encode(), b"Content-Length: " + str(len(block)).encode()]
    lines += [f"{name.replace('_', '-')}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join([*lines, b"", block, b"", b""])


def response(body, *headers, status="200 OK", kind="text/html"):
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers]
    return record("response", "\r\n".join([*lines, "", ""]).encode() + body, WARC_Target_URI="http://a/")


def text_of(tmp_path, data):
    (tmp_path / "a.warc").write_bytes(data)
    ((_, row),) = read_rows(tmp_path / "a.warc")
    return row["text"]


TEXT = "Größe\n\n你好"


def chunked(body):
    return b"5;x=1\r\n" + body[:5] + b"\r\n" + f"{len(body) - 5:X}".encode() + b"\r\n" + body[5:] + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (PAGE.encode(), ()),
        (PAGE.encode("gb18030", "replace").replace(b"?", b""), ("Content-Type: x",)),
        (chunked(PAGE.encode()), ("Transfer-Encoding: chunked",)),
        (PAGE.encode(), ("Transfer-Encoding: chunked",)),
        (gzip.compress(PAGE.encode(), mtime=0), ("Content-Encoding: gzip",)),
        (zlib.compress(PAGE.encode()), ("Content-Encoding: deflate",)),
        (chunked(gzip.compress(PAGE.encode(), mtime=0)), ("Transfer-Encoding: chunked", "Content-Encoding: gzip")),
        (PAGE.encode(), ("Content-Encoding: gzip",)),
        (PAGE.encode(), ("Content-Encoding: br",)),
    ],
)
def test_bodies(tmp_path, body, headers):
    assert text_of(tmp_path, response(body, *headers)).endswith(TEXT if "Content-Type: x" not in headers else "\ufffd")


@pytest.mark.parametrize(
    ("kind", "before", "encoding"),
    [
        ("text/html; charset=gb18030", "", "gb18030"),
        ("text/html", "<META http-equiv=x content='text/html; charset=gb18030'>", "gb18030"),
        ("text/html; charset=klingon", "", "utf-8"),
        ("text/html; charset=zlib", "", "utf-8"),
        ("text/html; charset=punycode", "", "utf-8"),
    ],
)
def test_charsets(tmp_path, kind, before, encoding):
    assert text_of(tmp_path, response((before + "<p>你好</p>").encode(encoding), kind=kind)) == "你好"


def test_what_is_no_page_is_left_out_and_counted(tmp_path):
    path = tmp_path / "a.warc.gz"
    records = [
        record("warcinfo", b"software: x"), record("request", b"GET / HTTP/1.1\r\n\r\n"),
        response(PAGE.encode()), response(b"%PDF", kind="application/pdf"),
        response(b"<p>gone</p>", status="404 Not Found"), response(b"\x8b\x02\x80", "Content-Encoding: br"),
        record("response", b""), record("conversion", b"extracted already"),
    ]  # fmt: skip
    path.write_bytes(b"".join(map(gzip.compress, records)))
    loaded = read_documents([path])
    assert [(record.text, record.source) for record in loaded.records] == [
        (TEXT, f"{path}:1"), ("extracted already", f"{path}:6"),
    ]  # fmt: skip
    assert loaded.left_out == {
        "a response that is no web page (application/pdf)": 1, "a response that is no web page (status 404)": 1,
        "a response that is no web page (packed as br)": 1, "a response that is no web page (status missing)": 1,
    }  # fmt: skip


def test_a_large_page_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.warc.MAX_PAGE_BYTES", 500)
    (tmp_path / "a.warc").write_bytes(response(b"x" * 600) + response(PAGE.encode()))
    rows = [row for _, row in read_rows(tmp_path / "a.warc")]
    assert "larger than" in rows[0]["not_a_page"]
    assert rows[1]["text"] == TEXT


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (response(PAGE.encode())[:-40], "cut off"),
        (record("request", b"x" * 900)[:-500], "cut off"),
        (b"WARC/1.0\r\nWARC-Type: response\r\n\r\n", "does not say its length"),
        (b"WARC/1.0\r\nContent-Length: -5\r\n\r\n", "does not say its length"),
        (b"WARC/1.0\r\n" + b"a: b\r\n" * 300, "more than 200 headers"),
        (response(PAGE.encode()) + b"<html>", "does not begin with WARC/"),
    ],
)
def test_damaged_files(tmp_path, data, reason):
    (tmp_path / "a.warc").write_bytes(data)
    with pytest.raises(UserError, match=f"WARC file is damaged .*{reason}") as caught:
        list(read_rows(tmp_path / "a.warc"))
    assert caught.value.exit_code == 65
