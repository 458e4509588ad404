"""Near-duplicates by MinHash and locality-sensitive hashing, each verified by its true Jaccard similarity. No torch.

Broder 1997 for MinHash; Indyk and Motwani 1998 for the bands: two texts of similarity s share a band of `ROWS` hashes
with probability s^ROWS, and become candidates with 1 - (1 - s^ROWS)^BANDS. What the sketch proposes the shingles
decide, so nothing is removed by an estimate. The sketch itself is rensa's (Rust).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rensa import RMinHash  # pyrefly: ignore[missing-module-attribute]  - a Rust module without stubs

from fairlead.data.shingles import Hashes, hash_shingles, jaccard, some_at_a_time

BANDS, ROWS = 20, 5  # half of all pairs of similarity 0.55 are candidates, 99.96 % of those of 0.8
MOST_COMPARED = 64  # candidates of one text
COMPARED_AT_ONCE = 128  # texts that are read again together
_SEED = 1
_ALONE = np.uint64(0)  # the key of a text without shingles, which is like no other

Keys = npt.NDArray[np.uint64]  # [N, BANDS]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A text that is like an earlier one that is kept."""

    index: int
    of: int
    similarity: float


def candidate_probability(similarity: float) -> float:
    """Probability that two texts of this Jaccard similarity are compared at all."""
    return 1.0 - (1.0 - similarity**ROWS) ** BANDS


def band_keys(texts: Sequence[str], *, width: int) -> Keys:
    """One key per text and band; texts that agree in a band are candidates."""
    shingles = hash_shingles(texts, width)
    offsets = shingles.offsets.astype(np.uint64)
    sketch = RMinHash.digest_matrix_from_flat_token_hashes(shingles.values, offsets, BANDS * ROWS, _SEED)
    digests = np.array(sketch.to_rows(), dtype=np.uint64).reshape(len(texts), BANDS, ROWS)
    keys = np.zeros((len(texts), BANDS), dtype=np.uint64)
    for row in range(ROWS):  # a polynomial in the digests, whose high bits depend on all of them
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + digests[:, :, row] + np.uint64(1)
    keys[np.diff(shingles.offsets) == 0] = _ALONE
    return keys


def all_band_keys(texts: Iterable[str], *, width: int) -> Keys:
    """`band_keys` of a stream, some texts at a time."""
    parts = [band_keys(batch, width=width) for batch in some_at_a_time(texts, len)]
    return np.concatenate(parts) if parts else np.zeros((0, BANDS), dtype=np.uint64)


def near_duplicates(
    keys: Keys, texts_at: Callable[[Sequence[int]], Sequence[str]], *, threshold: float, width: int
) -> list[Duplicate]:
    """The texts that are like an earlier kept one, in order: Jaccard similarity of their shingles >= threshold.

    `keys` are `band_keys` of all texts; `texts_at` reads texts again by their indices, ascending. The first of its kind
    is kept; a text is compared only with kept ones, so likeness does not travel along a chain. Memory holds some texts
    at a time, and the shingles of the kept ones of a group that others may still be compared with.
    """
    found: list[Duplicate] = []
    for groups in _batches(_groups(keys)):
        candidates = _Candidates(keys)  # texts of different groups share no band
        held: dict[int, Hashes] = {}
        for index, own in _shingles(groups, texts_at, width):
            best = Duplicate(index, -1, 0.0)
            for other in candidates.of(index):
                similarity = _similarity(own, held[other], threshold)
                if similarity > best.similarity:
                    best = Duplicate(index, other, similarity)
            if best.of >= 0:
                found.append(best)
            elif candidates.add(index):
                held[index] = own
    return sorted(found, key=lambda duplicate: duplicate.index)


