"""The losses of `fairlead dpo`: of given log-probabilities, and in the first step of a run by plain transformers."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairlead.config.stages import DpoConfig
from fairlead.data.examples import preference_examples
from fairlead.data.load import read_preferences
from fairlead.models.sources import resolve
from fairlead.records import Message, Preference
from fairlead.train import rows as rows_module
from fairlead.train.dpo import pair_losses
from fairlead.train.rows import encoder_of
from oracles import losses
from tiny_stages import rows_of, write_rows

# loss: options beside it, and the oracle of one pair from sums (policy, reference) and token counts
POLICY, REFERENCE, COUNTS = [(-10.0, -12.0), (-5.0, -4.0)], [(-11.0, -11.5), (-5.5, -4.5)], [(4, 6), (2, 3)]


def config(loss, **options):
    extra = {"sft_coef": 1.0} if loss == "odds_ratio" else {}
    return DpoConfig.model_validate({"loss": loss, "beta": 0.3} | extra | options)


def expected(loss, policy, reference, counts, *, normalised):
    """One pair by the definitions."""
    if normalised or loss in ("simpo", "odds_ratio"):
        policy, reference = (tuple(x / n for x, n in zip(pair, counts, strict=True)) for pair in (policy, reference))
    margin = 0.3 * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    match loss:
        case "sigmoid":
            return losses.negative_log_sigmoid(margin)
        case "robust":
            return losses.robust_dpo(margin, label_smoothing=0.2)
        case "ipo":
            return losses.ipo(*policy, *reference, beta=0.3)
        case "hinge":
            return losses.hinge(margin)
        case "simpo":
            return losses.simpo(*policy, beta=0.3, gamma=0.7)
        case "odds_ratio":
            return 0.3 * losses.odds_ratio(*policy)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("loss", ["sigmoid", "robust", "ipo", "hinge", "simpo", "odds_ratio"])
def test_each_loss_is_that_of_its_paper(loss, normalised):
    options = {"robust": {"label_smoothing": 0.2}, "simpo": {"simpo_margin": 0.7}}.get(loss, {})
    given = config(loss, length_normalised=normalised, **options)
    policy, reference, counts = (torch.tensor(x).double().flatten() for x in (POLICY, REFERENCE, COUNTS))
    reference = reference if given.with_reference else torch.zeros_like(reference)
    got, chosen, rejected = pair_losses(policy, reference, counts.long(), given)
    rows = zip(POLICY, REFERENCE, COUNTS, strict=True)
    assert got.tolist() == pytest.approx([expected(loss, *row, normalised=normalised) for row in rows])
    assert chosen.shape == rejected.shape == (2,)


@pytest.fixture(scope="module")
def pairs(world):
    """Summed log-probabilities under the untrained model and token counts, (chosen, rejected) of each pair."""
    records = read_preferences([world.preferences]).records
    examples, _ = preference_examples(records, encoder_of(resolve(str(world.model))).template, 256, end_token=True)
    model = AutoModelForCausalLM.from_pretrained(world.model)

    def measured(example):
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        return float(logprobs[torch.tensor(example.trained[1:])].sum()), example.num_trained

    return [(measured(pair.chosen), measured(pair.rejected)) for pair in examples]


@pytest.mark.parametrize("num_micro_batches", [1, 4])
@pytest.mark.parametrize("loss", ["sigmoid", "robust", "ipo", "hinge", "simpo", "odds_ratio"])
def test_the_first_step_of_a_run(world, tmp_path, pairs, loss, num_micro_batches):
    """All pairs in one step, policy at its reference; with the SFT loss of the chosen responses, per token."""
    stage = world.run(
        "dpo", tmp_path, f"loss={loss}", "sft_coef=0.5", "beta=0.3", "max_steps=1", "data.held_out_rows=0",
        f"batch.rows={len(pairs)}", f"batch.num_micro_batches={num_micro_batches}", "batch.micro_batch_tokens=100000",
    )  # fmt: skip
    means = [tuple(total / count for total, count in pair) for pair in pairs]
    at_reference = {"sigmoid": math.log(2), "robust": math.log(2), "ipo": (0.5 / 0.3) ** 2, "hinge": 1.0}
    if loss == "simpo":
        each = [losses.simpo(*pair, beta=0.3, gamma=1.0) for pair in means]
    elif loss == "odds_ratio":
        each = [0.3 * losses.odds_ratio(*pair) for pair in means]
    else:
        each = [at_reference[loss]] * len(pairs)
    sft = -sum(chosen[0] for chosen, _ in pairs) / sum(chosen[1] for chosen, _ in pairs)
    (metrics,) = rows_of(stage / "metrics.jsonl")
    assert metrics["loss"] == pytest.approx(sum(each) / len(each) + 0.5 * sft, rel=1e-5)


@pytest.mark.parametrize("loss", ["robust", "ipo", "hinge", "simpo", "odds_ratio"])
def test_every_loss_learns_the_pairs(world, tmp_path, loss):
    more = {"odds_ratio": ("sft_coef=1", "beta=1"), "simpo": ("beta=2",), "robust": ("label_smoothing=0.1",)}
    stage = world.run("dpo", tmp_path, f"loss={loss}", "num_epochs=6", *more.get(loss, ()))
    rows = rows_of(stage / "metrics.jsonl")
    assert rows[-1]["margin"] > rows[0]["margin"]
    assert rows[-1]["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"loss": "odds_ratio"}, "sft_coef=1"), ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing"),
        ({"loss": "sigmoid", "simpo_margin": 0.5}, "simpo_margin"),
    ],
)  # fmt: skip
def test_options_without_meaning_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        DpoConfig.model_validate(options)


def test_a_prompt_with_many_ranked_responses_counts_as_one_with_two(world):
    """The three pairs of three ranked responses weigh a third each, the pair of two weighs 1."""
    template = encoder_of(resolve(str(world.model))).template
    for responses, weights in ((("yes fox", "brown dog", "no"), [1 / 3] * 3), (("yes", "no"), [1.0])):
        ranked = [Preference((Message("user", "what is fox"),), responses, "f:1")]
        examples, _ = preference_examples(ranked, template, 256, end_token=True)
        assert [example.weight for example in examples] == pytest.approx(weights)


def test_weights_of_pairs_enter_loss_and_denominator(world, tmp_path, monkeypatch):
    """The loss of a step is the weighted mean of the losses of its pairs, over all micro-batches."""
    real = rows_module.preference_examples

    def weighted(*args, **more):
        examples, rejected = real(*args, **more)
        return [replace(one, weight=1.0 if i == 0 else 0.25) for i, one in enumerate(examples)], rejected

    pairs = [
        {"prompt": f"what is {word}", "chosen": f"yes {word}", "rejected": "no"} for word in ("fox", "dog", "Paris")
    ]
    words = ("loss=simpo", "max_steps=1", "data.held_out_rows=0", "batch.rows=3", "batch.num_micro_batches=3")
    each = [
        rows_of(
            world.run("dpo", tmp_path / str(i), f"data.train={write_rows(tmp_path / f'{i}.jsonl', [one])}", *words)
            / "metrics.jsonl"
        )[0]["loss"]
        for i, one in enumerate(pairs)
    ]
    monkeypatch.setattr(rows_module, "preference_examples", weighted)
    stage = world.run("dpo", tmp_path / "w", f"data.train={write_rows(tmp_path / 'w.jsonl', pairs)}", *words)
    found = rows_of(stage / "metrics.jsonl")[0]["loss"]
    options = [(each[i] + 0.25 * (sum(each) - each[i])) / 1.5 for i in range(3)]  # the split shuffles rows
    assert min(abs(found - option) for option in options) < 1e-5
