import math
import random
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fairlead.algos.agreement import (
    NUM_BINS,
    by_margin,
    calibration_error,
    fisher_interval,
    length_bias,
    pearson,
    reliability,
    spearman,
)
from fairlead.algos.intervals import wilson
from oracles import agreement as oracle

SCORES = st.floats(-30, 30).map(lambda x: round(x, 3))
DIFFERENCES = st.lists(SCORES, min_size=1, max_size=40)
COLUMNS = st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=20)


@given(COLUMNS)
def test_correlations_equal_the_loops(rows):
    one, other = zip(*rows, strict=True)
    assume(len(set(one)) > 1)
    assume(len(set(other)) > 1)
    assert pearson(one, other) == pytest.approx(oracle.pearson(one, other), abs=1e-9)
    assert spearman(one, other) == pytest.approx(oracle.spearman(one, other), abs=1e-9)


@given(COLUMNS)
def test_laws_of_correlations(rows):
    one, other = zip(*rows, strict=True)
    for correlate in (pearson, spearman):
        assert correlate(one, other) == correlate(other, one)
        if (found := correlate(one, other)) is None:
            assert len(set(one)) == 1 or len(set(other)) == 1
            continue
        assert -1 <= found <= 1
        assert correlate([3 * a - 1 for a in one], other) == pytest.approx(found, abs=1e-9)
        assert correlate([-a for a in one], other) == pytest.approx(-found, abs=1e-9)
        assert correlate(one, one) == pytest.approx(1.0)
    monotone = [math.atan(a) for a in one]
    assert spearman(monotone, other) == spearman(one, other)


def test_what_is_constant_correlates_with_nothing():
    assert pearson([1.0, 1.0], [1.0, 2.0]) is None
    assert pearson([1.0], [2.0]) is None
    assert spearman([], []) is None


def test_a_perfect_correlation_is_1_whatever_rounding_makes_of_it():
    one, other = [0.0, 2.0, 3.0], [0.0, 10.0, 15.0]  # 1.0000000000000002 in float64
    assert pearson(one, other) == 1.0
    assert pearson(one, [-a for a in other]) == -1.0


def test_fisher_interval():
    low, high = fisher_interval(0.5, 28)  # atanh(0.5) = 0.5493, half width 1.96 / 5
    assert (low, high) == (
        pytest.approx(math.tanh(0.5493 - 0.391993), abs=1e-4),
        pytest.approx(math.tanh(0.5493 + 0.391993), abs=1e-4),
    )
    assert fisher_interval(0.9, 3) == (-1.0, 1.0)
    assert fisher_interval(0.0, 4) == (pytest.approx(-math.tanh(1.959964)), pytest.approx(math.tanh(1.959964)))
    assert fisher_interval(1.0, 9) == (1.0, 1.0)
    assert fisher_interval(-1.0, 9) == (-1.0, -1.0)
    assert fisher_interval(-0.5, 28) == (pytest.approx(-high), pytest.approx(-low))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """500 samples of 30 pairs of normal numbers whose correlation is 0.6."""
    draw, truth, held = random.Random(3), 0.6, 0
    for _ in range(500):
        one = [draw.gauss(0, 1) for _ in range(30)]
        other = [truth * a + math.sqrt(1 - truth**2) * draw.gauss(0, 1) for a in one]
        low, high = fisher_interval(pearson(one, other), 30)
        held += low <= truth <= high
    assert 0.92 < held / 500 < 0.975


def on_an_edge(difference):
    """Whether rounding decides in which bin it is."""
    edges = 2 * NUM_BINS * oracle.confidence(difference)
    return difference != 0 and round(edges) < 2 * NUM_BINS and abs(edges - round(edges)) < 1e-9


@given(DIFFERENCES)
def test_reliability_equals_the_loop(differences):
    assume(not any(map(on_an_edge, differences)))
    found = [(one.num_pairs, one.confidence, one.accuracy) for one in reliability(differences)]
    assert found == [pytest.approx(one) for one in oracle.reliability(differences, NUM_BINS)]
    error = calibration_error(reliability(differences))
    assert error == pytest.approx(oracle.calibration_error(differences, NUM_BINS))
    assert 0 <= error <= 1
    for one in reliability(differences):
        assert (one.low, one.high) == wilson(one.accuracy * one.num_pairs, one.num_pairs)


def test_there_are_ten_bins_of_one_width():
    sure = [0.5 + (i + 0.5) / 40 for i in range(20)]
    assert [one.num_pairs for one in reliability([math.log(p / (1 - p)) for p in sure])] == [2] * 10


def test_the_surest_and_the_least_sure_have_bins():
    least, most = reliability([0.0, 1e4])
    assert (least.num_pairs, least.confidence, least.accuracy) == (1, 0.5, 0.5)
    assert (most.num_pairs, most.confidence, most.accuracy) == (1, 1.0, 1.0)
    (wrong,) = reliability([-1e4])
    assert calibration_error([wrong]) == 1.0, "sure and wrong"


def test_a_scorer_that_knows_how_sure_it_is_has_no_calibration_error():
    """20,000 pairs whose labels follow the sigmoid of their difference; twice the difference claims too much."""
    draw = random.Random(5)
    differences = [draw.gauss(0, 2) for _ in range(20_000)]
    labelled = [d if draw.random() < 1 / (1 + math.exp(-d)) else -d for d in differences]
    assert calibration_error(reliability(labelled)) < 0.02
    assert calibration_error(reliability([2 * d for d in labelled])) > 0.05


