import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.data.sources import expand, read_rows, read_rows_and_digest
from fairlead.errors import UserError

ROWS = [{"instruction": "问\n1", "output": '答, "1"'}, {"instruction": "b", "output": "=cmd|' /C calc'!A0"}]
ANY_ROWS = st.lists(
    st.fixed_dictionaries({"a": st.text(), "b": st.text()}).filter(lambda r: any(r.values())), min_size=1, max_size=5
)


def as_json(rows):
    return json.dumps(rows, ensure_ascii=False, indent=1).encode()


def as_jsonl(rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_csv(rows):
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


WRITERS = {"json": as_json, "jsonl": as_jsonl, "ndjson": as_jsonl, "csv": as_csv, "parquet": as_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_all_formats_give_the_same_rows(tmp_path, suffix, zipped, mark):
    data = WRITERS[suffix](ROWS)
    data = data if suffix == "parquet" else mark + data
    path = tmp_path / f"rows.{suffix}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert [row for _, row in read_rows(path)] == ROWS


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
@given(rows=ANY_ROWS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_text_comes_back(tmp_path, suffix, rows):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(WRITERS[suffix](rows))
    assert [row for _, row in read_rows(path)] == rows


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


def test_a_line_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.sources.MAX_ROW_BYTES", 20)
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": "x"}\n{"a": "' + b"x" * 30 + b'"}')
    assert "MiB" in list(read_rows(tmp_path / "rows.jsonl"))[1][1]


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
        ("utf16.jsonl", '{"a": 1}'.encode("utf-16"), "not UTF-8", 65),
        ("chinese.csv", "a,b\n你好,2\n".encode("gb18030"), "perhaps GB18030", 65),
        ("chinese.json", '[{"a": "你好"}]'.encode("gb18030"), "perhaps GB18030", 65),
        ("cut.json", b'[\n{"a": 1},\n{"a": ', "cut.json:3: this is not JSON", 65),
        ("quotes.csv", b'a,b\n"1"x,2\n', "quotes.csv:2: this is not CSV", 65),
        ("cut.parquet", as_parquet(ROWS)[:-6], "Parquet file is damaged", 65),
        ("cut.jsonl.gz", gzip.compress(as_jsonl(ROWS), mtime=0)[:-9], "gzip file is damaged", 65),
        ("not.jsonl.gz", as_jsonl(ROWS), "gzip file is damaged", 65),
        ("pointer.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git-LFS pointer", 65),
        ("bomb.jsonl.gz", gzip.compress(b"x" * 10_000_000, mtime=0), "unpacks to far more", 65),
        ("rows.xml", b"<a/>", "not known", 2),
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
    monkeypatch.setattr("fairlead.data.sources.MAX_FILE_BYTES", 10)
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
    assert read_rows_and_digest(tmp_path / "a.jsonl")[1] == expected
