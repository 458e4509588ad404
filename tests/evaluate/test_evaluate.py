"""`fairlead eval` on tiny stages: rows that cannot be measured, licences, and a run that was moved."""

import re
import shutil

import pytest

from fairlead.algos.intervals import bootstrap_mean
from fairlead.artifacts.manifest import digest, read_manifest
from fairlead.config.common import RuntimeConfig
from fairlead.config.journey import SplitConfig
from fairlead.config.parse import load
from fairlead.config.replies import RepliesConfig
from fairlead.config.stages import EvalConfig
from fairlead.data import starter
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.evaluate import evaluate
from fairlead.evaluate.summary import read_evaluation
from fairlead.pipeline.datasets import split_rows
from fairlead.pipeline.replies import make_replies
from fairlead.runtime.start import start
from tiny_stages import conversations, preferences, write_rows

LONG = "the quick brown fox " * 80  # some four hundred tokens


def measure(model, output, *overrides):
    words = (
        f"model={model}", f"output={output}", "max_length=256", "sampling.max_new_tokens=4", "runtime.device=cpu",
        "runtime.dtype=float32", "runtime.num_threads=1",
    )  # fmt: skip
    return evaluate(load(EvalConfig, None, [*words, *overrides]))


@pytest.fixture(scope="module")
def sft(world, tmp_path_factory):
    return world.run("sft", tmp_path_factory.mktemp("runs") / "run", "max_steps=1")


def talk(prompt, answer):
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


# --- rows that cannot be measured


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0]])
def test_prompts_that_are_too_long_are_left_out_and_counted(sft, tmp_path, capsys, rows):
    """Answers stay beside their own prompts; the count is said at once, and stands on page and card."""
    known = [talk("hello", "fine"), talk(LONG, "no"), talk("what is fox", "a dog"), talk("today", "thank")]
    prompts = write_rows(tmp_path / "prompts.jsonl", [known[i] for i in rows])
    folder = measure(sft, tmp_path / "run", f"prompts={prompts}")
    evaluation = read_evaluation(folder / "evaluation.json")
    assert [answer.prompt for answer in evaluation.answers] == ["hello", "what is fox", "today"][: len(rows)]
    assert evaluation.probes is not None
    notes = ["1 of 4 prompts are left out: 1 × the prompt has"] if 1 in rows else []
    assert [note[:47] for note in evaluation.notes] == notes
    for text in (capsys.readouterr().err, *((folder / name).read_text() for name in ("report.html", "README.md"))):
        assert ("1 of 4 prompts are left out" in text) == bool(notes)


def test_what_is_measured_is_said_as_it_begins(sft, tmp_path, capsys):
    talks = write_rows(tmp_path / "talks.jsonl", [talk("hello", "fine"), talk("today", "thank")])
    pairs = write_rows(tmp_path / "pairs.jsonl", preferences(3))
    measure(sft, tmp_path / "run", f"conversations={talks}", f"preferences={pairs}", f"prompts={talks}")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("eval: ")]
    assert [line.replace("model", "").split()[1] for line in said] == ["loss", "loss", "scores", "2", "2"]
    assert said[2] == "eval: scores of 01-sft on 3 rows"


def test_a_report_lies_beside_its_model_and_is_never_written_over(sft, world, tmp_path, capsys):
    """Without an output it goes into the model's own run; other options or another model make another folder."""
    run = tmp_path / "mine"
    shutil.copytree(sft.parent, run)
    talks = write_rows(tmp_path / "talks.jsonl", [talk("hello", "fine"), talk("today", "thank")])

    def made(model, *overrides):
        words = [f"model={model}", "sampling.max_new_tokens=4", "runtime.device=cpu", "runtime.num_threads=1"]
        return evaluate(load(EvalConfig, None, [*words, f"prompts={talks}", *overrides]))

    first = made(run / sft.name)
    assert first == run / "02-eval-sft"
    before = (first / "evaluation.json").read_bytes()
    second = made(run / sft.name, "max_prompts=1")
    assert second == run / "03-eval-sft-2"
    other = world.run("sft", tmp_path / "other", "max_steps=2")
    assert made(other, f"output={run}") == run / "04-eval-sft-3"
    assert (first / "evaluation.json").read_bytes() == before
    capsys.readouterr()
    assert made(run / sft.name, "max_prompts=1") == second
    assert f"{second} says this already, skipped" in capsys.readouterr().err


