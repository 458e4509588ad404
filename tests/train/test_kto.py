"""`fairlead kto`: its first and second step by plain transformers, the reference point, the notes, what it measures."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairlead.config.stages import KtoConfig
from fairlead.data.examples import JudgedExample, mismatched_examples
from fairlead.data.load import read_judgements
from fairlead.data.sampler import Mixture, step_rows
from fairlead.errors import UserError
from fairlead.evaluate import preference_accuracy
from fairlead.evaluate.preference_accuracy import measure_judgements
from fairlead.evaluate.summary import read_evaluation
from fairlead.models.sources import resolve
from fairlead.train import kto
from fairlead.train.rows import Rows, encoder_of, load_judgements
from oracles import losses
from tiny_stages import rows_of, write_rows

OPTIONS = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.7}
STARTER_ROWS = Path(__file__).parents[3] / "shared" / "data" / "preference" / "kto_en_demo.json"


def read_rows(world, *, max_length=256, **options):
    config = world.config("kto", "unused", *(f"{name}={value}" for name, value in options.items()))
    encoder = encoder_of(resolve(str(world.model)))
    rows = load_judgements(config.data, encoder, end_token=True, rejects=None, seed=config.runtime.seed)
    return rows, mismatched_examples([row.response for row in rows.train], max_length)


def logprob(model, example):
    ids = torch.tensor([example.input_ids])
    with torch.no_grad():
        logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return float(logprobs[torch.tensor(example.trained[1:])].double().sum())


@pytest.mark.parametrize("num_micro_batches", [1, 5])
def test_two_steps_are_those_of_the_definition(world, tmp_path, num_micro_batches):
    """The policy after the first step is read from the disk of a run that ended there."""
    words = [f"{name}={value}" for name, value in OPTIONS.items()]
    words += ["model.tuning=full", "num_epochs=2", "optim.schedule=constant", "data.held_out_rows=0", "batch.rows=24",
              f"batch.num_micro_batches={num_micro_batches}", "batch.micro_batch_tokens=100000"]  # fmt: skip
    first = world.run("kto", tmp_path / "one", *words, "max_steps=1")
    second = world.run("kto", tmp_path / "two", *words, "max_steps=2")
    rows, mismatched = read_rows(world, **{"data.held_out_rows": 0})
    reference = AutoModelForCausalLM.from_pretrained(world.model)
    for stage, step in ((world.model, 0), (first / "model", 1)):
        policy = AutoModelForCausalLM.from_pretrained(stage)
        gains = [logprob(policy, row.response) - logprob(reference, row.response) for row in rows.train]
        kl = sum(logprob(policy, one) - logprob(reference, one) for one in mismatched) / len(mismatched)
        labels = [row.desirable for row in rows.train]
        expected = [losses.kto(gain, 0.0, label, kl, **OPTIONS) for gain, label in zip(gains, labels, strict=True)]
        metrics = rows_of(second / "metrics.jsonl")[step]
        assert metrics["loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
        assert metrics["kl_mismatched"] == pytest.approx(kl, rel=1e-3, abs=1e-5)
        for name, label in (("desirable_reward", True), ("undesirable_reward", False)):
            rewards = [0.3 * gain for gain, other in zip(gains, labels, strict=True) if other is label]
            assert metrics[name] == pytest.approx(sum(rewards) / len(rewards), rel=1e-3, abs=1e-6)
        point = max(0.0, kl)
        right = [gain > point if label else gain < point for gain, label in zip(gains, labels, strict=True)]
        if step:
            assert metrics["accuracy"] == pytest.approx(sum(right) / len(right))
    assert rows_of(second / "metrics.jsonl")[1]["kl_mismatched"] != 0


def test_at_first_it_is_its_reference_to_the_last_bit(world, tmp_path):
    metrics = rows_of(world.run("kto", tmp_path, "max_steps=1") / "metrics.jsonl")[0]
    assert (metrics["loss"], metrics["kl_mismatched"], metrics["accuracy"]) == (0.5, 0.0, 0.0)


def test_mismatched_rows_answer_another_prompt(world):
    rows, mismatched = read_rows(world)
    examples = [row.response for row in rows.train]
    parts = [(one.input_ids[: one.trained.index(True)], one.input_ids[one.trained.index(True) :]) for one in examples]
    for i, one in enumerate(mismatched):
        cut = one.trained.index(True)
        assert one.input_ids[:cut] == parts[i][0]
        assert one.input_ids[cut:] == parts[(i + 1) % len(parts)][1]
        assert all(one.trained[cut:])
        assert not any(one.trained[:cut])
    assert all(len(one.input_ids) <= 60 for one in mismatched_examples(examples, 60))


def test_a_pair_is_mismatched_with_another_pair(world, tmp_path):
    """Both responses to one prompt stand side by side: the next response is not one to the same prompt."""
    rows, mismatched = read_rows(world, **{"data.train": world.preferences, "data.held_out_rows": 0})
    assert [row.desirable for row in rows.train] == [True, False] * 20
    for i, one in enumerate(mismatched):
        other = rows.train[2 * (i // 2 + 1) % 40].response
        assert one.input_ids[one.trained.index(True) :] == other.input_ids[other.trained.index(True) :]
    same = [{"prompt": "hi", "completion": text, "label": True} for text in ("a", "b")]
    path = write_rows(tmp_path / "same.jsonl", same)
    with pytest.raises(UserError, match="every row has the same prompt"):
        world.run("kto", tmp_path, f"data.train={path}", "data.held_out_rows=0")


def test_pairs_are_learnt_from_as_two_responses(world, tmp_path):
    stage = world.run("kto", tmp_path, f"data.train={world.preferences}", "num_epochs=6")
    steps = rows_of(stage / "metrics.jsonl")
    assert sum(step["loss"] for step in steps[-6:]) < 0.85 * sum(step["loss"] for step in steps[:6])
    assert steps[-1]["accuracy"] == 1
    (measured,) = read_evaluation(stage / "evaluation.json").preferences
    assert (measured.num_pairs, measured.scorer) == (4, "log-ratio")
    assert measured.mean_margin > 1
    assert "judged by its log-ratio" in (stage / "report.html").read_text()
    assert "less that under the reference" in (stage / "report.html").read_text()


@pytest.mark.parametrize(
    ("labels", "options", "told"),
    [
        ((True, False) * 3, {}, "3 desirable and 3 undesirable responses in an epoch, by weight 1.00 to 1"),
        ((True, False) * 3, {"desirable_weight": 4 / 3}, "by weight 1.33 to 1"),
        ((True,) * 4 + (False,) * 2, {}, "warning: .*by weight 2.00 to 1.* 1 to 1.33: set undesirable_weight=2"),
        ((True,) * 2 + (False,) * 4, {}, "warning: .*by weight 0.50 to 1.* set desirable_weight=2"),
        ((True,) * 4 + (False,) * 2, {"undesirable_weight": 2.0}, "by weight 1.00 to 1"),
        ((True,) * 3, {}, "warning: 3 desirable and 0 undesirable .*one kind alone"),
    ],
)
def test_the_balance_of_the_two_kinds_is_told(labels, options, told):
    rows = Rows([JudgedExample(None, label) for label in labels], Mixture((len(labels),)), {}, {}, [])
    said = kto._balance(rows, KtoConfig(**options), 0)
    assert said.startswith("warning") == told.startswith("warning")
    assert re.search(told, said)


def test_a_step_with_one_kind_alone_has_no_margin(world, tmp_path):
    stage = world.run("kto", tmp_path, "batch.rows=1", "max_steps=8")
    rows, _ = read_rows(world)
    for step, metrics in enumerate(rows_of(stage / "metrics.jsonl")):
        (row,) = step_rows(rows.mixture, 1, 1, 42, step)
        assert ("desirable_reward" in metrics, "undesirable_reward" in metrics) == (
            (True, False) if rows.train[row].desirable else (False, True)
        )
        assert "margin" not in metrics


def test_held_out_responses_are_compared_one_to_one(monkeypatch):
    """In their order, each once at most, by what they gained over the reference; a group of one kind is left out."""
    groups = {
        "a": [JudgedExample(FakeExample(3), label) for label in (True, True, False, True, False)],
        "b": [JudgedExample(FakeExample(2), True)],
    }
    after = {"a": [1.0, 5.0, 2.0, 9.0, 4.0], "b": [0.0]}
    monkeypatch.setattr(preference_accuracy, "sequence_scores", lambda *args: after["a" if len(args[2]) == 5 else "b"])
    (measured,) = measure_judgements(None, "policy", groups, [0.0, 4.0, 0.0, 0.0, 0.0, 0.0], None, None)
    # gains: desirable 1, 1 (9 has no partner); undesirable 2, 4
    assert (measured.name, measured.num_pairs, measured.accuracy) == ("a", 2, 0.0)
    assert measured.mean_margin == pytest.approx(((1 - 2) + (1 - 4)) / 2)


class FakeExample:
    def __init__(self, num_trained):
        self.num_trained = num_trained


def test_before_training_no_response_has_gained(world, tmp_path):
    stage = world.run("kto", tmp_path, "max_steps=1", "optim.lr=1e-12", "optim.warmup_steps=1")
    (measured,) = read_evaluation(stage / "evaluation.json").preferences
    assert (measured.accuracy, measured.mean_margin) == (0.5, 0.0)


@pytest.mark.skipif(not STARTER_ROWS.is_file(), reason="the rows are not here")
def test_the_starter_rows_are_read():
    loaded = read_judgements([STARTER_ROWS])
    labels = [row["label"] for row in json.loads(STARTER_ROWS.read_text())]
    assert [record.desirable for record in loaded.records] == [(label,) for label in labels]
    assert not loaded.rejections
