import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, embedding, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from fairlead.algos.logprobs import entropy, linear_logprobs, linear_vocabulary, token_logprobs
from oracles import reductions

BARE = {"with_entropy": False}
LOGITS = st.integers(1, 7).flatmap(
    lambda v: st.lists(st.lists(st.floats(-30, 30), min_size=v, max_size=v), min_size=1, max_size=4)
)


@given(LOGITS, st.data(), st.sampled_from([0.3, 1.0, 2.0]))
def test_logprobs_and_entropy_equal_the_loops(rows, data, temperature):
    targets = [data.draw(st.integers(0, len(rows[0]) - 1)) for _ in rows]
    logits = torch.tensor(rows, dtype=torch.float64)
    scaled = [[x / temperature for x in row] for row in rows]
    expected = [reductions.log_softmax(row)[t] for row, t in zip(scaled, targets, strict=True)]
    torch.testing.assert_close(
        token_logprobs(logits, torch.tensor(targets), temperature=temperature),
        torch.tensor(expected, dtype=torch.float64),
    )
    torch.testing.assert_close(
        entropy(logits, temperature=temperature),
        torch.tensor([reductions.entropy(row) for row in scaled], dtype=torch.float64),
        rtol=1e-9,
        atol=1e-12,
    )


@given(LOGITS, st.data(), st.sampled_from([0.3, 1.0, 2.0]))
def test_logprobs_and_entropy_are_those_of_torch(rows, data, temperature):
    targets = torch.tensor([data.draw(st.integers(0, len(rows[0]) - 1)) for _ in rows])
    logits = torch.tensor(rows, dtype=torch.float64)
    oracle = torch.distributions.Categorical(logits=logits / temperature)
    torch.testing.assert_close(token_logprobs(logits, targets, temperature=temperature), oracle.log_prob(targets))
    torch.testing.assert_close(entropy(logits, temperature=temperature), oracle.entropy())


def test_the_temperature_is_1_by_default():
    logits, targets = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([1])
    assert torch.equal(token_logprobs(logits, targets), token_logprobs(logits, targets, temperature=1.0))
    assert not torch.equal(token_logprobs(logits, targets), token_logprobs(logits, targets, temperature=2.0))
    assert torch.equal(entropy(logits), entropy(logits, temperature=1.0))


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, -torch.inf, 0.0]], requires_grad=True)
    logprobs, entropies = token_logprobs(logits, torch.tensor([1, 0])), entropy(logits)
    torch.testing.assert_close(logprobs, torch.tensor([-2e4, -0.6931472]))
    torch.testing.assert_close(entropies, torch.tensor([0.0, 0.6931472]))
    (logprobs.sum() + entropies.sum()).backward()
    assert logits.grad.isfinite().all()


def test_16_bit_logits_are_computed_in_float32():
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.arange(5)
    assert torch.equal(token_logprobs(logits, targets), token_logprobs(logits.float(), targets))
    assert token_logprobs(logits, targets).dtype == entropy(logits).dtype == torch.float32


def test_gradients_of_the_plain_path():
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(lambda x: token_logprobs(x, targets, temperature=0.7), (logits,))
    assert torch.autograd.gradcheck(lambda x: entropy(x, temperature=0.7), (logits,))


# --- straight from the hidden states ---