def test_the_first_prompts_are_the_first_that_fit(sft, tmp_path):
    prompts = write_rows(tmp_path / "p.jsonl", [talk(LONG, "no"), talk("hello", "fine"), talk("today", "thank")])
    folder = measure(sft, tmp_path / "run", f"prompts={prompts}", "max_prompts=1")
    assert [answer.prompt for answer in read_evaluation(folder / "evaluation.json").answers] == ["hello"]


def test_conversations_and_pairs_that_cannot_be_encoded_are_counted(sft, tmp_path):
    talks = write_rows(tmp_path / "talks.jsonl", [talk("hello", "fine"), talk(LONG, "gone")])
    pair = {"prompt": LONG, "chosen": "yes", "rejected": "no"}
    pairs = write_rows(tmp_path / "pairs.jsonl", [*preferences(3), pair, pair])
    folder = measure(sft, tmp_path / "run", f"conversations={talks}", f"preferences={pairs}")
    evaluation = read_evaluation(folder / "evaluation.json")
    assert evaluation.preferences[0].num_pairs == 3
    assert evaluation.preferences[0].scorer == "log-probability"
    first, second = evaluation.notes
    assert first == "1 of 2 conversations are left out: 1 × no trained token is left within max_length=256"
    assert second.startswith("2 of 5 rows of pairs.jsonl are left out: 2 × no response token is left")


def graded_rows(count):
    return [
        {"prompt": f"what is fox {i}", "responses": ["yes fox", "no", "no dog"], "scores": [i % 4, 1, 0]}
        for i in range(count)
    ]


def test_graded_rows_are_measured_by_pair_and_by_correlation(world, tmp_path):
    """Each response is scored once; equal scores make no pair; `max_pairs` takes whole rows."""
    data = write_rows(tmp_path / "graded.jsonl", graded_rows(12))
    reward = world.run("reward", tmp_path / "train", f"data.train={data}", "loss=regression")
    folder = measure(reward, tmp_path / "run", f"preferences={data}")
    evaluation = read_evaluation(folder / "evaluation.json")
    (pairs,), (grades,) = evaluation.preferences, evaluation.grades
    assert (pairs.name, pairs.num_pairs) == ("graded", 3 * (2 + 2 + 3 + 3))
    assert (grades.name, grades.num_responses) == ("graded", 36)
    assert grades.mean_squared_error > 0
    some = read_evaluation(measure(reward, tmp_path / "some", f"preferences={data}", "max_pairs=5") / "evaluation.json")
    assert (some.preferences[0].num_pairs, some.grades[0].num_responses) == (2 + 2 + 3, 9)
    ranked = measure(world.reward, tmp_path / "ranked", f"preferences={data}")
    assert read_evaluation(ranked / "evaluation.json").grades[0].mean_squared_error is None


def test_a_collapsed_reward_model_is_told_in_words(world, tmp_path, capsys, monkeypatch):
    def flat(_roles, _role, responses, *_):
        return dict.fromkeys(responses, 1.0)

    monkeypatch.setattr("fairlead.evaluate.preference_accuracy.response_scores", flat)
    pairs = write_rows(tmp_path / "pairs.jsonl", preferences(8))
    folder = measure(world.reward, tmp_path / "run", f"preferences={pairs}")
    for text in (capsys.readouterr().err, *((folder / name).read_text() for name in ("report.html", "README.md"))):
        assert "pairs: the reward model has collapsed" in text
        assert "learning rate was too high" in text


@pytest.mark.parametrize(("option", "what"), [("prompts", "prompts"), ("conversations", "conversations"),
                                              ("preferences", "rows of rows.jsonl")])  # fmt: skip
def test_nothing_left_to_measure_is_a_users_error(sft, tmp_path, option, what):
    rows = preferences(3) if option == "preferences" else conversations(3)
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=f"none of the {what} can be measured") as caught:
        measure(sft, tmp_path / "run", f"{option}={path}", "max_length=3")
    assert caught.value.where == str(path)
    assert "raise max_length" in caught.value.fix
    assert caught.value.exit_code == ExitCode.BAD_DATA


# --- verifiers