@given(DIFFERENCES)
def test_quarters_share_the_pairs_out_by_margin(differences):
    groups = by_margin(differences)
    sizes = [one.num_pairs for one in groups]
    assert sum(sizes) == len(differences)
    assert max(sizes) - min(sizes) <= 1
    assert len(groups) == min(4, len(differences))
    position = 0
    for one, size in zip(groups, sizes, strict=True):
        inside = sorted(differences, key=abs)[position : position + size]
        position += size
        assert (one.smallest, one.largest) == (min(map(abs, inside)), max(map(abs, inside)))
        assert one.accuracy == pytest.approx(sum(map(oracle.credit, inside)) / size)
        assert (one.low, one.high) == wilson(sum(map(oracle.credit, inside)), size)


@given(st.lists(st.tuples(SCORES, SCORES, st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=20))
def test_length_bias_equals_the_loop(pairs):
    chosen, rejected, chosen_lengths, rejected_lengths = zip(*pairs, strict=True)
    found = length_bias(chosen, rejected, chosen_lengths, rejected_lengths)
    count, by_score, by_label = oracle.longer_wins(chosen, rejected, chosen_lengths, rejected_lengths)
    assert found.num_pairs == count
    assert (found.by_score, found.by_label) == (pytest.approx(by_score), pytest.approx(by_label))
    assert found.correlation == pearson([*chosen, *rejected], [*chosen_lengths, *rejected_lengths])


def test_a_scorer_that_only_likes_length_shows():
    draw = random.Random(1)
    lengths = [(draw.randint(1, 50), draw.randint(51, 99)) for _ in range(30)]
    chosen, rejected = zip(*lengths, strict=True)  # people prefer the shorter one
    found = length_bias(chosen, rejected, chosen, rejected)
    assert (found.by_score, found.by_label, found.correlation) == (1.0, 0.0, pytest.approx(1.0))


def test_results_are_pythons_own_numbers_and_do_not_change():
    """As JSON holds them and messages print them."""
    (least,), (group,) = reliability([0.0]), by_margin([2.0])
    bias = length_bias([1.0, 2.0], [0.0, 1.0], [3, 5], [2, 6])
    assert type(bias.num_pairs) is int
    assert {type(one) for one in (bias.by_score, bias.by_label, bias.correlation)} == {float}
    for result, field in ((least, "accuracy"), (group, "accuracy"), (bias, "by_score")):
        with pytest.raises(FrozenInstanceError):
            setattr(result, field, 1.0)


# --- numpy's own, as a second opinion


@given(COLUMNS)
def test_correlations_in_numpy(rows):
    one, other = map(np.array, zip(*rows, strict=True))
    assume(min(len(set(one)), len(set(other))) > 1)
    assert pearson(one.tolist(), other.tolist()) == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-9)
    ranks = [np.unique(column, return_inverse=True)[1] for column in (one, other)]
    assume(all(len(set(rank)) == len(rank) for rank in ranks))  # without ties a rank is a place in the order
    assert spearman(one.tolist(), other.tolist()) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)


@given(DIFFERENCES)
def test_reliability_and_quarters_in_numpy(differences):
    assume(not any(map(on_an_edge, differences)))
    right = (np.sign(differences) + 1) / 2
    sure = 1 / (1 + np.exp(-np.abs(differences)))
    edges = np.linspace(0.5, 1, NUM_BINS + 1)
    place = np.clip(np.digitize(sure, edges) - 1, 0, NUM_BINS - 1)
    counts, accuracy, confidence = (np.bincount(place, w, NUM_BINS) for w in (None, right, sure))
    held = counts > 0
    bins = reliability(differences)
    assert [one.num_pairs for one in bins] == counts[held].tolist()
    assert [one.accuracy for one in bins] == pytest.approx((accuracy / counts.clip(1))[held])
    assert calibration_error(bins) == pytest.approx(np.abs(accuracy - confidence).sum() / len(differences))
    quarters = np.array_split(right[np.argsort(np.abs(differences), kind="stable")], min(4, len(differences)))
    if len({abs(d) for d in differences}) == len(differences):
        assert sorted(one.num_pairs for one in by_margin(differences)) == sorted(map(len, quarters))
        if len(differences) % len(quarters) == 0:
            assert [one.accuracy for one in by_margin(differences)] == pytest.approx([q.mean() for q in quarters])


@given(st.lists(st.tuples(SCORES, SCORES, st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=20))
def test_length_bias_in_numpy(pairs):
    chosen, rejected, long, short = np.array(pairs).T
    sign = np.sign(long - short)
    lengths = (column.astype(int).tolist() for column in (long, short))
    found = length_bias(chosen.tolist(), rejected.tolist(), *lengths)
    differs = sign != 0
    assert found.num_pairs == differs.sum()
    if differs.any():
        assert found.by_score == pytest.approx(((np.sign(chosen - rejected) * sign)[differs] + 1).mean() / 2)
        assert found.by_label == pytest.approx((sign[differs] + 1).mean() / 2)
