import csv
import functools
import gzip
import hashlib
import io
import json
import lzma
import random
import stat
import tracemalloc
import zipfile
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import feather

from fairlead.data.sources import expand, open_rows, read_rows
from fairlead.data.streams import MAX_ROW_BYTES
from fairlead.errors import UserError

ROWS = [{"instruction": "问\n1", "output": '答, "1"'}, {"instruction": "b", "output": "=cmd|' /C calc'!A0"}]
ANY_ROWS = st.lists(
    st.fixed_dictionaries({"a": st.text(), "b": st.text()}).filter(lambda r: any(r.values())), min_size=1, max_size=5
)


def as_json(rows):
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_jsonl(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_csv(rows, delimiter=","):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, rows[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def as_tsv(rows):
    return as_csv(rows, "\t")


def as_arrow(rows):
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def as_feather(rows):
    sink = pa.BufferOutputStream()
    feather.write_feather(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def as_xml(rows):
    entities = {"\n": "&#xA;", "\r": "&#xD;", "\t": "&#x9;"}
    cells = [" ".join(f"{key}={quoteattr(value, entities)}" for key, value in row.items()) for row in rows]
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<rows>", *(f"  <row {row}/>" for row in cells), "</rows>"]
    return "\n".join(lines).encode()


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


WRITERS = {
    "json": as_json, "jsonl": as_jsonl, "ndjson": as_jsonl, "csv": as_csv, "tsv": as_tsv, "parquet": as_parquet,
    "arrow": as_arrow, "feather": as_feather, "xml": as_xml,
}  # fmt: skip
PACKERS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstd}
MARKED = b"\xef\xbb\xbf"


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("mark", [b"", MARKED])
@pytest.mark.parametrize("in_archive", [False, True])
def test_all_formats_give_the_same_rows(tmp_path, suffix, packed, mark, in_archive):
    data = WRITERS[suffix](ROWS)
    data = data if suffix in ("parquet", "arrow", "feather") else mark + data
    path = tmp_path / f"rows.{suffix}{packed}"
    path.write_bytes(PACKERS[packed](data))
    if in_archive:
        with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, f"folder/{path.name}")
        path.unlink()
        (path,) = expand([tmp_path])
        assert path == tmp_path / "all.zip" / "folder" / f"rows.{suffix}{packed}"
        assert list(read_rows(tmp_path / "all.zip")) == list(read_rows(path))
    assert [row for _, row in read_rows(path)] == ROWS


def test_several_streams_in_one_compressed_file(tmp_path):
    """As `cat a.gz b.gz` makes them, and as WARC files are."""
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    for suffix, pack in PACKERS.items():
        path = tmp_path / f"rows.jsonl{suffix}"
        path.write_bytes(b"".join(map(pack, lines)))
        assert [row for _, row in read_rows(path)] == ROWS


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet", "arrow", "feather"])
@given(rows=ANY_ROWS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_text_comes_back(tmp_path, suffix, rows):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(WRITERS[suffix](rows))
    assert [row for _, row in read_rows(path)] == rows


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text() | st.text('":,{}[]\\ a'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('":\\ab'), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(
    rows=st.lists(st.dictionaries(st.text(), ANY_VALUE, min_size=1), min_size=1, max_size=4), ascii_only=st.booleans()
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_objects_come_back_as_json_has_them(tmp_path, rows, ascii_only):
    lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
    for name, text in {"a.jsonl": "\n".join(lines), "a.json": f"[{','.join(lines)}]"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert [row for _, row in read_rows(tmp_path / name)] == rows


@given(rows=st.lists(st.fixed_dictionaries({"a": st.text('ab\n", 你=1'), "b": st.text("x\r\n")}), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_csv_cells_are_text_and_lines_are_counted(tmp_path, rows):
    data = as_csv(rows)
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    found = list(read_rows(path))
    assert [row for _, row in found] == rows
    lines = [line for line, _ in found]
    assert lines[0] == 2
    assert lines == sorted(set(lines))


def test_names_and_contents_may_disagree(tmp_path):
    for name, data in {
        "array.jsonl": as_json(ROWS),
        "lines.json": as_jsonl(ROWS),
        "one.jsonl": as_jsonl(ROWS[:1]),
    }.items():
        (tmp_path / name).write_bytes(data)
        rows = [row for _, row in read_rows(tmp_path / name)]
        assert rows == (ROWS[:1] if name == "one.jsonl" else ROWS)


def test_a_bare_list_of_turns_is_one_conversation(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for name, data in {
        "a.jsonl": [json.dumps(turns)] * 2,
        "b.jsonl": [json.dumps(turns)],
        "c.json": [json.dumps([turns])],
    }.items():
        (tmp_path / name).write_text("\n".join(data))
        assert [row for _, row in read_rows(tmp_path / name)] == [{"messages": turns}] * len(data)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not JSON"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),
        (b'{"a": "\\escape"}', "not JSON"),
        (b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ('{"a": "你好"}'.encode("gb18030"), "GB18030"),
        (b'{"a": 1e999}', "not JSON"),
        (b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}", "nested 301 levels deep"),
        (b'{"b": ":", "a": ' + b"[" * 1020 + b"]" * 1020 + b"}", "nested 1021 levels deep"),
        (b'{"a": "1", "a": "2"}', "a key comes twice"),
        (b'{"a": {"b" : 1, "c": {"d": [{"e": 0, "e"\t: 1}]}}}', "a key comes twice"),
        (b"17", "an object"),
        (b"[1]", "an object"),
    ],
)
def test_a_bad_line_comes_as_its_reason_with_its_number(tmp_path, line, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "x"}\n\n' + line + b'\n{"a": "y"}')
    rows = list(read_rows(path))
    assert [number for number, _ in rows] == [1, 3, 4]
    assert isinstance(rows[1][1], str)
    assert reason in rows[1][1]
    assert rows[2][1] == {"a": "y"}


def test_what_looks_like_a_key_inside_a_text_is_none(tmp_path):
    row = {"a": '{"a": 1, "a": 2}', "b": [{"a": 'x":'}]}
    for name, data in {"a.jsonl": as_jsonl([row, row]), "a.json": as_json([row, row])}.items():
        (tmp_path / name).write_bytes(data)
        assert [found for _, found in read_rows(tmp_path / name)] == [row, row]


def test_a_key_that_comes_twice_in_a_list(tmp_path):
    (tmp_path / "a.json").write_text('[{"a": 1}, {"a": 1, "a": 2}, {"b": {"a": 1, "a": 2}}, {"a": "a\\":"}]')
    rows = [row for _, row in read_rows(tmp_path / "a.json")]
    assert [rows[0], rows[3]] == [{"a": 1}, {"a": 'a":'}]
    assert all("a key comes twice" in row for row in rows[1:3])


def test_a_last_line_that_is_cut_off(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": "xy')
    assert "the file may have been cut off here" in list(read_rows(tmp_path / "a.jsonl"))[1][1]


def test_a_line_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.json_rows.MAX_ROW_BYTES", 20)
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": "x"}\n{"a": "' + b"x" * 300 + b'"}\n{"a": "y"}\n')
    rows = list(read_rows(tmp_path / "rows.jsonl"))
    assert [number for number, _ in rows] == [1, 2, 3]
    assert "MiB" in rows[1][1]
    assert rows[2][1] == {"a": "y"}


def test_a_long_line_of_a_table_or_a_text(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.tables.MAX_ROW_BYTES", 20)
    monkeypatch.setattr("fairlead.data.plain_text.MAX_ROW_BYTES", 20)
    (tmp_path / "a.csv").write_text(f"a,b\n1,2\n1,{'x' * 100}\n3,4\n")
    assert [number for number, _ in read_rows(tmp_path / "a.csv")] == [2, 3, 4]
    assert "MiB" in list(read_rows(tmp_path / "a.csv"))[1][1]
    (tmp_path / "a.txt").write_text(f"a<|endoftext|>{'x' * 100}\n<|endoftext|>b")
    assert [row if isinstance(row, str) else row["text"] for _, row in read_rows(tmp_path / "a.txt")] == [
        "a", "a document has more than 0 MiB", "b",
    ]  # fmt: skip


def peak_of(read):
    """What `read` returns, and the most bytes that Python held meanwhile."""
    tracemalloc.start()
    result = read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


@pytest.mark.parametrize("gigabytes", [pytest.param(2.0, marks=pytest.mark.slow), 0.125])
def test_a_line_of_gigabytes(tmp_path, gigabytes):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(as_jsonl([{"a": "x" * 1000}] * 1100) + b"\n")
        file.seek(int(gigabytes * 2**30), io.SEEK_CUR)  # zeros that take no place
        file.write(b"\n" + as_jsonl(ROWS))
    (last, peak) = peak_of(lambda: [row for _, row in read_rows(path)][1100:])
    assert f"the line has {int(1024 * gigabytes)} MiB" in last[0]
    assert last[1:] == ROWS
    assert peak < 3 * MAX_ROW_BYTES


def test_blank_lines_before_the_header_of_a_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n , \na,b\n1,2\n")
    assert list(read_rows(path)) == [(4, {"a": "1", "b": "2"})]
    path.write_text(",\n,\n")
    assert list(read_rows(path)) == []


def test_ragged_csv_rows(tmp_path):
    (tmp_path / "rows.csv").write_text('a,b\n1,2\n3\n"4\n4",5\n6,7,8\n')
    assert list(read_rows(tmp_path / "rows.csv")) == [
        (2, {"a": "1", "b": "2"}),
        (3, "the row has 1 cells, the header 2"),
        (4, {"a": "4\n4", "b": "5"}),
        (6, "the row has 3 cells, the header 2"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message", "code"),
    [
        ("empty.jsonl", b"", "empty", 66),
        ("blank.json", b"\xef\xbb\xbf \n\t ", "empty", 66),
        ("chinese.csv", "a,b\n你好,2\n".encode("gb18030"), "perhaps GB18030", 65),
        ("chinese.json", '[{"a": "你好"}]'.encode("gb18030"), "perhaps GB18030", 65),
        ("cut.json", b'[\n{"a": 1},\n{"a": ', "cut.json:3: this is not JSON", 65),
        ("quotes.csv", b'a,b\n"1"x,2\n', "quotes.csv:2: this is not CSV", 65),
        ("cut.parquet", as_parquet(ROWS)[:-6], "Parquet file is damaged", 65),
        ("cut.jsonl.gz", gzip.compress(as_jsonl(ROWS), mtime=0)[:-9], "gzip file is damaged", 65),
        ("not.jsonl.gz", as_jsonl(ROWS), "gzip file is damaged", 65),
        ("pointer.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS pointer", 65),
        ("bomb.jsonl.gz", gzip.compress(b"x" * 10_000_000, mtime=0), "unpacks to far more", 65),
        ("bomb.jsonl.xz", lzma.compress(b"x" * 10_000_000), "unpacks to far more", 65),
        ("bomb.parquet.zst", zstd(b"x" * 10_000_000), "unpacks to far more", 65),
        ("cut.jsonl.xz", lzma.compress(as_jsonl(ROWS))[:-9], "xz file is damaged", 65),
        ("cut.jsonl.zst", zstd(as_jsonl(ROWS * 9))[:-9], "zstd file is damaged", 65),
        ("not.jsonl.xz", as_jsonl(ROWS), "xz file is damaged", 65),
        ("not.jsonl.zst", as_jsonl(ROWS), "zstd file is damaged", 65),
        ("not.zip", as_jsonl(ROWS), "zip file is damaged", 65),
        ("cut.arrow", as_arrow(ROWS)[:100], "Arrow file is damaged", 65),
        ("cut.feather", as_feather(ROWS)[:-9], "Arrow file is damaged", 65),
        ("cut.xml", as_xml(ROWS)[:-9], "cut.xml:4: this is not XML", 65),
        ("not.warc", as_jsonl(ROWS), "WARC file is damaged", 65),
        ("taiwan.csv", "a,b\n臺灣是一個好地方，我們都在這裡。,2\n".encode("big5"), "perhaps BIG5", 65),
        ("chinese.txt", "我们都在这里。\n".encode("gb18030"), "perhaps GB18030", 65),
        ("chinese.jsonl", '{"a": "你好"}\n'.encode("gb18030") * 2, "perhaps GB18030", 65),
        ("western.csv", b"a,b\n\xff,2\n", "perhaps Latin-1", 65),
        ("wide.jsonl", '{"a": "x"}\n'.encode("utf-16-le"), "perhaps UTF-16-LE", 65),
        ("wide.csv", "a,b\n1,2\n".encode("utf-16-be"), "perhaps UTF-16-BE", 65),
        ("rows.docx", b"PK", "not known", 2),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, data, message, code):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        list(read_rows(path))
    assert caught.value.exit_code == code
    assert name in caught.value.where


def test_a_missing_file_and_a_folder_without_data(tmp_path):
    with pytest.raises(UserError, match="no such file") as caught:
        list(read_rows(tmp_path / "none.jsonl"))
    assert caught.value.exit_code == 66
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="no data files") as caught:
        expand([tmp_path])
    assert caught.value.exit_code == 66


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.streams.MAX_FILE_BYTES", 10)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(ROWS))
    with pytest.raises(UserError, match="too large"):
        list(read_rows(tmp_path / "rows.jsonl"))


def test_folders_stand_for_their_files_in_order(tmp_path):
    for name in ("b.jsonl", "a/z.csv", "a/c.parquet.gz", "readme.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = expand([tmp_path, tmp_path / "b.jsonl"])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["a/c.parquet.gz", "a/z.csv", "b.jsonl", "b.jsonl"]


def test_the_digest_is_of_the_bytes_on_disk(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n')
    expected = "e8c628edc9968ef0c668f54e0ba2636b35503357eb1aca0ddc828aeace432f67"  # by sha256sum
    assert open_rows(tmp_path / "a.jsonl").digest() == expected


# --- archives


def archive_with(path, *names, mode=0o644, locked=False):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, as_jsonl(ROWS))
    if locked:
        path.write_bytes(path.read_bytes().replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"))
    return path


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("../out.jsonl", {}, "stay inside"),
        ("a/../../out.jsonl", {}, "stay inside"),
        ("/etc/out.jsonl", {}, "stay inside"),
        ("link.jsonl", {"mode": stat.S_IFLNK | 0o777}, "files only"),
        ("locked.jsonl", {"locked": True}, "without a password"),
    ],
)
def test_archives_that_are_not_read(tmp_path, name, options, reason):
    path = archive_with(tmp_path / "a.zip", "good.jsonl", name, **options)
    for read in (lambda: expand([path]), lambda: list(read_rows(path)), lambda: list(read_rows(path / "good.jsonl"))):
        with pytest.raises(UserError, match=reason) as caught:
            read()
        assert caught.value.exit_code == 65


def test_members_of_an_archive(tmp_path):
    path = archive_with(tmp_path / "a.zip", "b.jsonl", "a/c.jsonl", "notes.txt", "inner.zip")
    assert expand([path]) == [path / "a/c.jsonl", path / "b.jsonl"]
    assert [row for _, row in read_rows(path / "b.jsonl")] == ROWS
    assert open_rows(path / "b.jsonl").digest() == hashlib.sha256(as_jsonl(ROWS)).hexdigest()
    with pytest.raises(UserError, match="not one data file") as caught:
        read_rows(path)
    assert "a.zip/a/c.jsonl" in caught.value.fix
    with pytest.raises(UserError, match=r"no member none\.jsonl"):
        read_rows(path / "none.jsonl")
    with pytest.raises(UserError, match="no data files"):
        expand([archive_with(tmp_path / "b.zip", "readme.md")])
    with pytest.raises(UserError, match="no such file"):
        expand([tmp_path / "c.zip"])


def test_notes_of_datasets_are_no_rows(tmp_path):
    """A folder of `save_to_disk`, and a cloned dataset of a hub."""
    (tmp_path / "train").mkdir()
    notes = ("dataset_dict.json", "dataset_infos.json", "train/dataset_info.json", "train/state.json")
    for name in (*notes, "state.json", "train/rows.jsonl"):
        (tmp_path / name).write_text("{}")
    assert expand([tmp_path]) == [tmp_path / "state.json", tmp_path / "train" / "rows.jsonl"]
    assert expand([tmp_path / "dataset_infos.json"]) == [tmp_path / "dataset_infos.json"]


def test_a_bomb_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jsonl", b" " * 10_000_000)
    with pytest.raises(UserError, match="unpacks to far more"):
        list(read_rows(tmp_path / "a.zip"))


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "GBK", "big5"])
@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "xml"])
def test_other_encodings(tmp_path, encoding, suffix):
    rows = [{"a": "你好，這是中文。\n" if encoding == "big5" else "你好，这是中文。\n", "b": "x"}] * 3
    text = WRITERS[suffix](rows).decode()
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(text.encode(encoding))
    assert [row for _, row in read_rows(path, encoding=encoding)] == rows
    if encoding in ("utf-16", "utf-32"):
        found = open_rows(path)
        assert [row for _, row in found] == rows
        assert found.notes[0] == f"read as {encoding.upper()}, as its byte order mark says"
    else:
        with pytest.raises(UserError, match="not UTF-8"):
            list(read_rows(path))
    path.write_bytes(MARKED + text.encode())
    assert [row for _, row in read_rows(path, encoding=encoding)] == rows
    path.write_bytes(text.encode())
    assert [row for _, row in read_rows(path, encoding=encoding)] == rows  # UTF-8 is seen, whatever was said


def test_a_word_of_another_encoding_that_looks_like_utf8(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"a": "联通"}'.encode("gb18030"))
    assert list(read_rows(tmp_path / "a.jsonl", encoding="gb18030")) == [(1, {"a": "联通"})]


def test_bytes_that_an_encoding_does_not_have(tmp_path):
    good, bad = '{"a": "你好"}\n'.encode("gb18030"), b'{"a": "\xff"}\n'
    (tmp_path / "a.jsonl").write_bytes(good + bad + good)
    rows = [row for _, row in read_rows(tmp_path / "a.jsonl", encoding="gb18030")]
    assert rows[::2] == [{"a": "你好"}] * 2
    assert rows[1].startswith("not GB18030")
    (tmp_path / "a.csv").write_bytes("a,b\n你,好\n".encode("gb18030") + b"\xff,1\n3,4\n")
    rows = [row for _, row in read_rows(tmp_path / "a.csv", encoding="gb18030")]
    assert rows == [{"a": "你", "b": "好"}, "not GB18030: some bytes of the row stand for no character",
                    {"a": "3", "b": "4"}]  # fmt: skip
    (tmp_path / "b.csv").write_bytes("a,b\n你,好\n5,6\n".encode() + b"\xff,1\n3,4\n")
    assert [type(row) for _, row in read_rows(tmp_path / "b.csv")] == [dict, dict, str, dict]


@pytest.mark.parametrize("encoding", ["klingon", "zlib", "unicode_escape", "punycode"])
def test_encodings_that_are_none(tmp_path, encoding):
    (tmp_path / "a.jsonl").write_bytes(as_jsonl(ROWS))
    with pytest.raises(UserError, match="encoding is not known") as caught:
        read_rows(tmp_path / "a.jsonl", encoding=encoding)
    assert caught.value.exit_code == 2


def test_what_there_is_to_tell(tmp_path):
    for name, data, notes in [
        ("a.jsonl", as_jsonl(ROWS), ()),
        ("b.jsonl", as_json(ROWS), ("one JSON list, though its name says JSON lines",)),
        ("c.json", as_jsonl(ROWS), ("JSON lines, though its name says JSON",)),
        ("d.jsonl", as_jsonl(ROWS).decode().encode("gb18030"), ("read as GB18030",)),
    ]:
        (tmp_path / name).write_bytes(data)
        assert open_rows(tmp_path / name, encoding="gb18030").notes == notes


# --- tables, XML and text


def test_columns_of_one_name_are_kept_apart(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,a,\n1,2,3,4\n")
    assert list(read_rows(tmp_path / "a.csv")) == [(2, {"a": "1", "b": "2", "a (2)": "3", "": "4"})]
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, tmp_path / "a.feather", compression="uncompressed")
    for name in ("a.parquet", "a.feather"):
        with pytest.raises(UserError, match="a column comes twice"):
            list(read_rows(tmp_path / name))


def test_children_of_xml_rows(tmp_path):
    (tmp_path / "a.xml").write_text(
        "<posts>\n<post id='1'><title>T</title><p>a<b>c</b></p><p>d</p></post>\n<post id='2'/></posts>"
    )
    assert list(read_rows(tmp_path / "a.xml")) == [(2, {"id": "1", "title": "T", "p": ["ac", "d"]}), (3, {"id": "2"})]


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))


@pytest.mark.parametrize(
    "declaration",
    [f'<!DOCTYPE r [<!ENTITY l0 "ha">{LAUGHS}]>', '<!DOCTYPE r SYSTEM "file:///etc/passwd">', "<!DOCTYPE html>"],
)
def test_entities_are_refused(tmp_path, declaration):
    (tmp_path / "a.xml").write_text(f"<?xml version='1.0'?>\n{declaration}<r><row a='&l11;'/></r>")
    with pytest.raises(UserError, match="document type or an entity") as caught:
        list(read_rows(tmp_path / "a.xml"))
    assert caught.value.where == f"{tmp_path / 'a.xml'}:2"


def test_rows_before_a_fault_of_xml_are_given(tmp_path):
    (tmp_path / "a.xml").write_text("<r>\n<row a='1'/>\n<row a=1/>\n</r>")
    rows = read_rows(tmp_path / "a.xml")
    with pytest.raises(UserError, match=r"a\.xml:3: this is not XML"):
        list(rows)


def test_a_tag_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.xml_rows.MAX_ROW_BYTES", 100_000)
    (tmp_path / "a.xml").write_text(f"<r><row a='{'x' * 400_000}'/></r>")
    with pytest.raises(UserError, match="a tag or a row has more than"):
        list(read_rows(tmp_path / "a.xml"))


def texts_of(path):
    return [(line, row["text"]) for line, row in read_rows(path)]


def test_the_three_kinds_of_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\nOne\n\ntwo.\n<|endoftext|>\nThree <|endoftext|>Four<|endoftext|><|endoftext|>\n\n five\n")
    assert texts_of(path) == [(2, "One\n\ntwo."), (6, "Three"), (6, "Four"), (8, "five")]
    first, second = "a" * 200, "好" * 300
    path.write_text(f"{first}\n\n{second}\r\n")
    assert texts_of(path) == [(1, first), (3, second)]
    path.write_text(f"{first}\n\n b\n\n{second}\n")
    assert texts_of(path) == [(1, f"{first}\n\n b\n\n{second}")]
    assert open_rows(path).notes == ("one running text, in pieces that end at blank lines",)


@given(blocks=st.lists(st.text("ab \t好", min_size=1).filter(str.strip), min_size=1), scale=st.integers(1, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_pieces_of_a_running_text_are_all_of_it(tmp_path, blocks, scale):
    path, text = tmp_path / "a.txt", "\n\n".join([*blocks * scale, "short"])
    path.write_text(text, newline="")
    pieces = texts_of(path)
    assert "\n\n".join(piece for _, piece in pieces) == text
    assert all(text.split("\n")[line - 1] == piece.split("\n")[0] for line, piece in pieces)


def test_a_text_without_blank_lines_is_cut_at_lines(tmp_path):
    line = "A line of ordinary length.\n"
    (tmp_path / "a.txt").write_text(line * 10_000)
    pieces = [text for _, text in texts_of(tmp_path / "a.txt")]
    assert "\n".join(pieces) + "\n" == line * 10_000
    assert max(map(len, pieces)) < 70_000


# --- memory and time


def big_file(path, suffix):
    """About 16 MB of 4000 rows; tables in batches of 500."""
    words = random.Random(0)
    rows = [{"a": f"{i}", "b": words.randbytes(2000).hex()} for i in range(4000)]
    table = pa.Table.from_pylist(rows)
    match suffix:
        case "parquet":
            pq.write_table(table, path, row_group_size=500)
        case "feather":
            feather.write_feather(table, str(path), chunksize=500)
        case "arrow":
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=500)
        case "txt":
            path.write_text("\n".join(row["b"] for row in rows))
        case _:
            path.write_bytes(WRITERS[suffix](rows))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "xml", "txt", "parquet", "arrow", "feather"])
@pytest.mark.parametrize("packed", ["", ".zst"])
def test_files_are_read_in_bounded_memory(tmp_path, suffix, packed):
    path = tmp_path / f"rows.{suffix}{packed}"
    big_file(tmp_path / "rows", suffix)
    path.write_bytes(PACKERS[packed]((tmp_path / "rows").read_bytes()))
    assert path.stat().st_size > 7_000_000
    before = pa.total_allocated_bytes()
    (count, arrow_peak), peak = peak_of(
        lambda: functools.reduce(
            lambda so_far, _: (so_far[0] + 1, max(so_far[1], pa.total_allocated_bytes() - before)),
            read_rows(path),
            (0, 0),
        )
    )
    assert count == 4000
    assert peak < 8 << 20
    assert arrow_peak < 8 << 20


def test_a_table_that_says_one_thing_a_million_times(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.tables.MAX_ROW_BYTES", 1 << 20)
    pq.write_table(pa.table({"a": ["x" * 10_000] * 2_000}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 5_000
    with pytest.raises(UserError, match="unpacks to far more"):
        list(read_rows(tmp_path / "a.parquet"))


DAMAGED = [f"rows.{suffix}{packed}" for suffix in (*WRITERS, "txt", "warc") for packed in ("", ".gz")]


@pytest.mark.parametrize("name", [*DAMAGED, "rows.jsonl.xz", "rows.jsonl.zst", "rows.zip"])
@given(data=st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes_give_rows_reasons_or_a_user_error(tmp_path, name, data):
    path = tmp_path / name
    for content in (data, gzip.compress(data, mtime=0) if name.endswith(".gz") else data):
        path.write_bytes(content)
        try:
            rows = list(read_rows(path))
        except UserError as error:
            assert error.exit_code in (65, 66)  # noqa: PT017
            continue
        assert all(isinstance(row, dict | str) for _, row in rows)


@pytest.mark.parametrize("suffix", WRITERS)
@example(at=0.6875, put=b"", cut=4)  # an offset of an Arrow file, negative
@given(at=st.floats(0, 1, exclude_max=True), put=st.binary(max_size=4), cut=st.integers(0, 6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_files_that_were_hit_somewhere(tmp_path, suffix, at, put, cut):
    data = WRITERS[suffix](ROWS * 3)
    place = int(at * len(data))
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(data[:place] + put + data[place + cut :])
    try:
        list(read_rows(path))
    except UserError as error:
        assert error.exit_code in (65, 66)  # noqa: PT017
