"""Replies of a tiny model that learnt to talk, made into rows: chosen as loops choose, made again, judged, refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.artifacts.manifest import digest, read_manifest
from fairlead.config.parse import load
from fairlead.config.replies import RepliesConfig
from fairlead.data.load import read_preferences
from fairlead.errors import ExitCode, UserError
from fairlead.pipeline import replies
from fairlead.pipeline.replies import make_replies
from fake_judge import QUESTION, fake_judge, longer
from oracles import selection as oracle
from tiny_stages import conversations, rows_of, write_rows

from .test_run import dies

MACHINE = ("runtime.device=cpu", "runtime.dtype=float32", "runtime.num_threads=1", "sampling.max_new_tokens=24")
ABSENT = 7  # row of the talker's world whose prompt is held out below


@pytest.fixture(scope="module")
def talker(world):
    """A model that knows the world's conversations by heart, and so ends its replies."""
    words = ("num_epochs=30", "model.tuning=full", "data.held_out_rows=0", "optim.schedule=constant")
    return world.run("sft", world.root / "talker", *words)


@pytest.fixture
def make(world, talker, tmp_path):
    """Make replies in a run of this test; returns the stage's folder."""

    def make(*words, run="run"):
        given = {word.partition("=")[0] for word in words}
        base = [f"model={talker}", f"output={tmp_path / run}", f"data.train={world.conversations}", *MACHINE]
        config = [word for word in base if word.partition("=")[0] not in given]
        return make_replies(load(RepliesConfig, None, [*config, *words]))

    return make


def grouped(folder, part="train"):
    """Scored replies by prompt, in order."""
    groups = {}
    for row in rows_of(folder / f"{part}-samples.jsonl"):
        groups.setdefault(row["prompt"], []).append((row["response"], row["score"]))
    return groups


