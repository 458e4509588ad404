"""Bad inputs 1 to 29 of RELIABILITY.md, section 4, as the readers meet them: what is said, and that nothing is lost.

Not here: 14, a line of 2 GB, is in test_sources; 24, 25 and 30 are no matter of reading: tests/train/test_refusals.py.
"""

import gzip
import io
import json
import lzma
import stat
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairlead.data.load import read_conversations, read_preferences
from fairlead.errors import UserError

GOOD = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'
ALPACA = b'{"instruction": "q", "output": "a"}'
PAIR = b'{"prompt": "q", "chosen": "a", "rejected": "b"}'
HH = json.dumps({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}).encode()
READERS = {GOOD: read_conversations, ALPACA: read_conversations, PAIR: read_preferences, HH: read_preferences}


def saying(*turns):
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}).encode()


def parquet():
    sink = io.BytesIO()
    pq.write_table(pa.table({"instruction": ["q"], "output": ["a"]}), sink)
    return sink.getvalue()


def archive(name, mode=0o644):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as opened:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        opened.writestr(entry, GOOD)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("number", "name", "data", "message", "code"),
    [
        (1, "a.jsonl", b"", "the file is empty", 66),
        (1, "a.json", b"[]", "the file holds no rows", 66),
        (1, "a.csv", b"instruction,output\n", "the file holds no rows", 66),
        (2, "a.jsonl", b" \n\t\r\n", "the file is empty", 66),
        (2, "a.csv", b"\xef\xbb\xbf", "the file is empty", 66),
        (4, "a.jsonl", GOOD.decode().encode("utf-16-le"), "perhaps UTF-16-LE", 65),
        (5, "a.jsonl", saying(("user", "q")).replace(b"q", "你好".encode("gb18030")), "perhaps GB18030", 65),
        (5, "a.jsonl.gz", gzip.compress("你好".encode("gb18030"), mtime=0), "GB18030", 65),
        (5, "a.csv", "instruction,output\n這是中文，我們說,好\n".encode("big5"), "perhaps BIG5", 65),
        (26, "a.csv", b'instruction,output\nq,"a\n', "a.csv:2: this is not CSV", 65),
        (27, "a.parquet", parquet()[:-7], "the Parquet file is damaged", 65),
        (28, "a.jsonl.gz", gzip.compress(b"x" * 5_000_000, mtime=0), "unpacks to far more", 65),
        (28, "a.jsonl.xz", lzma.compress(b"x" * 5_000_000), "unpacks to far more", 65),
        (29, "a.zip", archive("../../etc/a.jsonl"), "is not read; got the member", 65),
        (29, "a.zip", archive("a.jsonl", stat.S_IFLNK | 0o777), "is not read; got the link", 65),
    ],
)
def test_files_that_are_refused(tmp_path, number, name, data, message, code):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_conversations([tmp_path / name], rejects=tmp_path / "rejects.jsonl")
    error = caught.value
    assert error.exit_code == code
    assert error.where.startswith(str(tmp_path / name))
    assert error.fix
    if number == 5:
        said = error.fix.split("say encoding=")[1].split(",")[0]
        assert f"data.encoding={said}" in error.fix
        assert ("iconv" in error.fix) == (not name.endswith(".gz"))  # which knows no compression
        rows = read_conversations([tmp_path / name], encoding=said, max_reject_rate=1).num_rows
        assert rows == 1


@pytest.mark.parametrize(
    ("number", "name", "data", "notes"),
    [
        (3, "a.jsonl", b"\xef\xbb\xbf" + GOOD, ()),
        (3, "a.json", b"\xef\xbb\xbf[" + GOOD + b"]", ()),
        (4, "a.jsonl", GOOD.decode().encode("utf-16"), ("read as UTF-16, as its byte order mark says",)),
        (10, "a.jsonl", b"[" + GOOD + b"]", ("one JSON list, though its name says JSON lines",)),
        (26, "a.csv", b"instruction,output\n=cmd|' /C calc'!A0,@SUM(1)\n", ()),
    ],
)
def test_files_that_are_read(tmp_path, number, name, data, notes):
    (tmp_path / name).write_bytes(data)
    loaded = read_conversations([tmp_path / name])
    assert len(loaded.records) == 1
    assert loaded.notes == {str(tmp_path / name): notes}
    if number == 26:
        assert [one.content for one in loaded.records[0].messages] == ["=cmd|' /C calc'!A0", "@SUM(1)"]


