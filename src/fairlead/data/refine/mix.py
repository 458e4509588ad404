"""How many rows of each group stay, so that the groups have the shares that were asked for; no row is repeated."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairlead.config.refine import MixConfig
from fairlead.errors import UserError


def rows_to_keep(
    kept: npt.NDArray[np.bool_], group: npt.NDArray[np.int32], names: Sequence[str], order: npt.NDArray[np.uint64],
    config: MixConfig,
) -> npt.NDArray[np.bool_]:  # fmt: skip
    """[N] the rows that stay of those kept so far, the first of each group in the given order.

    A group's share is its weight where weights were given, else n^(1/T) of its n rows (Conneau et al. 2020, section
    3.1, with 1/T for alpha), over the sum of all. The whole is as large as the scarcest group allows, and `config.rows`
    at most.
    """
    counts = np.bincount(group[kept], minlength=len(names))
    quotas = quotas_of(counts, [_weight(name, names, config) for name in names], config)
    ranked = np.flatnonzero(kept)[np.argsort(order[kept], kind="stable")]
    stays = np.zeros_like(kept)
    for number, quota in enumerate(quotas):
        stays[ranked[group[ranked] == number][:quota]] = True
    return stays


def quotas_of(counts: npt.NDArray[np.int64], weights: Sequence[float], config: MixConfig) -> list[int]:
    """Rows of each group, given how many it has."""
    wanted = np.array(weights) if config.weights else np.maximum(counts, 1) ** (1.0 / config.temperature)
    shares = np.where(counts > 0, wanted, 0.0)
    if not shares.any():
        return [0] * len(counts)
    shares = shares / shares.sum()
    there = shares > 0
    total = float((counts[there] / shares[there]).min())
    total = min(total, config.rows) if config.rows else total
    return [int(quota) for quota in np.floor(total * shares + 1e-9)]


def _weight(name: str, names: Sequence[str], config: MixConfig) -> float:
    weights = {entry.rpartition("=")[0]: entry.rpartition("=")[2] for entry in config.weights}
    unknown = [key for key in weights if key not in names]
    if unknown:
        raise UserError(
            "there is no such group", where="mix.weights", got=unknown[0], want=f"one of {', '.join(names)}",
            fix="name a group as the list says",
        )  # fmt: skip
    return float(weights.get(name, 1.0))
