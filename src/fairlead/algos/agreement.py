"""How well scores agree with labels: correlation, calibration, accuracy by margin, length bias. No torch here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from fairlead.algos.intervals import wilson

NUM_BINS, NUM_GROUPS = 10, 4


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs on which a scorer is about equally sure: `confidence` is what it says on average, `accuracy` what is so."""

    num_pairs: int
    confidence: float
    accuracy: float
    low: float  # 95 % interval of the accuracy
    high: float


@dataclass(frozen=True, slots=True)
class MarginGroup:
    """Pairs whose absolute score differences lie between these two, and how often the better response scores higher."""

    smallest: float
    largest: float
    num_pairs: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How often the longer response of a pair wins, by its score and by the labels; None where no pair differs."""

    num_pairs: int  # of different lengths
    by_score: float | None
    by_label: float | None
    correlation: float | None  # of score and length over all responses


def pearson(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Correlation of two lists of numbers; None where either is constant, or shorter than two."""
    x, y = (np.asarray(values, np.float64) for values in (one, other))
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return None
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Correlation of the ranks, equal numbers sharing the mean of theirs; None as for `pearson`."""
    return pearson(_ranks(one), _ranks(other))


def fisher_interval(correlation: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a correlation of `count` pairs of numbers (Fisher 1921); (-1, 1) for fewer than four."""
    if count < 4:
        return -1.0, 1.0
    if abs(correlation) == 1.0:
        return correlation, correlation
    half = NormalDist().inv_cdf(0.5 + confidence / 2) / math.sqrt(count - 3)
    centre = math.atanh(correlation)
    return math.tanh(centre - half), math.tanh(centre + half)


def reliability(differences: Sequence[float]) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width of the confidence sigmoid(|difference|), 0.5 to 1; empty ones are left out.

    A difference is the chosen response's score minus the rejected one's. By Bradley and Terry's rule its sigmoid is the
    probability that the chosen one is better, so a scorer that knows how much it knows is right as often as it says.
    """
    bins: list[list[float]] = [[] for _ in range(NUM_BINS)]
    for difference in differences:
        share = 2.0 * _confidence(difference) - 1.0
        bins[min(int(share * NUM_BINS), NUM_BINS - 1)].append(difference)
    return tuple(
        ReliabilityBin(len(one), sum(map(_confidence, one)) / len(one), *_accuracy(one)) for one in bins if one
    )


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean over pairs of |accuracy - confidence| of their bin (Guo et al. 2017, eq. 3)."""
    total = sum(one.num_pairs for one in bins)
    return sum(one.num_pairs * abs(one.accuracy - one.confidence) for one in bins) / total


def by_margin(differences: Sequence[float]) -> tuple[MarginGroup, ...]:
    """Accuracy by quarter of the absolute difference, smallest first; groups differ in size by one pair at most."""
    ordered = sorted(differences, key=abs)
    ends = [len(ordered) * i // NUM_GROUPS for i in range(NUM_GROUPS + 1)]
    groups = [ordered[start:end] for start, end in pairwise(ends) if end > start]
    return tuple(MarginGroup(abs(one[0]), abs(one[-1]), len(one), *_accuracy(one)) for one in groups)


def length_bias(
    chosen_scores: Sequence[float],
    rejected_scores: Sequence[float],
    chosen_lengths: Sequence[int],
    rejected_lengths: Sequence[int],
) -> LengthBias:
    """How often length decides: a tie of scores is half a win for the longer response."""
    scores = np.subtract(chosen_scores, rejected_scores, dtype=np.float64)
    lengths = np.subtract(chosen_lengths, rejected_lengths)
    differ = lengths != 0
    count = int(differ.sum())
    won = np.sign(scores[differ]) * np.sign(lengths[differ])
    return LengthBias(
        num_pairs=count,
        by_score=float((won + 1.0).mean() / 2) if count else None,
        by_label=float((lengths[differ] > 0).mean()) if count else None,
        correlation=pearson([*chosen_scores, *rejected_scores], [*chosen_lengths, *rejected_lengths]),
    )


def _confidence(difference: float) -> float:
    return 1.0 / (1.0 + math.exp(-abs(difference)))


def _accuracy(differences: Sequence[float]) -> tuple[float, float, float]:
    """Share of differences above 0, a tie counted half, with its 95 % interval."""
    right = sum(1.0 if one > 0 else 0.5 if one == 0 else 0.0 for one in differences)
    return right / len(differences), *wilson(right, len(differences))


def _ranks(values: Sequence[float]) -> list[float]:
    _, group, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[group].tolist()
