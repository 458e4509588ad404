"""`fairlead data refine`, whole: every row accounted for, the same bytes after a kill, no like prompt on both sides."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairlead.artifacts.manifest import read_manifest
from fairlead.config.parse import load
from fairlead.config.refine import RefineConfig
from fairlead.data.load import read_conversations
from fairlead.errors import UserError
from fairlead.pipeline.refine import refine

WORDS = ("river", "mountain", "teacher", "window", "market", "silver", "letter", "garden", "engine", "winter", "copper")


def sentence(rng, count):
    return " ".join(rng.choice(WORDS) + str(rng.randrange(1000)) for _ in range(count))


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    """40 rows, 3 of them again in other spelling, 4 nearly the same, 2 with a benchmark's question; a second source."""
    rng = random.Random(0)
    rows = [{"instruction": sentence(rng, 8), "output": sentence(rng, 90) + "."} for _ in range(40)]
    exact = [{"instruction": row["instruction"].upper(), "output": row["output"] + "  !"} for row in rows[:3]]
    near = [
        {"instruction": row["instruction"], "output": row["output"].replace("river", "stream", 1)} for row in rows[5:9]
    ]
    question = "Which of these words is the name of a metal that is used for wires in most houses?"
    bad = [{"instruction": f"Tell me: {question}", "output": "It is the " + sentence(rng, 20) + "."} for _ in range(2)]
    other = [{"instruction": sentence(rng, 6), "output": sentence(rng, 30) + "."} for _ in range(10)]
    write(tmp_path / "bench.jsonl", [{"question": question}])
    return {
        "main": write(tmp_path / "main.jsonl", [*rows, *exact, *near, *bad]),
        "other": write(tmp_path / "other.jsonl", other), "bench": tmp_path / "bench.jsonl",
    }  # fmt: skip


def run(tmp_path, files, *words):
    base = [f"output={tmp_path}", f"data=[{files['main']},{files['other']}]"]
    return refine(load(RefineConfig, None, [*base, *words]))


def test_every_row_is_accounted_for(tmp_path, files):
    folder = run(tmp_path / "run", files, f"contamination.against={files['bench']}", "held_out=0.2")
    train, held_out = rows_of(folder / "train.jsonl"), rows_of(folder / "held_out.jsonl")
    dropped = rows_of(folder / "dropped.jsonl")
    assert len(train) + len(held_out) + len(dropped) == 40 + 3 + 4 + 2 + 10
    steps = [one["step"] for one in dropped]
    assert steps.count("duplicates") == 3
    assert steps.count("near-duplicates") == sum("river" in row["output"] for row in rows_of(files["main"])[5:9])
    assert steps.count("contamination") == 2
    sources = [row["source"] for row in (*train, *held_out, *dropped)]
    assert len(set(sources)) == len(sources)
    assert len(held_out) == pytest.approx(0.2 * (len(train) + len(held_out)), abs=1)
    facts = read_manifest(folder).facts["refined"]
    assert facts["num_train"] == len(train)
    assert sum(step["rows_in"] - step["rows_out"] for step in facts["steps"]) == len(dropped)
    assert "main.jsonl" in (folder / "report.html").read_text()
    assert not (folder / "work").exists()


def test_the_rows_are_read_by_training(tmp_path, files):
    folder = run(tmp_path / "run", files)
    loaded = read_conversations([folder / "train.jsonl"])
    assert len(loaded.records) == len(rows_of(folder / "train.jsonl"))
    assert not loaded.rejections


def test_what_was_dropped_shows_no_personal_data(tmp_path):
    rows = [{"instruction": "Write to anna.smith@mail.com now.", "output": "..."} for _ in range(2)]
    rows.append({"instruction": "Name the largest river of Asia.", "output": "It is the Yangtze, of 6,300 km."})
    path = write(tmp_path / "rows.jsonl", rows)
    folder = refine(load(RefineConfig, None, [f"output={tmp_path / 'run'}", f"data={path}"]))
    told = (folder / "dropped.jsonl").read_text() + (folder / "report.html").read_text()
    assert "[EMAIL]" in told
    assert "anna.smith" not in told


def test_questions_may_lie_in_a_hub(tmp_path, files, monkeypatch):
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "bench.jsonl").write_bytes(files["bench"].read_bytes())
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path / "hub"))
    folder = run(tmp_path / "run", files, "contamination.against=hf://datasets/team/bench")
    assert len(rows_of(folder / "contamination.jsonl")) == 2


def test_hits_are_listed_where_they_are_only_told(tmp_path, files):
    folder = run(
        tmp_path / "run", files, f"contamination.against={files['bench']}", "contamination.action=tell"
    )  # fmt: skip
    assert len(rows_of(folder / "contamination.jsonl")) == 2
    assert "contamination" not in {one["step"] for one in rows_of(folder / "dropped.jsonl")}