def clusters(
    keys: Keys, texts_at: Callable[[Sequence[int]], Sequence[str]], *, threshold: float, width: int
) -> npt.NDArray[np.int64]:
    """For each text the first text that it is linked to by a chain of similar ones, itself where there is none.

    Other than in `near_duplicates` likeness travels along chains: what is to lie on one side of a split lies together.
    """
    first = np.arange(len(keys), dtype=np.int64)
    for groups in _batches(_groups(keys)):
        candidates = _Candidates(keys)
        held: dict[int, Hashes] = {}
        for index, own in _shingles(groups, texts_at, width):
            for other in candidates.of(index):
                one, another = _root(first, index), _root(first, other)
                if one != another and _similarity(own, held[other], threshold):
                    first[max(one, another)] = min(one, another)
            if candidates.add(index):
                held[index] = own
    return np.array([_root(first, index) for index in range(len(first))], dtype=np.int64)


def _shingles(
    groups: Sequence[Sequence[int]], texts_at: Callable[[Sequence[int]], Sequence[str]], width: int
) -> Iterator[tuple[int, Hashes]]:
    """Each text of the groups, ascending, with its different shingles."""
    indices = sorted(index for group in groups for index in group)
    for start in range(0, len(indices), COMPARED_AT_ONCE):
        some = indices[start : start + COMPARED_AT_ONCE]
        shingles = hash_shingles(texts_at(some), width)
        yield from ((index, np.unique(shingles.of(place))) for place, index in enumerate(some))


class _Candidates:
    """Texts that were added, found again by the bands that they share with another.

    A text is compared with the `MOST_COMPARED` that share most bands with it, and a band remembers that many:
    thousands of rows of one template would else be compared each with each. Two texts of similarity 0.8 share 6.6
    bands on average.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._with: dict[tuple[int, int], list[int]] = {}

    def of(self, index: int) -> list[int]:
        """Those to compare with, the likeliest first."""
        shared = Counter(other for band in self._bands(index) for other in self._with.get(band, ()))
        return [other for other, _ in sorted(shared.items(), key=lambda one: (-one[1], one[0]))[:MOST_COMPARED]]

    def add(self, index: int) -> bool:
        """To be found from now on; whether a band had room for it."""
        added = False
        for band in self._bands(index):
            members = self._with.setdefault(band, [])
            if len(members) < MOST_COMPARED:
                members.append(index)
                added = True
        return added

    def _bands(self, index: int) -> list[tuple[int, int]]:
        return list(enumerate(self._keys[index].tolist()))


def _similarity(one: Hashes, other: Hashes, threshold: float) -> float:
    """Their Jaccard similarity, or 0 where it is below the threshold; sizes alone often tell."""
    small, large = sorted((len(one), len(other)))
    if not small or small < threshold * large:
        return 0.0
    similarity = jaccard(one, other)
    return similarity if similarity >= threshold else 0.0


def _groups(keys: Keys) -> list[list[int]]:
    """Texts that are linked by equal keys of a band, over any number of others; each group ascends."""
    parent = np.arange(len(keys), dtype=np.int64)
    for band in range(keys.shape[1]):
        column = keys[:, band]
        order = np.argsort(column, kind="stable")
        same = (column[order[1:]] == column[order[:-1]]) & (column[order[1:]] != _ALONE)
        for place in np.flatnonzero(same).tolist():
            one, other = _root(parent, int(order[place])), _root(parent, int(order[place + 1]))
            if one != other:
                parent[max(one, other)] = min(one, other)
    members: dict[int, list[int]] = {}
    linked = {_root(parent, index) for index in np.flatnonzero(parent != np.arange(len(parent))).tolist()}
    if linked:
        for index in range(len(parent)):
            first = _root(parent, index)
            if first in linked:
                members.setdefault(first, []).append(index)
    return list(members.values())


def _root(parent: npt.NDArray[np.int64], index: int) -> int:
    """The first of the linked; the way there is halved on the way."""
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def _batches(groups: Iterable[list[int]]) -> Iterator[list[list[int]]]:
    """Groups that together have about `COMPARED_AT_ONCE` texts."""
    batch: list[list[int]] = []
    count = 0
    for group in groups:
        batch.append(group)
        count += len(group)
        if count >= COMPARED_AT_ONCE:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch
