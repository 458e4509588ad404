import itertools
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


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_equals_the_search(counts, confidence):
    """The proportions that a normal test at this confidence does not reject, found by halving."""
    successes, total = counts
    z, share = NormalDist().inv_cdf(0.5 + confidence / 2), successes / total

    def end(outside):
        inside = share
        for _ in range(80):
            middle = (inside + outside) / 2
            rejected = abs(share - middle) > z * math.sqrt(middle * (1 - middle) / total)
            inside, outside = (inside, middle) if rejected else (middle, outside)
        return inside

    assert wilson(successes, total, confidence) == pytest.approx((end(0.0), end(1.0)), abs=1e-9)


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


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=6), st.integers(0, 99), st.sampled_from([0.5, 0.9]))
def test_bootstrap_equals_the_loop(values, seed, confidence):
    generator, means = np.random.default_rng(seed), []
    for _ in range(50):
        drawn = [values[i] for i in generator.integers(len(values), size=len(values))]
        means.append(math.fsum(drawn) / len(drawn))
    means.sort()

    def quantile(level):
        place = level * (len(means) - 1)
        below = math.floor(place)
        above = min(below + 1, len(means) - 1)
        return means[below] + (place - below) * (means[above] - means[below])

    want = quantile((1 - confidence) / 2), quantile((1 + confidence) / 2)
    got = bootstrap_mean(values, seed=seed, num_resamples=50, confidence=confidence)
    assert got == pytest.approx(want, abs=1e-9)


def test_bootstrap_is_near_all_resamples():
    """Four values have 256 resamples: the interval lies between the quantiles just beside its own."""
    values = [0.0, 1.0, 3.5, 7.25]
    means = sorted(sum(drawn) / 4 for drawn in itertools.product(values, repeat=4))
    low, high = bootstrap_mean(values, seed=3, num_resamples=5000)
    assert np.quantile(means, 0.015) <= low <= np.quantile(means, 0.035)
    assert np.quantile(means, 0.965) <= high <= np.quantile(means, 0.985)


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_mean(generator.normal(size=50), seed=seed, num_resamples=200)
        covered += low <= 0.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_defaults_and_types():
    values = np.random.default_rng(0).normal(size=9).astype(np.float32)
    found = bootstrap_mean(values, seed=1)
    assert found == bootstrap_mean(values.astype(np.float64), seed=1, num_resamples=2000, confidence=0.95)
    assert [type(end) for end in found] == [float, float], "what goes into JSON"


def test_bootstrap_edges():
    assert bootstrap_mean([2.0, 2.0], seed=0) == (2.0, 2.0)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([], seed=0)
