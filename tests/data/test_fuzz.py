"""What fuzzing of the readers found, and a short run of it over each (experiments/fuzz_readers.py is the long one)."""

import io
import json
import os
import time
import zipfile
from dataclasses import asdict
from pathlib import Path
from random import Random

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.fuzz_readers import Campaign, keep
from experiments.fuzz_seeds import LAYOUT_ROWS
from experiments.fuzz_targets import ATOMS, TARGETS, mutate_rows, mutated
from fairlead.data.benchmark_items import read_benchmarks
from fairlead.data.html_text import html_text
from fairlead.data.layouts import LAYOUTS, detect
from fairlead.data.load import read_records
from fairlead.data.sources import read_rows
from fairlead.errors import UserError


@pytest.mark.parametrize("reader", TARGETS)
def test_nothing_is_found_in_a_short_run(reader, tmp_path):
    target = TARGETS[reader]
    for number, data in enumerate(mutated(target, target.seeds, Random(3), count=150)):
        began = time.process_time()
        try:
            target.read(data, tmp_path)
        except Exception as error:
            raise AssertionError(f"input {number}: {data!r}") from error
        assert time.process_time() - began < 5, f"input {number}: {data!r}"


def test_a_finding_of_a_short_run_is_seen(monkeypatch, tmp_path):
    monkeypatch.setattr("fairlead.data.json_rows._reason", lambda line, error: error.no_such_attribute)
    with pytest.raises(AssertionError, match=r"input \d+: b"):
        test_nothing_is_found_in_a_short_run("jsonl", tmp_path)


def test_seeds_hold_every_layout_in_order():
    for layout, rows in zip(LAYOUTS, LAYOUT_ROWS, strict=True):
        found = [detect(row) for row in rows]
        assert found == [layout] * len(rows)


@pytest.mark.parametrize("rows", LAYOUT_ROWS, ids=[layout.name for layout in LAYOUTS])
def test_rows_of_other_layouts_and_broken_fields_are_rejected_or_read(rows, tmp_path):
    """The first rows decide on the layout, by which all others are read."""
    others = [row for other in LAYOUT_ROWS for row in other]
    broken = [row | {key: value} for row in rows for key in row for value in ATOMS]
    missing = [{key: row[key] for key in row if key != gone} for row in rows for gone in row]
    name = detect(rows[0]).name
    given = rows * 1000 + others + broken + missing
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, given)))
    stream = read_records(path)
    num_outcomes = sum(len(orjson.dumps(asdict(outcome))) > 0 for outcome in stream)
    assert stream.layout.name == name
    if stream.layout.gather is None and name not in ("self-instruct", "chapters"):  # which give several records a row
        assert num_outcomes + sum(stream.left_out.values()) == len(given)


@pytest.mark.parametrize("reader", ["jsonl", "rows"])
def test_changes_are_made_and_depend_on_the_seed_alone(reader):
    target = TARGETS[reader]
    first, again, other = (list(mutated(target, target.seeds, Random(seed), count=60)) for seed in (1, 1, 2))
    assert first == again != other
    num_changed = len(set(first) - set(target.seeds))
    assert num_changed > 40


def test_rows_stay_json_when_values_change():
    target = TARGETS["rows"]
    rng = Random(5)
    changed = [mutate_rows(rng.choice(target.seeds), rng, target.seeds, target.words) for _ in range(50)]
    for data in changed:
        for line in data.splitlines():
            json.loads(line)
    assert len(set(changed) - set(target.seeds)) > 25


LOG = """#83\tINITED cov: 226 ft: 455 corp: 9/12930b exec/s: 0 rss: 120Mb
#512\tNEW    cov: 241 ft: 470 corp: 10/13kb lim: 65536 exec/s: 99 rss: 121Mb L: 5/9 MS: 1 Custom-
"""
END = "stat::number_of_executed_units: 969\nstat::slowest_unit_time_sec:    2\nstat::peak_rss_mb:              124\n"


def test_figures_of_a_campaign_whose_first_child_was_ended_by_an_input():
    campaign = Campaign("csv", seconds=60.0)
    campaign.add(LOG)
    campaign.add(LOG.replace("226", "230").replace("241", "238") + END)
    assert str(campaign) == "| csv | 1.0 | 1,481 | 25 | 226 -> 241 | 2 | 124 | 0 |"


def test_of_each_kind_of_finding_the_shortest_input_is_kept(tmp_path):
    for data, divisor in ((b"long", 0), (b"s", 0), (b"longer", 0), (b"other", "")):
        try:
            1 / divisor
        except (ZeroDivisionError, TypeError) as error:
            keep(tmp_path, data, error)
    kept = {path.name.split(".")[0]: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".txt"}
    assert kept == {"ZeroDivisionError": b"s", "TypeError": b"other"}
    assert all("Traceback" in path.read_text() for path in tmp_path.glob("*.txt"))


# --- found


def response(headers: bytes, body: bytes = b"<p>x") -> bytes:
    block = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n\r\n" + body
    return b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n" % len(block) + block