@pytest.fixture(scope="module")
def judged(sft, tmp_path_factory):
    """Rows whose right answer is now what the model says, now what its parent says, now something else."""
    folder = tmp_path_factory.mktemp("judged")
    prompts = [talk(f"{word} {i}", "?") for i, word in enumerate(["hello", "today", "fox"] * 4)]
    bare = write_rows(folder / "bare.jsonl", prompts)
    said = read_evaluation(measure(sft, folder / "first", f"prompts={bare}") / "evaluation.json").answers
    texts = [(one.reply, one.parent_reply, "something else")[i % 3] for i, one in enumerate(said)]
    assert all(texts)
    rows = [talk(one.prompt, text) for one, text in zip(said, texts, strict=True)]
    return write_rows(folder / "rows.jsonl", rows), said, texts


def by_hand(replies, answers, pattern):
    """Which replies are the answer, letter case aside, and which have the format: the definitions, one by one."""
    equal, formed = [], []
    for reply, answer in zip(replies, answers, strict=True):
        found = [match[1] for match in re.finditer(pattern, reply)]
        formed.append(len(found) > 0)
        equal.append(len(found) > 0 and found[-1].strip().casefold() == answer.strip().casefold())
    return tuple(equal), tuple(formed)


def test_verifiers_judge_the_answers_of_model_and_parent(sft, world, judged, tmp_path):
    rows, said, answers = judged
    letters = sorted(set("".join(one.reply for one in said)) & set("abcdefghijklmnopqrstuvwxyz"))
    letter = min(letters, key=lambda c: abs(sum(c in one.reply for one in said) - len(said) / 3))
    pattern = f"(?s)^([^{letter}]+)$"
    words = (f"prompts={rows}", "verifiers=exact_match,format", f"answer_pattern={pattern}")
    folder = measure(sft, tmp_path / "run", *words)
    evaluation = read_evaluation(folder / "evaluation.json")
    child = by_hand([one.reply for one in said], answers, pattern)
    parent = by_hand([one.parent_reply for one in said], answers, pattern)
    assert 0 < sum(child[0]) < sum(child[1]) < len(said), "the case must tell right from wrong"
    names = ("exact_match", "format")
    for measured, name, right, before in zip(evaluation.successes, names, child, parent, strict=True):
        assert (measured.verifier, measured.right, measured.rate) == (name, right, sum(right) / len(right))
        assert measured.gain.parent_rate == pytest.approx(sum(before) / len(before))
        differences = [float(a) - float(b) for a, b in zip(right, before, strict=True)]
        assert measured.gain.difference == pytest.approx(sum(differences) / len(differences))
        assert (measured.gain.low, measured.gain.high) == bootstrap_mean(differences, seed=42)
    assert [one.score for one in evaluation.answers] == list(map(float, child[0]))
    assert [one.parent_score for one in evaluation.answers] == list(map(float, parent[0]))
    for text in ((folder / name).read_text() for name in ("report.html", "README.md")):
        assert "Success, exact_match" in text
    # A report on the parent that is there already is read instead of answering again: the same comparison.
    measure(world.model, tmp_path / "other", *words)
    again = read_evaluation(measure(sft, tmp_path / "other", *words) / "evaluation.json")
    assert again.successes == evaluation.successes
    assert [one.parent_score for one in again.answers] == [one.parent_score for one in evaluation.answers]