def pairs_of(folder):
    return {
        row["prompt"][-1]["content"]: (row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows_of(folder / "train.jsonl")
    }


def extremes(groups):
    """The best and the worst reply of each prompt whose scores differ."""
    found = {}
    for prompt, said in groups.items():
        scores = [score for _, score in said]
        if len(set(scores)) > 1:
            found[prompt] = (said[oracle.best(scores)][0], said[oracle.worst(scores)][0])
    return found


def test_the_best_and_the_worst_by_a_reward_model(world, make):
    folder = make("method=best_of_n", f"reward_model={world.reward}", "num_responses_per_prompt=5")
    groups = grouped(folder)
    assert pairs_of(folder) == extremes(groups)
    assert len(pairs_of(folder)) >= 8
    assert all(len({text.strip() for text, _ in said}) == len(said) <= 5 for said in groups.values())
    manifest = read_manifest(folder)
    assert {role: parent.digest for role, parent in manifest.parents.items()} == {
        "model": digest(world.root / "talker" / "01-sft"), "reward": digest(world.reward),
    }  # fmt: skip
    assert (manifest.kind, manifest.facts["sizes"]) == ("dataset", {"pairs": len(pairs_of(folder))})
    against = make("method=best_of_n", f"reward_model={world.reward}", "num_responses_per_prompt=5",
                   "rewards=-1*reward_model", run="against")  # fmt: skip
    swapped = pairs_of(against)
    assert swapped.keys() == pairs_of(folder).keys()
    assert all(swapped[prompt] == pair[::-1] for prompt, pair in pairs_of(folder).items())


def test_rewards_are_summed_with_their_weights(make, tmp_path):
    """Verifiers and a user's function see the reply's text, the user's words and the row's own answer."""
    file = tmp_path / "rules.py"
    file.write_text("def f(prompt, response, answer):\n    return len(response) + 0.01 * len(prompt + answer)\n")
    rewards = f"rewards={file}:f,-2*format,0.5*exact_match"
    folder = make("method=best_of_n", rewards, "answer_pattern=(o|好)", "num_responses_per_prompt=3")
    answers = {row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in conversations(24)}
    for prompt, said in grouped(folder).items():
        for text, score in said:
            letters = [letter for letter in text if letter in "o好"]
            exact = 0.5 * (letters[-1:] == [answers[prompt]])
            wanted = len(text) + 0.01 * len(prompt + answers[prompt]) - 2.0 * bool(letters) + exact
            assert score == pytest.approx(wanted)
    assert str(file) in read_manifest(folder).data_digests


def test_a_ranking_is_read_back(make):
    """Rows with a system turn and with several turns, all replies of different scores, best first."""
    folder = make("method=best_of_n", "rewards=length", "ranked=true", "num_responses_per_prompt=6")
    records = read_preferences([folder / "train.jsonl"]).records
    assert max(len(record.responses) for record in records) > 2
    groups = grouped(folder)
    for record in records:
        said = groups[record.prompt[-1].content]
        order = oracle.ranking([score for _, score in said])
        assert record.responses == tuple(said[i][0] for i in order)
    assert {len(record.prompt) for record in records} == {1, 3}


def test_a_system_turn_stays_in_a_ranking(make, tmp_path):
    rows = conversations(24)
    for row in rows:
        row["messages"].insert(0, {"role": "system", "content": "You are a helpful assistant."})
    file = write_rows(tmp_path / "rows.jsonl", rows)
    folder = make("method=best_of_n", "rewards=length", "ranked=true", "ended_only=false", f"data.train={file}")
    assert all(
        (record.prompt[0].role, record.prompt[0].content) == ("system", "You are a helpful assistant.")
        for record in read_preferences([folder / "train.jsonl"]).records
    )


def test_the_best_reply_becomes_a_row_to_fine_tune_on(world, make, tmp_path):
    words = ("method=rejection_sampling", "rewards=length", "num_responses_per_prompt=3")
    folder = make(*words)
    groups = grouped(folder)
    best = {prompt: said[oracle.best([score for _, score in said])] for prompt, said in groups.items()}
    rows = {row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in rows_of(folder / "train.jsonl")}
    assert rows == {prompt: text for prompt, (text, _) in best.items()}
    assert read_manifest(folder).facts["sizes"] == {"rows": len(rows)}
    limit = sorted(score for _, score in best.values())[len(best) // 2]
    fewer = rows_of(make(*words, f"min_score={limit}", run="fewer") / "train.jsonl")
    assert {row["messages"][-2]["content"] for row in fewer} == {p for p, (_, score) in best.items() if score >= limit}
    world.run("sft", tmp_path / "next", f"data.train={folder / 'train.jsonl'}", "max_steps=1", "data.held_out_rows=0")


def test_replies_that_were_cut_off_are_left_out(make):
    words = ("method=best_of_n", "rewards=length", "sampling.max_new_tokens=8", "num_responses_per_prompt=8")
    ended = {text for said in grouped(make(*words)).values() for text, _ in said}
    every = {text for said in grouped(make(*words, "ended_only=false", run="every")).values() for text, _ in said}
    assert ended < every


def test_no_training_prompt_is_held_out(world, make, tmp_path):
    rows = conversations(24)
    prompt = rows[ABSENT]["messages"][0]["content"].upper()
    same = {"messages": [{"role": "user", "content": prompt}]}
    file = write_rows(tmp_path / "held_out.jsonl", [same, *conversations(30)[24:]])
    folder = make("method=best_of_n", "rewards=length", "ended_only=false", f"data.held_out={file}")
    trained = {prompt.lower() for prompt in grouped(folder)}
    measured = {prompt.lower() for prompt in grouped(folder, "held_out")}
    assert rows[ABSENT]["messages"][0]["content"].lower() in measured
    assert not trained & measured
    assert len(rows_of(folder / "held_out.jsonl")) > 0


def test_long_prompts_and_later_rows_are_left_out(make):
    folder = make("method=best_of_n", "rewards=length", "ended_only=false", "data.max_rows=12", "data.max_length=100")
    first = [row["messages"][-2]["content"] for row in conversations(24)[:12]]
    answered = [*grouped(folder)]
    assert 0 < len(answered) < 12
    assert answered == [prompt for prompt in first if prompt in answered]


def test_rows_that_cannot_be_read_are_listed(make, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [*conversations(9), {"messages": []}])
    words = ("method=best_of_n", "rewards=length", "ended_only=false", f"data.train={file}")
    with pytest.raises(UserError, match="1 of 10 rows cannot be used"):
        make(*words)
    folder = make(*words, "data.max_reject_rate=0.1")
    assert [row["line"] for row in rows_of(folder / "rejects.jsonl")] == [10]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


def test_the_same_again_and_another_seed(make):
    words = ("method=best_of_n", "rewards=length")
    assert files(make(*words)) == files(make(*words, run="again"))
    assert files(make(*words)) != files(make(*words, "runtime.seed=7", run="other"))


def test_killed_and_made_again(make, tmp_path):
    words = ("method=best_of_n", "rewards=length")
    assert dies(lambda: make(*words), replies, "write_manifest", 1)
    assert not (tmp_path / "run" / "01-replies" / "manifest.json").exists()
    assert digest(make(*words)) == digest(make(*words, run="undisturbed"))


def test_finished_replies_are_skipped_or_refused(make, capsys):
    words = ("method=best_of_n", "rewards=length")
    make(*words)
    make(*words)
    assert "is finished and unchanged, skipped" in capsys.readouterr().err
    with pytest.raises(UserError, match="num_responses_per_prompt 4 -> 3"):
        make(*words, "num_responses_per_prompt=3")


def test_a_reward_model_does_not_reply(world, make):
    with pytest.raises(UserError, match="is a reward model; want a policy"):
        make(f"model={world.reward}", "method=best_of_n", "rewards=length")


def test_no_row_comes_of_replies_that_score_the_same(make, tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("def f(prompt, response, answer):\n    return 1.0\n")
    with pytest.raises(UserError, match="no row came of the replies to 24 prompts") as caught:
        make("method=best_of_n", f"rewards={file}:f")
    assert caught.value.exit_code == ExitCode.BAD_DATA


# --- a judge


@pytest.fixture
def judged(make, tmp_path):
    """Best of three by the judge at this address, which is asked in a way that it can take apart."""
    file = tmp_path / "question.txt"
    file.write_text(QUESTION)

    def judged(url, *words, run="run"):
        options = ("rewards=judge", f"judge.url={url}", "judge.model=wise", f"judge.prompt_file={file}")
        return make("method=best_of_n", "num_responses_per_prompt=3", *options, "judge.num_retries=0", *words, run=run)

    return judged


def test_a_judge_chooses(judged):
    with fake_judge() as judge:
        folder = judged(judge.url)
    groups = grouped(folder)
    for said in groups.values():
        for text, score in said:
            others = [len(other) for other, _ in said if other != text]
            beaten = sum(1.0 if length < len(text) else 0.5 if length == len(text) else 0.0 for length in others)
            assert score == pytest.approx(beaten / len(others) if others else 0.5)
    assert pairs_of(folder) == extremes(groups)
    turns = {question.partition("\n###\n")[0] for question in judge.questions}
    assert any(turn.startswith("user: ") and "\n\nassistant: " in turn for turn in turns), "whole dialogues are judged"
    assert "question.txt" in {Path(path).name for path in read_manifest(folder).data_digests}


def test_a_judge_that_looks_at_the_place_alone_chooses_nothing(judged):
    with fake_judge(lambda _: "[[A]]") as judge, pytest.raises(UserError, match="no row came"):
        judged(judge.url)


def test_verdicts_outlive_an_endpoint_that_moves(judged):
    """Ten answers, then silence; at another address the same stage goes on and asks none of the ten again."""
    with fake_judge() as judge:

        def ten_times(question):
            if len(judge.questions) == 10:
                judge.failures.extend([(500, {}, b"")] * 99)
            return longer(question)

        judge.answer = ten_times
        with pytest.raises(UserError, match="cannot be reached"):
            judged(judge.url, "judge.num_at_once=1")
    with fake_judge() as other:
        folder = judged(other.url)
    with fake_judge() as straight:
        assert files(judged(straight.url, run="straight")) == files(folder)
    assert len(judge.questions) == 10
    assert sorted([*judge.questions, *other.questions]) == sorted(straight.questions)


def test_the_key_of_the_judge_is_in_no_file(judged, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-canary")
    with fake_judge() as judge:
        folder = judged(judge.url, "judge.api_key_variable=JUDGE_KEY")
    assert {headers["Authorization"] for (_, headers), _ in judge.requests} == {"Bearer sk-canary"}
    assert all(b"canary" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(UserError, match="JUDGE_KEY: this environment variable is not set"):
        judged(judge.url, "judge.api_key_variable=JUDGE_KEY", run="without")


# --- ranks


@pytest.mark.slow
def test_two_ranks_choose_what_one_chooses(world, talker, make, tmp_path):
    words = ("method=best_of_n", f"reward_model={world.reward}")
    alone = make(*words)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fairlead",
               "replies", f"model={talker}", f"output={tmp_path / 'two'}", f"data.train={world.conversations}",
               *MACHINE, *words]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    two = tmp_path / "two" / "01-replies"
    assert (two / "train.jsonl").read_bytes() == (alone / "train.jsonl").read_bytes()
    assert [score for said in grouped(two).values() for _, score in said] == pytest.approx(
        [score for said in grouped(alone).values() for _, score in said], abs=1e-5
    )
    assert read_manifest(two).world_size == 2
    assert json.loads((two / "manifest.json").read_text())["kind"] == "dataset"
