import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.loss.loss_utils import ForCausalLMLoss

from fairlead.algos.logprobs import token_logprobs
from fairlead.algos.sft_loss import sft_loss, smoothed_sft_loss
from oracles import reductions


def test_is_the_cross_entropy_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 9, generator=generator), torch.randint(9, (6,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(sft_loss(token_logprobs(logits, targets)), expected)


@given(st.integers(0, 99), st.integers(1, 8))
def test_is_that_of_transformers(seed, num_items):
    """`ForCausalLMLoss` on shifted labels, over a global count of tokens, as its Trainer does."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 7, 9, generator=generator)
    labels = torch.randint(9, (1, 7), generator=generator)
    labels[0, [1, 4]] = -100
    expected = ForCausalLMLoss(logits, labels, 9, num_items_in_batch=torch.tensor(num_items))
    kept = labels[0, 1:] != -100
    logprobs = token_logprobs(logits[0, :-1][kept], labels[0, 1:][kept])
    torch.testing.assert_close(sft_loss(logprobs).sum() / num_items, expected)


@given(st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=4))
def test_equals_the_loop(rows):
    losses = sft_loss(token_logprobs(torch.tensor(rows, dtype=torch.float64), torch.ones(len(rows)).long()))
    assert losses.tolist() == pytest.approx([-reductions.log_softmax(row)[1] for row in rows], rel=1e-9, abs=1e-12)


def test_any_split_over_micro_batches_and_ranks_gives_the_same_gradient():
    logits = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    (whole,) = torch.autograd.grad(sft_loss(token_logprobs(logits, targets)).sum() / 7, logits)
    for cuts in ([7], [1, 6], [2, 2, 3], [1] * 7):
        logits.grad = None
        for rows, wanted in zip(logits.split(cuts), targets.split(cuts), strict=True):
            (sft_loss(token_logprobs(rows, wanted)).sum() / 7).backward(retain_graph=True)
        torch.testing.assert_close(logits.grad, whole)


def test_gradient():
    logprobs = -torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(sft_loss, (logprobs.requires_grad_(),))
    assert sft_loss(logprobs.detach().bfloat16()).dtype == torch.float32


def smoothed(logits, targets, label_smoothing, z_coef):
    """From whole rows of logits."""
    everything = logits.log_softmax(-1)
    return smoothed_sft_loss(
        everything.gather(-1, targets[:, None])[:, 0], everything.mean(-1), logits.logsumexp(-1),
        label_smoothing=label_smoothing, z_coef=z_coef,
    )  # fmt: skip


@given(st.integers(0, 99), st.floats(0, 0.9))
def test_label_smoothing_is_that_of_torch(seed, label_smoothing):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(6, 9, dtype=torch.float64, generator=generator)
    targets = torch.randint(9, (6,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    torch.testing.assert_close(smoothed(logits, targets, label_smoothing, 0.0), expected)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=7), st.floats(0, 0.9), st.floats(0, 1))
def test_the_smoothed_loss_equals_the_loop(row, label_smoothing, z_coef):
    """Minus the sum over the vocabulary of target times log-probability, target mixed with 1/V; plus z log(Z)^2."""
    normaliser = math.log(math.fsum(math.exp(x) for x in row))
    target = [label_smoothing / len(row) + (1 - label_smoothing) * (i == 1) for i in range(len(row))]
    expected = -math.fsum(t * (x - normaliser) for t, x in zip(target, row, strict=True)) + z_coef * normaliser**2
    logits = torch.tensor([row], dtype=torch.float64)
    assert smoothed(logits, torch.tensor([1]), label_smoothing, z_coef).item() == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 99), st.floats(0, 1))
def test_the_z_loss_is_the_squared_logsumexp_of_torch(seed, z_coef):
    logits = 3 * torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    targets = torch.arange(6)
    cross_entropy = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    expected = cross_entropy + z_coef * torch.logsumexp(logits, -1) ** 2
    torch.testing.assert_close(smoothed(logits, targets, 0.0, z_coef), expected)


def test_16_bit_numbers_are_smoothed_in_float32():
    columns = [torch.tensor([x]).bfloat16() for x in (-1.234, -5.678, 9.87)]
    got = smoothed_sft_loss(*columns, label_smoothing=0.3, z_coef=0.1)
    assert torch.equal(got, smoothed_sft_loss(*(x.float() for x in columns), label_smoothing=0.3, z_coef=0.1))
    assert got.dtype == torch.float32


def test_smoothed_gradient():
    logits = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda x: smoothed(x, targets, 0.2, 0.1), (logits,))
