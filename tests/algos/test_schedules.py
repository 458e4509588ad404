import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from fairlead.algos.schedules import learning_rate
from oracles import schedules as oracle

KINDS = ["constant", "linear", "cosine"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", [1, 7, 20])
def test_without_warmup_equals_transformers(kind, num_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    oracle = get_scheduler(kind, optimizer, num_warmup_steps=0, num_training_steps=num_steps)
    for step in range(num_steps):
        rate = learning_rate(step, peak=0.3, schedule=kind, warmup_steps=0, num_steps=num_steps)
        assert rate == pytest.approx(oracle.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        oracle.step()


@given(st.sampled_from(KINDS), st.integers(0, 9), st.integers(1, 12))
def test_equals_the_walk(kind, warmup_steps, falling):
    num_steps = warmup_steps + falling
    options = {"peak": 0.7, "schedule": kind, "warmup_steps": warmup_steps, "num_steps": num_steps}
    want = oracle.learning_rates(0.7, kind, warmup_steps, num_steps, num_steps + 1)
    assert [learning_rate(step, **options) for step in range(num_steps + 1)] == pytest.approx(want, abs=1e-9)


@given(st.sampled_from(KINDS), st.integers(0, 9), st.integers(1, 12))
def test_with_warmup_equals_transformers_one_step_on(kind, warmup_steps, falling):
    """transformers begins at a rate of 0, where nothing is learnt: leave that step out."""
    num_steps = warmup_steps + falling
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    name = "constant_with_warmup" if kind == "constant" else kind
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup_steps + 1, num_training_steps=num_steps + 1)
    for step in range(num_steps):
        optimizer.step()
        theirs.step()
        rate = learning_rate(step, peak=0.3, schedule=kind, warmup_steps=warmup_steps, num_steps=num_steps)
        assert rate == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)


def test_by_hand():
    rates = [learning_rate(s, peak=1.0, schedule="linear", warmup_steps=3, num_steps=8) for s in range(9)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    rates = [learning_rate(s, peak=1.0, schedule="cosine", warmup_steps=1, num_steps=5) for s in range(6)]
    assert rates == pytest.approx([0.5, 1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0.0])
    rates = [learning_rate(s, peak=1.0, schedule="constant", warmup_steps=1, num_steps=3) for s in range(4)]
    assert rates == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_stays_at_0_after_the_end(kind):
    options = {"peak": 1.0, "schedule": kind, "warmup_steps": 2, "num_steps": 5}
    assert [learning_rate(step, **options) for step in (5, 6, 9)] == [0.0, 0.0, 0.0]


def test_warmup_may_fill_all_steps():
    rates = [learning_rate(s, peak=1.0, schedule="linear", warmup_steps=2, num_steps=2) for s in range(3)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0])


@given(st.sampled_from(KINDS), st.integers(0, 12), st.integers(1, 12))
def test_rises_to_the_peak_then_never_rises(kind, warmup_steps, num_steps):
    def rate(step):
        return learning_rate(step, peak=2.0, schedule=kind, warmup_steps=warmup_steps, num_steps=num_steps)

    rates = [rate(step) for step in range(num_steps)]
    assert all(0.0 < r <= 2.0 for r in rates)
    assert rates[:warmup_steps] == sorted(rates[:warmup_steps])
    assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)
    if warmup_steps < num_steps:
        assert rates[warmup_steps] == 2.0
        assert rate(num_steps) == (2.0 if kind == "constant" else 0.0)
