"""Shards: what was read is accounted for, finished ones are not made again, and any row can be read back."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.data.filters.steps import Dropped, Kept
from fairlead.data.refine.shards import READING, Reader, all_finished, parts_of, write_shards
from fairlead.data.rows import from_row, to_row
from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Rejection

TURNS = (Message("system", "s"), Message("user", "你好\n\U0001f600"))
RECORDS = (
    Document("text\nof two lines", "a:1"),
    Conversation((*TURNS, Message("assistant", "yes")), "a:2"),
    Prompt(TURNS, "a:3", "42"),
    Prompt(TURNS, "a:4"),
    Preference(TURNS, ("a", "b", "c"), "a:5"),
    Preference(TURNS, ("a", "b"), "a:6", (2.0, 1.0)),
    Preference(TURNS, ("a",), "a:7", (0.5,)),
    Judgement(TURNS, ("a", "b"), (True, False), "a:8"),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{type(record).__name__} {record.source}")
def test_a_record_survives_its_row(record):
    assert from_row(to_row(record)) == record


def rows(count, prefix="row"):
    return [
        Rejection("f", i, "bad") if i % 7 == 3 else Document(f"{prefix} {i}", f"f:{i}") for i in range(count)
    ]  # fmt: skip


def drop_fives(record):
    return Dropped("a five") if record.text.endswith("5") else Kept(record)


def shout(record):
    changed = record.text.endswith("4")
    return Kept(Document(record.text.upper(), record.source) if changed else record, "upper" if changed else "")


STEPS = {"fives": drop_fives, "shout": shout}


def test_every_row_is_accounted_for(tmp_path):
    shards = write_shards(
        tmp_path, [("one", lambda: rows(25)), ("two", lambda: rows(10))], STEPS, shard_rows=10
    )  # fmt: skip
    assert [(shard.source, shard.rows_in) for shard in shards] == [
        ("one", 10), ("one", 10), ("one", 5), ("two", 10), ("two", 0)
    ]  # fmt: skip
    for shard in shards:
        assert shard.rows_in == shard.rows_out + sum(shard.dropped.values())
        assert len(list(shard.records())) == shard.rows_out
        assert len(list(shard.losses())) == sum(shard.dropped.values())
    assert sum(shard.dropped[READING] for shard in shards) == sum(i % 7 == 3 for i in [*range(25), *range(10)])
    assert sum(shard.changed["shout"] for shard in shards) == 3  # 4, 14 and 4; 24 was rejected


def test_finished_shards_are_taken_as_they_lie(tmp_path):
    class StopError(Exception):
        pass

    done = []

    def stop_after_two(shard):
        done.append(shard)
        if len(done) == 2:
            raise StopError

    sources = [("one", lambda: rows(25)), ("two", lambda: rows(10))]
    with pytest.raises(StopError):
        write_shards(tmp_path / "cut", sources, STEPS, shard_rows=10, after_shard=stop_after_two)
    made_again = []
    write_shards(tmp_path / "cut", sources, STEPS, shard_rows=10, after_shard=made_again.append)
    write_shards(tmp_path / "whole", sources, STEPS, shard_rows=10)
    assert len(made_again) == 3
    for path in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "cut" / path.name).read_bytes() == path.read_bytes()


def test_a_shard_without_an_account_is_made_again(tmp_path):
    sources = [("one", lambda: rows(15))]
    write_shards(tmp_path, sources, STEPS, shard_rows=10)
    before = (tmp_path / "00000-00000.jsonl").read_bytes()
    (tmp_path / "00000-00000.json").unlink()
    (tmp_path / "00000-00000.jsonl").write_bytes(before[:20])
    write_shards(tmp_path, sources, STEPS, shard_rows=10)
    assert (tmp_path / "00000-00000.jsonl").read_bytes() == before


def test_any_rows_are_read_back(tmp_path):
    shards = write_shards(tmp_path, [("one", lambda: rows(40))], {}, shard_rows=7)
    everything = [record for shard in shards for record in shard.records()]
    reader = Reader(shards)
    for picked in ([0], [3, 4, 5, 6, 7], [0, 12, len(everything) - 1], list(range(len(everything)))):
        assert reader.records(picked) == [everything[i] for i in picked]


@given(num_tasks=st.integers(1, 40), num_files=st.integers(1, 40))
def test_every_shard_is_made_by_one_task(num_tasks, num_files):
    made = [
        (part.file, number)
        for task in range(num_tasks) for part in parts_of(task, num_tasks=num_tasks, num_files=num_files)
        for number in range(part.first, 100, part.every)
    ]  # fmt: skip
    assert sorted(made) == [(file, number) for file in range(num_files) for number in range(100)]


@settings(max_examples=15)  # each writes some hundred files to the disk
@given(sizes=st.lists(st.integers(0, 35), min_size=1, max_size=3), data=st.data())
def test_tasks_in_any_number_and_order_leave_the_same_bytes(tmp_path_factory, sizes, data):
    whole, shared = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("shared")
    sources = [(f"s{number}", partial(rows, size, f"{number}")) for number, size in enumerate(sizes)]
    write_shards(whole, sources, STEPS, shard_rows=10)
    for again in range(2):  # the first run dies before one of its tasks; the second has another number of them
        tasks = data.draw(st.permutations(range(data.draw(st.integers(1, 6)))))
        for task in tasks[1 - again :]:
            parts = parts_of(task, num_tasks=len(tasks), num_files=len(sources))
            write_shards(shared, sources, STEPS, shard_rows=10, parts=parts)
    assert all_finished(shared, num_files=len(sources), shard_rows=10)
    assert {path.name: path.read_bytes() for path in shared.iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_tasks_do_no_work_twice(tmp_path):
    sources = [("one", lambda: rows(65)), ("two", lambda: rows(25))]
    whole = [shard.path.name for shard in write_shards(tmp_path / "whole", sources, STEPS, shard_rows=10)]
    for num_tasks in (2, 5):
        made = []
        for task in range(num_tasks):
            folder, parts = tmp_path / f"{task} of {num_tasks}", parts_of(task, num_tasks=num_tasks, num_files=2)
            write_shards(folder, sources, STEPS, shard_rows=10, parts=parts)
            made += [path.stem for path in folder.glob("*-[0-9]*.json")]
        assert sorted(made) == whole


def test_one_missing_shard_is_noticed(tmp_path):
    sources = [("one", lambda: rows(25)), ("two", lambda: rows(10))]
    write_shards(tmp_path, sources, STEPS, shard_rows=10)
    for account in sorted(tmp_path.glob("*-[0-9]*.json")):
        held = account.read_bytes()
        account.unlink()
        assert not all_finished(tmp_path, num_files=2, shard_rows=10), account.name
        account.write_bytes(held)
    assert all_finished(tmp_path, num_files=2, shard_rows=10)
