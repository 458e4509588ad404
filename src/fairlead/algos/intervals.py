"""Confidence intervals for what is measured. No torch here."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def wilson(successes: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927), without continuity correction; (0, 1) when nothing was counted.

    `successes` may hold halves: a tie is half a success.
    """
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / total
    scale = 1 / (1 + z * z / total)
    centre = (share + z * z / (2 * total)) * scale
    half = z * scale * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    # Exact at the ends, where rounding would miss 0 and 1.
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == total else centre + half


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, seed: int, num_resamples: int = 2000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979). Raises ValueError without values."""
    if len(values) == 0:
        raise ValueError("bootstrap_mean got no values; it needs at least one")
    sample = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    # One resample at a time: all at once would need num_resamples times the memory.
    means = [sample[generator.integers(len(sample), size=len(sample))].mean() for _ in range(num_resamples)]
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
