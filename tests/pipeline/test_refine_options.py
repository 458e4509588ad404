"""Every option of `fairlead data refine` changes what comes out; tests/data/filters sees those of the filters."""

import json
import random
from itertools import islice

import pytest

from fairlead.artifacts.hashing import sha256_file
from fairlead.artifacts.manifest import read_manifest
from fairlead.config.document import options
from fairlead.config.parse import load
from fairlead.config.refine import RefineConfig
from fairlead.data.load import read_conversations
from fairlead.data.row_stream import RowStream
from fairlead.errors import ExitCode, UserError
from fairlead.pipeline.refine import refine

WORDS = ("river", "mountain", "teacher", "window", "market", "silver", "letter", "garden", "engine", "winter", "copper")
HAN = "山水风花雪月天地人间春秋冬夏东西南北金木土石田禾米竹"
SEEN = {  # option: value, what stands beside it in both runs
    "duplicates.exact": ("false", ("duplicates.threshold=0",)),
    "duplicates.threshold": ("0", ()),
    "duplicates.shingle": ("1", ("duplicates.threshold=0.97",)),
    "duplicates.of": ("prompt", ()),
    "contamination.against": ("bench.jsonl", ()),
    "contamination.action": ("tell", ("contamination.against=bench.jsonl",)),
    "mix.by": ("language", ("mix.temperature=100",)),
    "mix.weights": ("[b.jsonl=1]", ()),
    "mix.temperature": ("100", ()),
    "mix.rows": ("9", ()),
    "held_out": ("0.3", ()),
    "seed": ("7", ("held_out=0.3",)),
}
ELSEWHERE = {
    "output": "every test", "data": "every test",
    "columns": "test_own_columns_are_named_by_an_option in test_refine.py",
    "encoding": "test_an_encoding_is_read", "max_reject_rate": "test_unreadable_rows_stop_it_above_the_limit",
    "shard_rows": "test_shards_are_as_long_as_asked_for", "format": "test_columns_hold_the_same_rows",
    **dict.fromkeys(
        ("executor.kind", "executor.tasks", "executor.workers", "executor.partition", "executor.time"),
        "test_refine_tasks.py: who does the work does not change the result",
    ),
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Files of English and Chinese rows, with copies, rows of one prompt, and a benchmark's question."""
    rng = random.Random(0)

    def sentence(count):
        return " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(count))

    rows = [{"instruction": sentence(8), "output": sentence(90) + "."} for _ in range(20)]
    rows += [{"instruction": rows[0]["instruction"], "output": rows[0]["output"].upper()}]
    rows += [{"instruction": rows[1]["instruction"], "output": rows[1]["output"].replace(" ", " and ", 1)}]
    rows += [{"instruction": rows[2]["instruction"], "output": sentence(90) + "."}]
    rows += [
        {"instruction": "Which of these words is the name of a metal for wires in houses?", "output": sentence(9) + "."}
    ]
    chinese = [
        {"instruction": "".join(rng.choices(HAN, k=12)), "output": "".join(rng.choices(HAN, k=90)) + "。"}
        for _ in range(6)
    ]
    for name, made in (("a.jsonl", [*rows, *chinese[:3]]), ("b.jsonl", chinese[3:])):
        (tmp_path / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made))
    (tmp_path / "bench.jsonl").write_text(json.dumps({"question": rows[-1]["instruction"]}) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def came_out(name, *words):
    folder = refine(load(RefineConfig, None, [f"output={name}", "data=[a.jsonl,b.jsonl]", *words]))
    return (folder / "train.jsonl").read_bytes()


@pytest.mark.parametrize("option", SEEN)
def test_an_option_is_seen(here, option):
    value, beside = SEEN[option]
    assert came_out("before", *beside) != came_out("after", *beside, f"{option}={value}")


def test_every_option_is_in_the_table():
    known = {option.path for option in options(RefineConfig) if not option.path.startswith("filters.")}
    assert known == {*SEEN, *ELSEWHERE}


def test_an_encoding_is_read(here):
    text = (here / "a.jsonl").read_text()
    (here / "old.jsonl").write_bytes(text.encode("gb18030"))
    plain = refine(load(RefineConfig, None, ["output=plain", "data=a.jsonl"]))
    old = refine(load(RefineConfig, None, ["output=old", "data=old.jsonl", "encoding=gb18030"]))
    assert (old / "train.jsonl").read_text().replace("old.jsonl", "a.jsonl") == (plain / "train.jsonl").read_text()


def test_unreadable_rows_stop_it_above_the_limit(here):
    with (here / "a.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(UserError, match="1 of 28 rows cannot be used") as refusal:
        came_out("run")
    assert refusal.value.fix == "mend those rows, or raise max_reject_rate"
    came_out("run", "max_reject_rate=0.1")  # as the message said, and the same run goes on
    dropped = (here / "run" / "01-refine" / "dropped.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in dropped if '"reading"' in line] == ["a.jsonl:28"]


def test_shards_are_as_long_as_asked_for(here, capsys):
    came_out("run", "shard_rows=10")
    assert "a.jsonl: 10 rows read" in capsys.readouterr().err


def test_columns_hold_the_same_rows(here):
    options = ["data=[a.jsonl,b.jsonl]", "held_out=0.3", "seed=3"]
    lines = refine(load(RefineConfig, None, ["output=lines", *options]))
    columns = refine(load(RefineConfig, None, ["output=columns", *options, "format=parquet"]))
    for part in ("train", "held_out"):
        wanted = [json.loads(line) for line in (lines / f"{part}.jsonl").read_text().splitlines()]
        stream = RowStream([columns / f"{part}.parquet"], seed=0)
        (found,) = islice(stream.steps(stream.num_rows), 1)
        assert sorted(found, key=lambda row: row["source"]) == sorted(wanted, key=lambda row: row["source"])
        assert {path.name for path in columns.glob(f"{part}*")} == {f"{part}.parquet"}
    read = [(columns if kind else lines) / f"train.{kind or 'jsonl'}" for kind in ("", "parquet")]
    assert len(read_conversations([read[0]]).records) == len(read_conversations([read[1]]).records) > 0
    told = read_manifest(columns).facts["refined"]["digests"]
    assert told["train.parquet"] == sha256_file(columns / "train.parquet")


def test_nothing_left_is_told(here):
    with pytest.raises(UserError, match="no row is left") as refusal:
        came_out("empty", "filters.length.answer.min_words=9000")
    assert refusal.value.exit_code == ExitCode.BAD_DATA
    assert " × length" in refusal.value.got
    assert (here / "empty" / "01-refine" / "dropped.jsonl").stat().st_size > 0
    assert not (here / "empty" / "01-refine" / "manifest.json").exists()


def test_rows_of_several_kinds_are_told(here, capsys):
    (here / "b.jsonl").write_text(json.dumps({"prompt": "Which?", "chosen": "The first.", "rejected": "The last."}))
    came_out("mixed")
    assert "rows are of several kinds (25 × conversation, 1 × preference)" in capsys.readouterr().err
    refine(load(RefineConfig, None, ["output=one", "data=a.jsonl"]))
    assert "several kinds" not in capsys.readouterr().err
