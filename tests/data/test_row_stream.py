"""Rows that are streamed from columns: the same rows in the same step, however many ranks, and from any place on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.parquet_rows import BLOCK_ROWS, parquet_pieces
from fairlead.data.row_stream import RowStream
from fairlead.data.rows import from_row, to_row
from fairlead.data.sampler import permutation
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt

WORKER = Path(__file__).with_name("stream_worker.py")


def write_parquet(path, numbers, block):
    pq.write_table(pa.table({"number": list(numbers)}), path, row_group_size=block)


def write_arrow(path, numbers, block, *, stream=False):
    table = pa.table({"number": pa.array(list(numbers), pa.int64())})
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=block)


def numbers(steps):
    return [[row["number"] for row in rows] for rows in steps]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """83 rows in three files: blocks of 5, 7 and 11 rows."""
    folder = tmp_path_factory.mktemp("rows")
    write_parquet(folder / "a.parquet", range(30), 5)
    write_arrow(folder / "b.arrow", range(30, 61), 7)
    write_arrow(folder / "c.arrow", range(61, 83), 11, stream=True)
    return folder


def by_the_definition(sizes, *, seed, window_rows, count):
    """A slow loop from the words of the module: row numbers of the endless sequence."""
    blocks, first = [], 0
    for size in sizes:
        blocks.append(list(range(first, first + size)))
        first += size
    drawn, epoch = [], 0
    while len(drawn) < count:
        window, number = [], 0
        for place in permutation(len(blocks), (seed, epoch)):
            window += blocks[place]
            if len(window) >= window_rows:
                number += 1
                drawn += [window[i] for i in permutation(len(window), (seed, epoch, number))]
                window = []
        if window:
            drawn += [window[i] for i in permutation(len(window), (seed, epoch, number + 1))]
        epoch += 1
    return drawn[:count]


@given(
    rows_per_step=st.integers(1, 100), window_rows=st.integers(1, 100), world_size=st.integers(1, 5),
    first=st.integers(0, 20), seed=st.integers(0, 3),
)  # fmt: skip
def test_any_number_of_ranks_takes_the_rows_of_the_definition(
    folder, rows_per_step, window_rows, world_size, first, seed
):
    stream = RowStream([folder], seed=seed, window_rows=window_rows)
    sizes = [5] * 6 + [7, 7, 7, 7, 3] + [11, 11]
    assert [block.num_rows for block in stream.blocks] == sizes
    flat = by_the_definition(sizes, seed=seed, window_rows=window_rows, count=(first + 3) * rows_per_step)
    wanted = [flat[step * rows_per_step : (step + 1) * rows_per_step] for step in range(first, first + 3)]
    ranks = [
        numbers(islice(stream.steps(rows_per_step, first=first, rank=rank, world_size=world_size), 3))
        for rank in range(world_size)
    ]
    for step, rows in enumerate(wanted):
        for rank in range(world_size):
            assert ranks[rank][step] == rows[rank::world_size]


def test_every_epoch_has_every_row_once(folder):
    stream = RowStream([folder], seed=1, window_rows=20)
    epochs = numbers(islice(stream.steps(83), 3))
    assert all(sorted(epoch) == list(range(83)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(abs(a - b) != 1 for a, b in zip(epochs[0][::9], epochs[0][1::9], strict=False))  # not in file order


def test_a_cursor_of_other_rows_is_refused(folder, tmp_path):
    stream = RowStream([folder], seed=1)
    cursor = json.loads(json.dumps(stream.cursor(6, 10)))
    assert stream.step_at(cursor, 10) == 6
    assert stream.step_at(cursor, 20) == 3
    write_parquet(tmp_path / "a.parquet", range(1, 31), 5)
    others = [RowStream([folder], seed=2), RowStream([folder], seed=1, window_rows=9), RowStream([tmp_path], seed=1)]
    for other in others:
        with pytest.raises(UserError, match="not those that the saved place belongs to"):
            other.step_at(cursor, 10)
    with pytest.raises(UserError, match="within a step"):
        stream.step_at(cursor, 7)


@pytest.mark.parametrize(
    ("name", "content", "words", "code"),
    [
        ("x.parquet", b"PAR1 and no more", "damaged", ExitCode.BAD_DATA),
        ("x.arrow", b"ARROW1 and no more", "damaged", ExitCode.BAD_DATA),
        ("x.arrow", b"no arrow at all", "damaged", ExitCode.BAD_DATA),
        ("x.jsonl", b"{}", "only columns can be streamed", ExitCode.USAGE),
        ("y.parquet", None, "there is no such file", ExitCode.MISSING_INPUT),
    ],
)
def test_files_that_cannot_be_streamed(tmp_path, name, content, words, code):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words) as refusal:
        RowStream([tmp_path / name], seed=0)
    assert refusal.value.exit_code == code
    assert refusal.value.where == str(tmp_path / name)


@pytest.mark.parametrize(
    ("columns", "others"),
    [
        ([[1, 2]], [["x", "y"]]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([pa.array([1, 10**15], pa.timestamp("s"))], [pa.array([1, 2], pa.timestamp("s"))]),
    ],
    ids=["two types", "a name twice", "the year 31690708"],
)
def test_columns_that_cannot_be_streamed(tmp_path, columns, others):
    for name, arrays in (("a", columns), ("b", others)):
        pq.write_table(pa.table(arrays, names=["c"] * len(arrays)), tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match="cannot be streamed") as refusal:
        next(RowStream([tmp_path], seed=0).steps(4))
    assert refusal.value.exit_code == ExitCode.BAD_DATA
    assert refusal.value.where is not None
    assert "a.parquet" in refusal.value.where


def test_files_without_rows(tmp_path):
    write_parquet(tmp_path / "a.parquet", [], 5)
    with pytest.raises(UserError, match="hold no rows"):
        RowStream([tmp_path], seed=0)


def test_a_file_damaged_while_it_is_read(tmp_path):
    write_parquet(tmp_path / "a.parquet", range(30), 5)
    stream = RowStream([tmp_path], seed=0, window_rows=5)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[4:200] = bytes(196)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        list(islice(stream.steps(30), 2))


# --- what refine writes

WORDS = (Message("system", "Be brief."), Message("user", "你好 👍"))
RECORDS = (
    Document("Once.", "a:1"),
    Conversation((*WORDS, Message("assistant", "Hi.")), "a:2"),
    Prompt(WORDS, "a:3", "42"),
    Prompt(WORDS, "a:4"),
    Preference(WORDS, ("a", "b", "c"), "a:5"),
    Preference(WORDS, ("a", "b"), "a:6", (1.5, -2.0)),
    Judgement(WORDS, ("a", "b"), (True, False), "a:7"),
)


def test_records_of_every_kind_come_back(tmp_path):
    rows = [to_row(record) for record in RECORDS]
    lines = [json.dumps(row).encode() for row in rows]
    pieces = list(parquet_pieces(lines * 500, {name for row in rows for name in row}))
    assert len(pieces) == 2 + 500 * len(RECORDS) // BLOCK_ROWS
    (tmp_path / "a.parquet").write_bytes(b"".join(pieces))
    assert pieces == list(parquet_pieces(lines * 500, {name for row in reversed(rows) for name in row}))
    stream = RowStream([tmp_path], seed=0)
    (step,) = islice(stream.steps(stream.num_rows), 1)
    found = sorted((from_row(row) for row in step), key=lambda record: record.source)
    assert found == [record for record in RECORDS for _ in range(500)]


def test_a_block_ends_before_it_is_too_large(monkeypatch):
    monkeypatch.setattr("fairlead.data.parquet_rows.BLOCK_BYTES", 1000)
    lines = [json.dumps({"text": "x" * size}).encode() for size in (10, 2000, 10, 500, 500)]
    assert len(list(parquet_pieces(lines, ["text"]))) == 2 + 1  # the last one is the footer


# --- killed


@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_at_any_time_it_takes_the_same_rows(tmp_path, world_size):
    for name in ("whole", "killed"):
        rows = tmp_path / name / "rows"
        rows.mkdir(parents=True)
        write_parquet(rows / "a.parquet", range(300), 16)
        write_arrow(rows / "b.arrow", range(300, 500), 16)
    chance = random.Random(world_size)

    def start(name, rank):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
        return subprocess.Popen([sys.executable, WORKER, tmp_path / name, "200"], env=environment)

    for process in [start("whole", rank) for rank in range(world_size)]:
        assert process.wait(60) == 0
    kills = 0
    for attempt in range(40):
        ranks = [start("killed", rank) for rank in range(world_size)]
        if attempt < 3:
            progress = tmp_path / "killed" / "rank-0.jsonl"
            size = progress.stat().st_size if progress.exists() else 0
            while not progress.exists() or progress.stat().st_size <= size:
                time.sleep(0.01)  # until something new was taken
            time.sleep(chance.uniform(0.0, 0.15))
            for process in ranks:
                process.send_signal(signal.SIGKILL)
        if all(code == 0 for code in [process.wait(60) for process in ranks]):
            break
        kills += 1
    assert kills >= 2
    for rank in range(world_size):
        name = f"rank-{rank}.jsonl"
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