def head(num_targets=7, width=4, vocabulary=11, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(num_targets)
    hidden = torch.randn(num_targets, width, dtype=torch.float64, generator=generator)
    weight = scale * torch.randn(vocabulary, width, dtype=torch.float64, generator=generator)
    bias = torch.randn(vocabulary, dtype=torch.float64, generator=generator)
    targets = torch.randint(vocabulary, (num_targets,), generator=generator)
    leaves = [x.to(dtype).requires_grad_() for x in (hidden, weight, bias)]
    return *leaves, targets


def plain(hidden, weight, bias, targets, *, temperature):
    logits = linear(hidden, weight, bias)
    return token_logprobs(logits, targets, temperature=temperature), entropy(logits, temperature=temperature)


@pytest.mark.parametrize("num_targets", [0, 1, 7])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_entropy", [True, False])
def test_linear_equals_plain(num_targets, chunk, with_bias, with_entropy):
    hidden, weight, bias, targets = head(num_targets)
    bias = bias if with_bias else None
    leaves = [hidden, weight, bias] if with_bias else [hidden, weight]
    got = linear_logprobs(hidden, weight, bias, targets, temperature=0.7, chunk=chunk, with_entropy=with_entropy)
    expected = plain(hidden, weight, bias, targets, temperature=0.7)
    torch.testing.assert_close(got[0], expected[0])
    assert got[0].requires_grad
    if with_entropy:
        torch.testing.assert_close(got[1], expected[1])
        assert not got[1].requires_grad
    else:
        assert got[1] is None
    seeds = torch.linspace(-1, 2, num_targets, dtype=torch.float64)
    got_grads = torch.autograd.grad(got[0], leaves, seeds)
    expected_grads = torch.autograd.grad(expected[0], leaves, seeds)
    for a, b in zip(got_grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b)


@given(st.integers(1, 9), st.sampled_from([0.5, 1.0]), st.integers(1, 4))
def test_linear_equals_the_loops_and_the_cross_entropy_of_torch(num_targets, temperature, chunk):
    hidden, weight, bias, targets = (x.detach() for x in head(num_targets))
    options = {"temperature": temperature, "chunk": chunk}
    logprobs, entropies = linear_logprobs(hidden, weight, bias, targets, with_entropy=True, **options)
    vocabulary = linear_vocabulary(hidden, weight, bias, targets, **options)
    logits = linear(hidden, weight, bias) / temperature
    torch.testing.assert_close(logprobs, -cross_entropy(logits, targets, reduction="none"))
    for m, target in enumerate(targets.tolist()):
        row = [
            (math.fsum(h * w for h, w in zip(hidden[m].tolist(), line, strict=True)) + b) / temperature
            for line, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        expected = reductions.log_softmax(row)
        assert logprobs[m].item() == pytest.approx(expected[target], rel=1e-9)
        assert entropies[m].item() == pytest.approx(reductions.entropy(row), rel=1e-9)
        found = [numbers[m].item() for numbers in vocabulary]
        normaliser = row[0] - expected[0]
        assert found == pytest.approx([expected[target], math.fsum(expected) / len(row), normaliser], rel=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_linear_gradcheck(chunk):
    hidden, weight, bias, targets = head()

    def logprobs(h, w, b):
        return linear_logprobs(h, w, b, targets, temperature=0.7, chunk=chunk, **BARE)[0]

    assert torch.autograd.gradcheck(logprobs, (hidden, weight, bias))
    assert torch.autograd.gradcheck(lambda h, w: logprobs(h, w, None), (hidden, weight))


@pytest.mark.parametrize("with_entropy", [True, False])
def test_linear_with_extreme_logits(with_entropy):
    """A token that a bias of minus infinity forbids, and logits a thousand apart."""
    hidden, weight = torch.eye(2), torch.tensor([[1e3, 0.0], [0.0, 0.0], [-1e3, 0.0]])
    bias = torch.tensor([0.0, 0.0, -torch.inf])
    hidden.requires_grad_()
    logprobs, entropies = linear_logprobs(
        hidden, weight, bias, torch.tensor([1, 0]), temperature=1.0, chunk=2, with_entropy=with_entropy
    )
    torch.testing.assert_close(logprobs, torch.tensor([-1e3, -0.6931472]))
    if with_entropy:
        torch.testing.assert_close(entropies, torch.tensor([0.0, 0.6931472]))
    logprobs.sum().backward()
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("kept_bytes", [0, 2**20])
def test_linear_in_bfloat16(monkeypatch, kept_bytes):
    monkeypatch.setattr("fairlead.algos.logprobs.KEPT_BYTES", kept_bytes)
    leaves, targets = head(64, 32, 301, torch.bfloat16, scale=0.3)[:3], head(64, 32, 301)[3]
    exact = [x.detach().float().requires_grad_() for x in leaves]
    seeds = torch.ones(64) / 64
    logprobs, entropies = linear_logprobs(*leaves, targets, temperature=1.0, chunk=10, with_entropy=True)
    expected, expected_entropies = plain(*exact, targets, temperature=1.0)
    assert logprobs.dtype == entropies.dtype == torch.float32
    # Logits reach 8, where neighbours in bfloat16 are 2^-5 = 0.03 apart.
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=6e-2)
    torch.testing.assert_close(entropies, expected_entropies, rtol=0, atol=6e-2)
    grads = torch.autograd.grad(logprobs, leaves, seeds)
    for got, want in zip(grads, torch.autograd.grad(expected, exact, seeds), strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.float() - want).norm() < 1e-2 * want.norm()
    # And no worse than the plain path in bfloat16, which rounds the whole sum over targets once.
    plain_grads = torch.autograd.grad(plain(*leaves, targets, temperature=1.0)[0], leaves, seeds)
    for got, other in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(got.float(), other.float(), rtol=2e-2, atol=1e-4)


def test_linear_sums_many_blocks_in_float32(monkeypatch):
    """1024 equal targets, one per block: a sum kept in bfloat16 stops growing at 256 times the first."""
    monkeypatch.setattr("fairlead.algos.logprobs.KEPT_BYTES", 0)
    monkeypatch.setattr("fairlead.algos.logprobs.WEIGHT_BLOCK", 1)
    hidden, weight, bias, targets = head(1, dtype=torch.bfloat16)
    once = torch.autograd.grad(
        linear_logprobs(hidden, weight, bias, targets, temperature=1.0, chunk=1, **BARE)[0].sum(),
        (weight, bias),
    )
    rows = hidden.detach().expand(1024, -1)
    logprobs, _ = linear_logprobs(
        rows, weight, bias, targets.expand(1024), temperature=1.0, chunk=1, with_entropy=False
    )
    for many, one in zip(torch.autograd.grad(logprobs.sum(), (weight, bias)), once, strict=True):
        torch.testing.assert_close(many, 1024 * one, rtol=1e-2, atol=0)  # one rounding to 8 bits


class Produced(TorchDispatchMode):
    """Shape and dtype of every tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.tensors = []

    @property
    def shapes(self):
        return [shape for shape, _ in self.tensors]

    def most_rows(self, width, dtype):
        return max(shape[0] for shape, made in self.tensors if made == dtype and shape[1:] == (width,))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [x for x in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(x)]
        self.tensors += [(tuple(x.shape), x.dtype) for x in made]
        return result


@pytest.mark.parametrize(("trained", "most_bfloat16"), [(False, 5), (True, 10)])
def test_linear_never_holds_all_logits_and_keeps_its_inputs_and_one_number_per_target(
    monkeypatch, trained, most_bfloat16
):
    """In float32 a chunk of them at most; a trained head waits for a block of their gradients, in 16 bits."""
    monkeypatch.setattr("fairlead.algos.logprobs.WEIGHT_BLOCK", 10)
    monkeypatch.setattr("fairlead.algos.logprobs.KEPT_BYTES", 40 * 11 * 2 - 1)
    hidden, weight, bias, targets = head(40, 4, 11, dtype=torch.bfloat16)
    weight.requires_grad_(trained)
    bias.requires_grad_(trained)
    kept = []

    def keep(x):
        kept.append(x)
        return x

    with Produced() as produced:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            logprobs, _ = linear_logprobs(hidden, weight, bias, targets, temperature=1.0, chunk=5, with_entropy=True)
        logprobs.sum().backward()
    inputs = {x.data_ptr() for x in (hidden, weight, bias, targets)}
    assert inputs < {x.data_ptr() for x in kept}
    assert [tuple(x.shape) for x in kept if x.data_ptr() not in inputs] == [(40,)]  # the logarithm of the normaliser
    assert produced.most_rows(11, torch.float32) == 5
    assert produced.most_rows(11, torch.bfloat16) == most_bfloat16
    assert (40, 11) not in produced.shapes


def test_16_bit_logits_are_kept_once_and_become_their_gradients():
    """No second tensor of their size, none in float32; and a second pass through the graph finds the same."""
    hidden, weight, bias, targets = head(40, 4, 11, dtype=torch.bfloat16)
    with Produced() as produced:
        logprobs, _ = linear_logprobs(hidden, weight, bias, targets, temperature=0.7, chunk=5, with_entropy=True)
        first = torch.autograd.grad(logprobs.sum(), (hidden, weight, bias), retain_graph=True)
    assert produced.tensors.count(((40, 11), torch.bfloat16)) == 1
    assert produced.most_rows(11, torch.float32) == 5
    with Produced() as produced:
        again = torch.autograd.grad(logprobs.sum(), (hidden, weight, bias))
    assert produced.most_rows(11, torch.float32) == 5
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other, rtol=2**-7, atol=0)  # two roundings to 8 bits
    with torch.no_grad(), Produced() as produced:
        linear_logprobs(hidden, weight, bias, targets, temperature=0.7, chunk=5, with_entropy=True)
    assert (40, 11) not in produced.shapes


@pytest.mark.parametrize("chunk", [3, 100])
def test_linear_skips_the_gradient_of_a_frozen_head(chunk):
    hidden, weight, bias, targets = head()
    want = torch.autograd.grad(plain(hidden, weight, bias, targets, temperature=1.0)[0].sum(), hidden)[0]
    weight.requires_grad_(False)
    bias.requires_grad_(False)
    logprobs, _ = linear_logprobs(hidden, weight, bias, targets, temperature=1.0, chunk=chunk, **BARE)
    with Produced() as produced:
        logprobs.sum().backward()
    torch.testing.assert_close(hidden.grad, want)
    assert weight.grad is None
    assert bias.grad is None
    assert weight.shape not in produced.shapes


def test_linear_with_only_the_head_trained():
    hidden, weight, bias, targets = head()
    want = torch.autograd.grad(plain(hidden, weight, bias, targets, temperature=1.0)[0].sum(), weight)[0]
    linear_logprobs(hidden.detach(), weight, bias.detach(), targets, temperature=1.0, chunk=3, **BARE)[
        0
    ].sum().backward()
    torch.testing.assert_close(weight.grad, want)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_linear_under_activation_checkpointing(use_reentrant):
    hidden, weight, bias, targets = head()

    def logprobs(h):
        return linear_logprobs(h.tanh(), weight, bias, targets, temperature=0.7, chunk=3, **BARE)[0]

    want = torch.autograd.grad(logprobs(hidden).sum(), (hidden, weight, bias))
    checkpoint(logprobs, hidden, use_reentrant=use_reentrant).sum().backward()
    for leaf, grad in zip((hidden, weight, bias), want, strict=True):
        torch.testing.assert_close(leaf.grad, grad)


def test_linear_with_tied_weights():
    _, weight, _, targets = head()
    inputs = torch.tensor([0, 3, 3, 10, 1, 1, 7])

    def both(function):
        return torch.autograd.grad(function(embedding(inputs, weight).tanh()).sum(), weight)[0]

    got = both(lambda h: linear_logprobs(h, weight, None, targets, temperature=1.0, chunk=3, **BARE)[0])
    torch.testing.assert_close(got, both(lambda h: plain(h, weight, None, targets, temperature=1.0)[0]))


def test_linear_refuses_a_second_derivative():
    hidden, weight, bias, targets = head()
    logprobs, _ = linear_logprobs(hidden, weight, bias, targets, temperature=1.0, chunk=3, **BARE)
    seeds = torch.ones_like(logprobs, requires_grad=True)
    (grad,) = torch.autograd.grad(logprobs, hidden, seeds, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("with_bias", [True, False])
def test_linear_vocabulary_equals_plain(chunk, with_bias):
    hidden, weight, bias, targets = head()
    leaves = [hidden, weight, bias] if with_bias else [hidden, weight]

    def vocabulary(h, w, b=None):
        return linear_vocabulary(h, w, b, targets, temperature=0.7, chunk=chunk)

    logits = linear(*leaves) / 0.7
    everything = logits.log_softmax(-1)
    expected = everything.gather(-1, targets[:, None])[:, 0], everything.mean(-1), logits.logsumexp(-1)
    for got, want in zip(vocabulary(*leaves), expected, strict=True):
        torch.testing.assert_close(got, want)
    assert torch.autograd.gradcheck(vocabulary, leaves)