def archive(name: str = "a.jsonl", data: bytes = b'{"text": "x"}\n') -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def patched(data: bytes, mark: bytes, offset: int, new: bytes) -> bytes:
    at = data.rindex(mark) + offset
    return data[:at] + new + data[at + len(new) :]


def arrow(column: pa.Array) -> bytes:
    batch = pa.record_batch({"text": pa.array(["x"] * len(column)), "other": column})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def read(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return [row for _, row in read_rows(tmp_path / name)]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("&#" + "9" * 4301 + ";b", "\ufffdb"),  # more digits than int() takes
        ("&#" + "0" * 4301 + "65;b", "Ab"),
        ("&#1114112;&#0;&#x41;&#65;&#00065;&#;", "\ufffd\ufffdAAA&#;"),
        ("<" + "a" * 60_000, "<" + "a" * 60_000),  # took time by the square of the length
    ],
    ids=["digits", "zeros", "numbers", "name"],
)
def test_html(html, text):
    began = time.process_time()
    assert html_text(html) == text
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        (b"Content-Type: text/html; charset=a\0b", b"<p>\xc3\xa9", "é"),
        (b"Content-Type: text/html; a*" + b"9" * 4301 + b"=x", b"<p>x", "x"),
        (b'Content-Type: text/html; a="' + b";" * 60_000, b"<p>x", "x"),
        (b"Content-Type: text/html; charset=unicode-escape", b"<p>\\ud800", "\\ud800"),
        (b"Content-Type: text/html; charset=utf-7", b"<p>+2AA-", "+2AA-"),
        (b'Content-Type: text/html; Charset = "ISO-8859-1"', b"<p>\xe9", "é"),
    ],
    ids=["nul", "continuation", "semicolons", "unicode-escape", "utf-7", "quoted"],
)
def test_charsets_of_pages(tmp_path, headers, body, text):
    began = time.process_time()
    (row,) = read(tmp_path, "a.warc", response(headers, body))
    assert row["text"] == text
    assert orjson.dumps(row)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "name", ["./a.jsonl", "b//a.jsonl", "x/" * 3000 + "y.zip/a.jsonl"], ids=["dot", "slashes", "long"]
)
def test_odd_names_in_archives(tmp_path, name):
    assert read(tmp_path, "a.zip", archive(name)) == [{"text": "x"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (patched(archive(), b"PK\1\2", 6, b"\x63"), "zip file version 9.9"),
        (archive("é.jsonl").replace("é".encode(), b"\xff\xff"), "can't decode byte 0xff"),
    ],
    ids=["version", "name"],
)
def test_damaged_archives(tmp_path, data, message):
    with pytest.raises(UserError, match=f"the zip file is damaged .*{message}"):
        read(tmp_path, "a.zip", data)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()),
        pa.array([2**62, 0]).cast(pa.timestamp("us")),
        pa.array([1, 0]).cast(pa.timestamp("ns")),
        pa.array([2**62, 0]).cast(pa.duration("s")),
        pa.Array.from_buffers(pa.decimal128(38, -(2**31)), 2, pa.array([1, None], pa.decimal128(38, 0)).buffers()),
    ],
    ids=["date", "time", "nanoseconds", "duration", "decimal"],
)
def test_values_that_python_has_no_type_for_are_bad_rows(tmp_path, column):
    bad, good = read(tmp_path, "a.arrow", arrow(column))
    assert isinstance(bad, str)
    assert bad.startswith("a value cannot be read: ")
    assert good["text"] == "x"
    outcomes = list(read_records(tmp_path / "a.arrow"))
    assert [type(outcome).__name__ for outcome in outcomes] == ["Rejection", "Document"]


def test_two_fields_of_one_name_in_a_value(tmp_path):
    pair = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    (row,) = read(tmp_path, "a.arrow", arrow(pair))
    assert "duplicate field names" in row


def test_rows_of_nothing_are_counted(tmp_path):
    batch = pa.record_batch([pa.nulls(1 << 21)], names=["a"])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(UserError, match="unpacks to far more"):
        read(tmp_path, "a.arrow", sink.getvalue())


