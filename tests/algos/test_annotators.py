"""Agreement and strengths against loops, published numbers, torch's optimizer, and their laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fairlead.algos.annotators import PRIOR, arena, bradley_terry, cohen_kappa, krippendorff_alpha
from oracles import annotators as oracle

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)
units = st.lists(st.lists(st.integers(1, 5).map(float), max_size=4), min_size=1, max_size=12)
counts = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")).filter(lambda pair: pair[0] != pair[1]),
    st.sampled_from([0.5, 1.0, 2.0, 7.0]), min_size=1,
)  # fmt: skip


@given(labels)
def test_kappa_equals_the_loop(pairs):
    one, other = map(list, zip(*pairs, strict=True))
    found = cohen_kappa(one, other)
    if len({*one, *other}) == 1:
        assert found is None
    else:
        assert found == pytest.approx(oracle.kappa(one, other), abs=1e-12)
        assert -1 <= found <= 1 + 1e-12


def test_kappa_published_numbers():
    """Cohen 1960, table 1: 200 cases, frequencies of two judges; kappa 0.492."""
    table = {("A", "A"): 88, ("A", "B"): 14, ("A", "C"): 18, ("B", "A"): 10, ("B", "B"): 40, ("B", "C"): 10,
             ("C", "A"): 2, ("C", "B"): 6, ("C", "C"): 12}  # fmt: skip
    one = [pair[0] for pair, count in table.items() for _ in range(count)]
    other = [pair[1] for pair, count in table.items() for _ in range(count)]
    assert cohen_kappa(one, other) == pytest.approx(0.492, abs=5e-4)


def test_laws_of_kappa():
    assert cohen_kappa([1, 2, 1], [1, 2, 1]) == 1
    assert cohen_kappa([1, 2], [2, 1]) == -1
    assert cohen_kappa([], []) is None
    generator = np.random.default_rng(0)
    one, other = (generator.integers(0, 3, 20_000).tolist() for _ in range(2))
    assert abs(cohen_kappa(one, other)) < 0.02  # 4 standard errors


@given(units, st.sampled_from(["nominal", "ordinal"]))
def test_alpha_equals_the_loop(given_units, level):
    found = krippendorff_alpha(given_units, level=level)
    values = {value for unit in given_units if len(unit) > 1 for value in unit}
    if len(values) < 2:
        assert found is None
    else:
        assert found == pytest.approx(oracle.alpha(given_units, level), abs=1e-9)


def test_alpha_published_numbers():
    """Krippendorff 2011, Computing Krippendorff's alpha-reliability, example C: 4 observers, 12 units, gaps."""
    none = None
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, none, none, none],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, none, 3],
        [none, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, none],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, none],
    ]
    by_unit = [[float(v) for v in unit if v is not None] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(by_unit, level="nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(by_unit, level="ordinal") == pytest.approx(0.815, abs=5e-4)


@given(units, st.sampled_from(["nominal", "ordinal"]))
def test_laws_of_alpha(given_units, level):
    found = krippendorff_alpha(given_units, level=level)
    assert found is None or found <= 1 + 1e-12
    stretched = [[value * 10 for value in unit] for unit in given_units]  # the order is all that counts
    assert krippendorff_alpha(stretched, level=level) == pytest.approx(found)
    agreed = [[unit[0]] * len(unit) for unit in given_units if unit]
    assert krippendorff_alpha(agreed, level=level) in (None, pytest.approx(1))


def by_torch(wins):
    """The likeliest strengths by L-BFGS."""
    models = sorted({model for pair in wins for model in pair})
    strengths = torch.zeros(len(models), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [strengths], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = 2 * PRIOR * torch.nn.functional.softplus(torch.stack([strengths, -strengths])).sum() / 2
        for (first, second), count in wins.items():
            gap = strengths[models.index(first)] - strengths[models.index(second)]
            loss = loss - count * torch.nn.functional.logsigmoid(gap)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = strengths.detach()
    return dict(zip(models, (found - found.mean()).tolist(), strict=True))


@given(counts)
def test_strengths_are_those_of_an_optimizer(wins):
    found, expected = bradley_terry(wins), by_torch(wins)
    for model, strength in found.items():
        assert strength == pytest.approx(expected[model], abs=1e-5)
    assert sum(found.values()) == pytest.approx(0, abs=1e-9)


@given(counts)
def test_no_strength_nearby_is_likelier(wins):
    """Shifting all by a constant leaves the wins alone, so the best shift is sought first."""
    found = bradley_terry(wins)
    shifts = np.linspace(-3, 3, 6001)
    losses = [sum(PRIOR * 2 * math.log(math.cosh((s + x) / 2)) for s in found.values()) for x in shifts]
    best = {model: strength + shifts[int(np.argmin(losses))] for model, strength in found.items()}
    here = oracle.bradley_terry_loss(best, wins, PRIOR)
    for model, strength in best.items():
        for step in (-0.05, 0.05):
            assert oracle.bradley_terry_loss(best | {model: strength + step}, wins, PRIOR) > here - 1e-9


def test_two_models_by_hand():
    """Without prior the odds are the wins: 3 to 1; the prior pulls them a little together."""
    found = bradley_terry({("a", "b"): 3000.0, ("b", "a"): 1000.0})
    assert found["a"] - found["b"] == pytest.approx(math.log(3), abs=1e-3)


def test_a_model_that_never_lost_stays_finite():
    assert 0 < bradley_terry({("a", "b"): 5.0})["a"] < 10
    assert bradley_terry({}) == {}


@given(counts)
def test_laws_of_strengths(wins):
    found = bradley_terry(wins)
    turned = bradley_terry({(loser, winner): count for (winner, loser), count in wins.items()})
    for model, strength in found.items():
        assert turned[model] == pytest.approx(-strength, abs=1e-6)
    assume(len(found) > 1)
    best = max(found, key=found.__getitem__)
    more = bradley_terry(wins | {(best, other): 50.0 for other in found if other != best})
    assert max(more, key=more.__getitem__) == best


def drawn(strengths, num, seed):
    generator = np.random.default_rng(seed)
    names = sorted(strengths)
    comparisons = []
    for _ in range(num):
        first, second = generator.choice(names, 2, replace=False)
        gap = strengths[first] - strengths[second]
        comparisons.append([(str(first), str(second), float(generator.random() < 1 / (1 + math.exp(-gap))))])
    return comparisons


def test_the_arena_finds_what_was_put_in():
    truth = {"a": 1.0, "b": 0.2, "c": -1.2}
    found = arena(drawn(truth, 3000, seed=1), seed=0)
    for model, strength in truth.items():
        assert found[model].low < strength < found[model].high
        assert found[model].high - found[model].low < 0.4
    assert sum(one.num_comparisons for one in found.values()) == 6000


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = {"a": 0.5, "b": -0.5}
    held = [
        found["a"].low <= 0.5 <= found["a"].high
        for found in (arena(drawn(truth, 150, seed=seed), seed=seed, num_resamples=100) for seed in range(100))
    ]
    assert 86 <= sum(held) <= 100  # 95 of 100; fewer than 86 has probability 1e-4


def test_the_arena_is_bradley_terry_over_all_comparisons():
    comparisons = [[("a", "b", 1.0), ("a", "c", 1.0), ("b", "c", 0.5)], [("b", "a", 1.0)]]
    wins = {("a", "b"): 1.0, ("a", "c"): 1.0, ("b", "c"): 0.5, ("c", "b"): 0.5, ("b", "a"): 1.0}
    found = arena(comparisons, seed=0, num_resamples=5)
    for model, strength in bradley_terry(wins).items():
        assert found[model].strength == pytest.approx(strength, abs=1e-9)
    assert {model: one.num_comparisons for model, one in found.items()} == {"a": 2, "b": 2, "c": 1}
    assert arena([], seed=0) == {}