def test_a_prompt_without_the_right_answer_cannot_be_judged(sft, tmp_path):
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": "hello"}, {"prompt": "today"}])
    with pytest.raises(UserError, match="2 of 2 prompts come without the right answer") as caught:
        measure(sft, tmp_path / "run", f"prompts={prompts}", "verifiers=maths_answer")
    assert caught.value.where == f"{prompts}:1"
    form = ("verifiers=format", "answer_pattern=Answer: (.+)")
    (measured,) = read_evaluation(
        measure(sft, tmp_path / "run", f"prompts={prompts}", *form) / "evaluation.json"
    ).successes
    assert measured.rate == 0.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("verifiers=format", "prompts=p"), "set eval.answer_pattern"),
        (("verifiers=maths_answer",), "name eval.prompts"),
        (("verifiers=maths_answer,maths_answer", "prompts=p"), "write it once"),
        (("answer_pattern=(.+)", "prompts=p"), "without eval.verifiers"),
        (("verifiers=format", "answer_pattern=(", "prompts=p"), "no regular expression"),
        (("verifiers=length", "prompts=p"), "exact_match"),
    ],
)
def test_options_that_do_not_fit_are_refused(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load(EvalConfig, None, words)


# --- licences


@pytest.fixture
def known_rows(world, monkeypatch):
    """The world's conversations play a starter dataset."""
    asset = starter.Asset("rows-1/data/rows.jsonl", starter.sha256_file(world.conversations))
    licence = "Rows: Apache-2.0. Their answers were written by a commercial model"
    package = starter.Package("rows", "1", "rows.tar.gz", "", 1, "--no-binary=rows", licence, {"demo_rows": asset})
    monkeypatch.setattr(starter, "PACKAGES", (starter.WEIGHTS, package))


@pytest.mark.usefixtures("known_rows")
def test_licences_go_down_the_chain_to_cards_and_pages(world, tmp_path):
    """From known rows through a split, sft and own replies to a reward model and its measuring."""
    run = tmp_path / "run"
    names = SplitConfig(
        sources=(str(world.conversations),), sft=10, preference=10, max_prompt_tokens=400, tokenizer=str(world.model)
    )
    split = split_rows(names, run, start(RuntimeConfig(device="cpu", num_threads=1)))
    sft = world.run("sft", run, f"data.train={split / 'sft.jsonl'}", "max_steps=1")
    machine = ("runtime.device=cpu", "runtime.dtype=float32", "runtime.num_threads=1", "sampling.max_new_tokens=6")
    words = (
        f"model={sft}",
        f"output={run}",
        f"data.train={split / 'preference.jsonl'}",
        "min_tokens=1",
        "max_tokens=6",
        *machine,
    )
    replies = make_replies(load(RepliesConfig, None, words))
    own = write_rows(tmp_path / "own.jsonl", preferences(20))
    reward = world.run(
        "reward",
        run,
        f"model.name={sft}",
        f"data.train={own}",
        f"data.held_out={replies / 'train.jsonl'}",
        "max_steps=1",
    )
    other = write_rows(tmp_path / "other.jsonl", preferences(5, seed=3))
    report = measure(reward, run, f"preferences={other}")

    expected = {"demo_rows": "Apache-2.0. Their answers were written by a commercial model"}
    for stage, more in ((split, ""), (sft, "model"), (replies, ""), (reward, "own.jsonl"), (report, "other.jsonl")):
        expected |= {more: "not stated"} if more else {}
        assert read_manifest(stage).facts["licences"] == expected, stage.name
    card = (reward / "README.md").read_text()
    assert "\nlicense: other\n" in card
    assert "| demo_rows | Apache-2.0. Their answers were written by a commercial model |" in card
    assert "| own.jsonl | not stated |" in card
    assert "commercial model" in (report / "report.html").read_text()


def test_a_manifest_of_something_else_beside_the_rows_says_nothing(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    rows = write_rows(tmp_path / "rows.jsonl", preferences(1))
    names = ["smollm2-135m-instruct", "owner/name"]
    found = starter.licences(names, {str(rows): "0" * 64})
    assert found == {"smollm2-135m-instruct": "Apache-2.0", "owner/name": "not stated", "rows.jsonl": "not stated"}


def test_the_warning_about_commercial_models_is_part_of_the_demo_rows_licence():
    demo = starter.ROWS.assets["dpo_en_demo"]
    (terms,) = starter.licences([], {"anywhere/rows.json": demo.sha256}).values()
    assert terms.startswith("Apache-2.0. Many of their answers were written by commercial models")


# --- a run that was moved


def test_a_renamed_run_is_measured_beside_its_own_parent(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sft = world.run("sft", "old", "max_steps=1")
    dpo = world.run("dpo", "old", f"model.name={sft}", "max_steps=1")
    (tmp_path / "old").rename(tmp_path / "new")
    prompts = write_rows(tmp_path / "prompts.jsonl", conversations(3))
    folder = measure(tmp_path / "new" / dpo.name, tmp_path / "new", f"prompts={prompts}")
    report = read_manifest(folder)
    assert report.parents["parent"].path == str(tmp_path / "new" / sft.name)
    assert report.parents["parent"].digest == digest(tmp_path / "new" / sft.name)
    assert read_evaluation(folder / "evaluation.json").stage.parent == sft.name

    shutil.rmtree(tmp_path / "new" / sft.name)
    world.run("sft", "old", "max_steps=1", "runtime.seed=7")  # another model where the parent was
    with pytest.raises(UserError, match="the parent is not the model any more") as caught:
        measure(tmp_path / "new" / dpo.name, tmp_path / "new", f"prompts={prompts}", "max_prompts=2")
    assert "--parent" in caught.value.fix
