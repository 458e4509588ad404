import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fairlead.algos.masked import masked_mean, masked_sum, masked_var, segment_sum, upcast, whiten
from oracles import reductions

NUMBERS = st.floats(-10, 10, width=32)
ENTRIES = st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=24)
PUBLISHED = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])


def tensors(entries, rows=1):
    values = torch.tensor([v for v, _ in entries], dtype=torch.float64)
    mask = torch.tensor([m for _, m in entries])
    return values, mask


@given(ENTRIES)
def test_moments_equal_the_loops(entries):
    values, mask = tensors(entries)
    kept = reductions.selected(values.tolist(), mask.tolist())
    assert masked_sum(values, mask).item() == pytest.approx(math.fsum(kept), abs=1e-12)
    if kept:
        assert masked_mean(values, mask).item() == pytest.approx(reductions.mean(kept), abs=1e-12)
        assert masked_var(values, mask).item() == pytest.approx(reductions.population_variance(kept), abs=1e-10)


@given(ENTRIES)
def test_moments_are_those_of_torch(entries):
    values, mask = tensors([*entries, (1.0, True)])
    kept = values[mask]
    torch.testing.assert_close(masked_sum(values, mask), kept.sum())
    torch.testing.assert_close(masked_mean(values, mask), kept.mean())
    torch.testing.assert_close(masked_var(values, mask), kept.var(correction=0))


@given(ENTRIES)
def test_whiten_is_the_layer_norm_of_torch(entries):
    values, mask = tensors([*entries, (1.0, True), (2.0, True)])
    kept = values[mask]
    expected = torch.nn.functional.layer_norm(kept, kept.shape, eps=1e-8)
    torch.testing.assert_close(whiten(values, mask, shift_mean=True)[mask], expected)
    torch.testing.assert_close(whiten(values, mask, shift_mean=False)[mask], expected + kept.mean())


@given(ENTRIES, st.booleans())
def test_whiten_equals_the_loop(entries, shift_mean):
    values, mask = tensors([*entries, (1.0, True), (2.0, True)])
    expected = reductions.whiten(values.tolist(), mask.tolist(), shift_mean)
    torch.testing.assert_close(
        whiten(values, mask, shift_mean=shift_mean), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


def test_whiten_published_matrix():
    whitened = whiten(PUBLISHED, torch.ones(3, 3, dtype=torch.bool), shift_mean=False)
    torch.testing.assert_close(whitened[0], torch.tensor([0.0508, 0.4381, 0.8254]), rtol=0, atol=5e-5)


def test_whiten_shifts_the_mean_only_when_asked():
    mask = torch.ones(3, 3, dtype=torch.bool)
    shifted, kept = whiten(PUBLISHED, mask, shift_mean=True), whiten(PUBLISHED, mask, shift_mean=False)
    assert shifted.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert kept.mean().item() == pytest.approx(1.6, abs=1e-6)
    for whitened in (shifted, kept):
        assert whitened.var(correction=0).item() == pytest.approx(1.0, abs=1e-5)


def test_whiten_in_two_parts_with_shared_moments_equals_the_whole():
    values = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * n + [False] * (5 - n) for n in (5, 1, 3, 0)])
    count = mask.sum()
    mean = (masked_sum(values[:1], mask[:1]) + masked_sum(values[1:], mask[1:])) / count
    var = sum(masked_sum((values[part] - mean).square(), mask[part]) for part in (slice(0, 1), slice(1, 4))) / count
    parts = [
        whiten(values[part], mask[part], shift_mean=True, mean=mean, var=var) for part in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(torch.cat(parts), whiten(values, mask, shift_mean=True))


@pytest.mark.parametrize("junk", [1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("reduce", [masked_sum, masked_mean, masked_var])
def test_what_is_masked_never_matters(reduce, junk):
    mask = torch.tensor([True, False, True, True, False])
    clean = torch.tensor([1.0, 0.0, -2.0, 4.0, 0.0], requires_grad=True)
    dirty = torch.tensor([1.0, junk, -2.0, 4.0, junk], requires_grad=True)
    for values in (clean, dirty):
        reduce(values, mask).backward()
    assert reduce(dirty, mask).item() == reduce(clean, mask).item()
    assert torch.equal(dirty.grad, clean.grad)
    assert torch.equal(whiten(dirty, mask, shift_mean=True), whiten(clean, mask, shift_mean=True))
    assert whiten(dirty, mask, shift_mean=False)[~mask].tolist() == [0.0, 0.0]


def test_nothing_selected():
    values, mask = torch.ones(3), torch.zeros(3, dtype=torch.bool)
    assert masked_sum(values, mask).item() == 0.0
    assert math.isnan(masked_mean(values, mask).item())
    assert math.isnan(masked_var(values, mask).item())


def test_16_bit_values_are_summed_in_float32():
    values = torch.ones(4097, dtype=torch.bfloat16)  # bfloat16 cannot hold 4097
    total = masked_sum(values, torch.ones(4097, dtype=torch.bool))
    assert (total.dtype, total.item()) == (torch.float32, 4097.0)
    assert segment_sum(values, torch.zeros(4097, dtype=torch.int64), 1).tolist() == [4097.0]
    assert upcast(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("function", [masked_var, lambda v, m: whiten(v, m, shift_mean=True)])
def test_16_bit_values_are_centred_in_float32(function):
    values = torch.tensor([100.0, 101.0, 102.5, 7.0]).bfloat16()
    mask = torch.tensor([True, True, True, False])
    assert torch.equal(function(values, mask), function(values.float(), mask))


def test_whitening_takes_no_gradient_from_what_is_masked():
    values = torch.tensor([1.0, math.nan, 3.0, 7.0], requires_grad=True)
    mask = torch.tensor([True, False, True, True])
    (whiten(values, mask, shift_mean=True) * torch.arange(4.0)).sum().backward()
    assert values.grad.isfinite().all()
    assert values.grad[1] == 0.0


@given(st.integers(1, 5).flatmap(lambda s: st.tuples(st.just(s), st.lists(st.tuples(NUMBERS, st.integers(0, s - 1))))))
def test_segment_sum_equals_the_loop(case):
    num_segments, entries = case
    values = torch.tensor([v for v, _ in entries], dtype=torch.float64)
    segment = torch.tensor([s for _, s in entries], dtype=torch.int64)
    expected = reductions.segment_sum(values.tolist(), segment.tolist(), num_segments)
    torch.testing.assert_close(
        segment_sum(values, segment, num_segments), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 4)), min_size=1))
def test_segment_sum_is_the_weighted_bincount_of_torch(entries):
    values = torch.tensor([v for v, _ in entries], dtype=torch.float64)
    segment = torch.tensor([s for _, s in entries], dtype=torch.int64)
    torch.testing.assert_close(segment_sum(values, segment, 5), torch.bincount(segment, weights=values, minlength=5))


def test_gradients():
    values = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.tensor([True, True, False, True, False, True])
    segment = torch.tensor([0, 0, 2, 2, 2, 0])
    for function in (
        lambda v: masked_sum(v, mask),
        lambda v: masked_mean(v, mask),
        lambda v: masked_var(v, mask),
        lambda v: whiten(v, mask, shift_mean=False),
        lambda v: whiten(v, mask, shift_mean=True),
        lambda v: segment_sum(v, segment, 3),
    ):
        assert torch.autograd.gradcheck(function, (values,))


def test_shapes_are_checked_at_run_time_in_tests():
    with pytest.raises(TypeCheckError):
        masked_sum(torch.ones(3), torch.ones(4, dtype=torch.bool))