def test_no_like_prompt_stands_on_both_sides(tmp_path):
    rng = random.Random(1)
    prompts = [sentence(rng, 24) for _ in range(30)]
    rows = [
        {"instruction": prompt.replace("1", "2", variant), "output": sentence(rng, 20) + "."}
        for prompt in prompts for variant in range(4)
    ]  # fmt: skip
    path = write(tmp_path / "rows.jsonl", rows)
    words = ["duplicates.threshold=0.5", "duplicates.of=answer", "held_out=0.3", "duplicates.shingle=2"]
    folder = refine(load(RefineConfig, None, [f"output={tmp_path / 'run'}", f"data={path}", *words]))
    from fairlead.data.shingles import hash_shingles, jaccard

    train, held = (
        [row["messages"][0]["content"] for row in rows_of(folder / name)] for name in ("train.jsonl", "held_out.jsonl")
    )
    assert len(held) > 20
    ours, theirs = hash_shingles(train, 2), hash_shingles(held, 2)
    closest = max(jaccard(ours.of(i), theirs.of(j)) for i in range(len(train)) for j in range(len(held)))
    assert closest < 0.5


def test_a_mix_has_the_shares_that_were_asked_for(tmp_path, files):
    folder = run(tmp_path / "run", files, f"mix.weights=[{files['other']}=3]")
    kept = [row["source"] for row in rows_of(folder / "train.jsonl")]
    from_other = sum("other.jsonl" in source for source in kept)
    assert from_other == 10
    assert 0 < len(kept) - from_other < 30


def test_a_second_run_changes_nothing_and_other_options_are_refused(tmp_path, files):
    folder = run(tmp_path / "run", files)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run(tmp_path / "run", files) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    with pytest.raises(UserError, match="threshold"):
        run(tmp_path / "run", files, "duplicates.threshold=0.9")


def test_a_column_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="instruction is named twice"):
        load(RefineConfig, None, ["columns=[instruction=q,output=a,instruction=other]"])


def test_own_columns_are_named_by_an_option(tmp_path):
    rng = random.Random(2)
    rows = [{"q": sentence(rng, 5), "a": sentence(rng, 20) + "."} for _ in range(5)]
    path = write(tmp_path / "rows.jsonl", rows)
    words = [f"output={tmp_path / 'run'}", f"data={path}", "columns=[instruction=q,output=a]"]
    train = rows_of(refine(load(RefineConfig, None, words)) / "train.jsonl")
    assert [row["messages"][0]["content"] for row in train] == [row["q"] for row in rows]


@pytest.mark.parametrize("kills", [2])
def test_killed_at_random_and_run_again_it_leaves_the_same_bytes(tmp_path, files, kills):
    many = [{**row, "output": f"{row['output']} {i}"} for i in range(25) for row in rows_of(files["main"])[:40]]
    path = write(tmp_path / "many.jsonl", many)
    words = [f"data={path}", "shard_rows=100", "held_out=0.1", "duplicates.threshold=0.95"]
    program = [sys.executable, "-m", "fairlead", "data", "refine", *words]
    began = time.monotonic()
    subprocess.run([*program, f"output={tmp_path / 'whole'}"], check=True, capture_output=True)
    seconds = time.monotonic() - began
    rng = random.Random(3)
    for _ in range(kills):
        process = subprocess.Popen(
            [*program, f"output={tmp_path / 'cut'}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds * rng.uniform(0.3, 0.95))
        process.kill()
        process.wait()
    subprocess.run([*program, f"output={tmp_path / 'cut'}"], check=True, capture_output=True)
    for name in ("train.jsonl", "held_out.jsonl", "dropped.jsonl"):
        whole, cut = (tmp_path / run / "01-refine" / name for run in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes(), name


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"])
def test_a_signal_while_rows_are_compared_stops_at_once(tmp_path, files, monkeypatch, capsys, number, code):
    whole = run(tmp_path / "whole", files)

    def interrupted(*_):
        signal.raise_signal(number)
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr("fairlead.pipeline.refine.decide", interrupted)
        with pytest.raises(SystemExit) as stop:
            run(tmp_path / "cut", files)
    assert stop.value.code == code
    assert "the same command goes on" in capsys.readouterr().err
    cut = run(tmp_path / "cut", files)
    assert "rows read" not in capsys.readouterr().err
    assert (cut / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()


def test_ctrl_c_stops_behind_a_shard(tmp_path, files):
    many = [{**row, "output": f"{row['output']} {i}"} for i in range(40) for row in rows_of(files["main"])[:40]]
    path = write(tmp_path / "many.jsonl", many)
    program = [
        sys.executable,
        "-m",
        "fairlead",
        "data",
        "refine",
        f"data={path}",
        "shard_rows=50",
        f"output={tmp_path / 'run'}",
    ]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    work = tmp_path / "run" / "01-refine" / "work"
    while process.poll() is None and not list(work.glob("*.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "goes on from there" in told
    assert not Path(tmp_path / "run" / "01-refine" / "manifest.json").exists()
