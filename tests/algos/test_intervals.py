import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.intervals import bootstrap_mean, wilson


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published_numbers(successes, total, low, high):  # Newcombe 1998, table I, method 3
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_ends_are_one_normal_quantile_away(counts, confidence):
    successes, total = counts
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    low, high = wilson(successes, total, confidence)
    assert 0.0 <= low <= successes / total <= high <= 1.0
    for end in (low, high):
        assert abs(successes / total - end) == pytest.approx(z * math.sqrt(end * (1 - end) / total), abs=1e-7)
    mirrored = wilson(total - successes, total, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_of_nothing_knows_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_bootstrap_is_near_the_normal_interval_and_depends_on_the_seed_only():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap_mean(values.tolist(), seed=1)
    half = 1.96 * values.std() / math.sqrt(len(values))
    # Both ends have a Monte Carlo error of a few percent of the half width.
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    assert (low, high) == bootstrap_mean(values.tolist(), seed=1)
    assert (low, high) != bootstrap_mean(values.tolist(), seed=2)
    narrow = bootstrap_mean(values.tolist(), seed=1, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_mean(generator.normal(size=50), seed=seed, num_resamples=200)
        covered += low <= 0.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_edges():
    assert bootstrap_mean([2.0, 2.0], seed=0) == (2.0, 2.0)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], seed=0)