DEEP = b'{"messages": ' + b"[" * 1000 + b"]" * 1000 + b"}"


@pytest.mark.parametrize(
    ("number", "good", "bad", "reason"),
    [
        (6, GOOD, GOOD.replace(b'"q"', b'"\xff"'), "not UTF-8 at byte 43 of the line"),
        (7, GOOD, GOOD.replace(b'"q"', b'"\\ud800"'), "not JSON: "),
        (8, GOOD, GOOD.replace(b'"q"', b'"q\\u0000"'), "a user turn holds a NUL character"),
        (8, GOOD, GOOD.replace(b'"q"', b'"q\0"'), "not JSON: "),
        (9, GOOD, GOOD[:-20], "the file may have been cut off here"),
        (11, GOOD, DEEP, "nested 1001 levels deep, more than 200"),
        (11, GOOD, DEEP.replace(b"[", b"[" * 50).replace(b"]", b"]" * 50), "not JSON: "),
        (12, GOOD, GOOD.replace(b'"q"', b"NaN"), "not JSON: "),
        (12, GOOD, GOOD.replace(b'"q"', b"1e999"), "not JSON: "),
        (13, GOOD, GOOD.replace(b'"content": "q"', b'"content": "x", "content": "q"'), "a key comes twice"),
        (15, ALPACA, b'{"instruction": "q"}', "the field `output` is missing"),
        (16, GOOD, b'{"messages": "hello"}', "`messages` should be a list and is a str"),
        (17, GOOD, saying(("user", "q"), ("assistant", "")), "an assistant turn is empty"),
        (18, GOOD, saying(("user", "q"), ("user", "r"), ("assistant", "a")), "roles are out of order: turn 2"),
        (19, GOOD, saying(("user", "q"), ("gpt2", "a")), "unknown role 'gpt2'"),
        (20, GOOD, ALPACA, "this row looks like alpaca, the file is messages"),
        (21, PAIR, PAIR.replace(b'"b"', b'"a"'), "chosen and rejected are the same"),
        (22, HH, HH.replace(b"q", b"r", 1), "chosen and rejected have different prompts"),
        (23, HH, HH.replace(b"\\n\\nAssistant: a", b""), "chosen does not end with an answer"),
    ],
)
def test_rows_that_are_rejected(tmp_path, number, good, bad, reason):
    path, rejects = tmp_path / "rows.jsonl", tmp_path / "rejects.jsonl"
    path.write_bytes(b"\n".join([good] * 6 + [bad]))  # at the end: 9 is about a last line
    loaded = READERS[good]([path], rejects=rejects, max_reject_rate=0.2)
    assert [record.source for record in loaded.records] == [f"{path}:{line}" for line in range(1, 7)]
    (rejection,) = loaded.rejections
    assert (rejection.path, rejection.line) == (str(path), 7)
    assert reason in rejection.reason
    assert json.loads(rejects.read_text())["line"] == 7
    with pytest.raises(UserError, match="1 of 7 rows cannot be used") as caught:
        READERS[good]([path])
    assert (caught.value.where, caught.value.exit_code) == (f"{path}:7", 65)


def test_ragged_rows_of_a_table(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,output\nq,a\nq\nq,a,b\nr,b\n")
    loaded = read_conversations([path], max_reject_rate=0.5)
    assert [record.source for record in loaded.records] == [f"{path}:2", f"{path}:5"]
    assert [one.reason for one in loaded.rejections] == [
        "the row has 1 cells, the header 2", "the row has 3 cells, the header 2",
    ]  # fmt: skip
