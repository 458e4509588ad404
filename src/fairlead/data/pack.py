"""Filling packed rows: which sequences share one forward pass."""

from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int, *, num_bins: int = 0) -> list[list[int]]:
    """Indices of `lengths` (tokens) grouped into bins, every index exactly once; deterministic.

    With num_bins = 0: as few bins of at most `capacity` tokens as best-fit decreasing finds. With num_bins > 0: exactly
    that many bins (fewer only if there are fewer sequences), none empty, balanced by tokens, whatever the capacity.
    A sequence longer than the capacity gets a bin of its own. Indices ascend in a bin, bins by their first index.
    """
    # Longest first, ties in order of index
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    bins = _balanced(lengths, order, num_bins) if num_bins else _best_fit(lengths, order, capacity)
    return sorted(sorted(group) for group in bins)


def pack_by_prompt(
    lengths: Sequence[int], prompts: Sequence[tuple[int, ...]], capacity: int, *, num_bins: int = 0
) -> list[list[int]]:
    """As `pack`, for sequences that begin with these prompts and lay each prompt out once in a bin.

    Sequences of one prompt go into one bin as far as the capacity reaches, and what they share counts there once. A
    given number of bins goes by whole lengths: it says how many, not how full.
    """
    if num_bins:
        return pack(lengths, capacity, num_bins=num_bins)
    units: list[list[int]] = []  # sequences of one prompt that stay together
    tokens: list[int] = []
    latest: dict[tuple[int, ...], int] = {}
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        unit, own = latest.get(prompt, -1), length - len(prompt)
        if unit < 0 or not prompt or tokens[unit] + own > capacity:
            unit = latest[prompt] = len(units)
            units.append([])
            tokens.append(len(prompt))
        units[unit].append(index)
        tokens[unit] += own
    return sorted(sorted(index for unit in group for index in units[unit]) for group in pack(tokens, capacity))


def _best_fit(lengths: Sequence[int], order: list[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[int] = []  # tokens left in each bin
    for index in order:
        fitting = [b for b, left in enumerate(room) if left >= lengths[index]]
        if fitting:
            best = min(fitting, key=lambda b: (room[b], b))
            bins[best].append(index)
            room[best] -= lengths[index]
        else:
            bins.append([index])
            room.append(capacity - lengths[index])
    return bins


def _balanced(lengths: Sequence[int], order: list[int], num_bins: int) -> list[list[int]]:
    """Each sequence, longest first, into the bin with the fewest tokens, empty bins first (Graham's LPT rule, 1969)."""
    bins: list[list[int]] = [[] for _ in range(min(num_bins, len(lengths)))]
    tokens = [0] * len(bins)
    for index in order:
        least = min(range(len(bins)), key=lambda b: (bool(bins[b]), tokens[b], b))
        bins[least].append(index)
        tokens[least] += lengths[index]
    return bins