def test_a_batch_that_claims_more_bytes_than_there_is_memory(tmp_path):
    batch = pa.record_batch({"text": ["x"]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue()
    assert data[160:168] == (16).to_bytes(8, "little")  # the length of its body
    with pytest.raises(UserError, match=r"the Arrow file is damaged \(MemoryError\)"):
        read(tmp_path, "a.arrow", data[:160] + (1 << 60).to_bytes(8, "little") + data[168:])


def test_a_bomb_of_parquet_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.tables.MAX_ROW_BYTES", 1 << 20)
    monkeypatch.setattr("fairlead.data.tables._batch_rows", None)
    table = pa.table({"text": ["x" * (4 << 20)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False, write_statistics=False)
    with pytest.raises(UserError, match="unpacks to far more"):
        next(read_rows(tmp_path / "a.parquet"))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="addresses are counted by Linux")
def test_damaged_zst_files_leave_no_memory_behind(tmp_path):
    def num_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    def read_one() -> None:
        with pytest.raises(UserError, match="the zstd file is damaged"):
            read(tmp_path, "a.jsonl.zst", b"no zstd")

    read_one()
    before = num_bytes()
    for _ in range(400):
        read_one()
    assert num_bytes() - before < 50 << 20  # 400 buffers of 256 KiB are 100 MiB


@pytest.mark.parametrize("shift", range(3))
def test_unreadable_bytes_where_xml_is_cut_into_pieces(tmp_path, shift):
    head = b'<?xml version="1.0"?><rows><row text="'
    data = head + b"x" * ((64 << 10) - len(head) - 3 + shift) + b"\xff" + b'"/></rows>'
    (tmp_path / "a.xml").write_bytes(data)
    ((_, row),) = read_rows(tmp_path / "a.xml", encoding="gb18030")
    assert row["text"].endswith("x\ufffd")


def test_a_row_without_turns_among_transcripts(tmp_path):
    rows = [{"instruction": f"{start}q\nAssistant:", "output": "a"} for start in ("Human:", "Human:", "", "x\nHuman:")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reasons = [getattr(outcome, "reason", "") for outcome in read_records(tmp_path / "a.jsonl")]
    assert reasons[:2] == ["", ""]
    assert all(reason.startswith('the instruction does not begin with "Human:"') for reason in reasons[2:])


@pytest.mark.parametrize(("encoding", "fix"), [("utf-16", "encoding=utf-16-le"), ("utf-32", "convert it")])
def test_a_file_without_the_mark_that_its_encoding_needs(tmp_path, encoding, fix):
    (tmp_path / "a.txt").write_bytes("text".encode(f"{encoding}-le"))
    with pytest.raises(UserError, match="no byte order mark") as caught:
        list(read_rows(tmp_path / "a.txt", encoding=encoding))
    assert fix in caught.value.fix


def test_names_of_columns_with_unreadable_bytes(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"q\xed\tx\n" + b"y\t1\n" * 3)
    with pytest.raises(UserError, match=r"a.tsv:1: the names of the columns are not UTF-8"):
        read_benchmarks([tmp_path / "a.tsv"])


def test_a_row_without_a_score_among_scored_ones(tmp_path):
    rows = [{"prompt": "q", "response": "a", "score": 1}] * 2 + [{"prompt": "q", "response": "a"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    *_, last = read_records(tmp_path / "a.jsonl")
    assert last.reason.startswith("the field `helpfulness` is missing")


def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"\xe9.jsonl")
    try:
        path.write_text('{"text": 1}')
    except OSError:
        pytest.skip("the file system has no such names")
    with pytest.raises(UserError, match="the name of the file is not UTF-8"):
        read_records(path)


def test_a_table_by_name_with_numbers_inside(tmp_path):
    (tmp_path / "a.csv.jsonl").write_text('{"n": 1}\n{"n": "x"}\n')
    assert [item.text for item in read_benchmarks([tmp_path / "a.csv.jsonl"])] == ["n", "x"]


def test_elements_in_each_other_without_end(tmp_path):
    rows = b"<rows>" + b"<a>" * 199 + b"x" + b"</a>" * 199 + b"<b/></rows>"
    assert read(tmp_path, "a.xml", rows) == [{"a": "x"}, {}]
    with pytest.raises(UserError, match="nested more than 200 levels deep"):  # one open tag in memory each
        read(tmp_path, "a.xml", b"<a>" * 100_000)


def test_a_row_of_xml_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("fairlead.data.xml_rows.MAX_ROW_BYTES", 200_000)
    rows = b"<rows>" + (b"<row>" + b"<text>x</text>" * 9000 + b"</row>") * 3 + b"</rows>"
    assert [len(row["text"]) for row in read(tmp_path, "a.xml", rows)] == [9000] * 3
    with pytest.raises(UserError, match="a tag or a row has more than"):
        read(tmp_path, "a.xml", b"<rows><row>" + b"<text>x</text>" * 30_000)


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception() }}", "it fails: .*missing 1 required positional argument"),
        ("{{ strftime_now(5) }}", "it fails: .*must be str"),
        ("{{ messages[0].pop('x') }}", "it fails: 'x'"),
        ("\ud800", "it cannot be parsed: .*surrogates not allowed"),
        ("\ue0009\ue001" + CHAT, "private characters"),
        ("{{ 1" + "+1" * 32_000 + " }}", "writes message 1"),  # ended the process: a stack that is too small
        ("a" * 70_000, "it has 70000 characters, more than 65536"),
    ],
    ids=["arguments", "types", "methods", "surrogate", "marker", "operators", "long"],
)
def test_templates(template, reason):
    from fairlead.data.chat_template import ChatTemplate
    from tiny import tiny_tokenizer

    with pytest.raises(UserError, match=reason):
        ChatTemplate(tiny_tokenizer(template))
