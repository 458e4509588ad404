"""Evaluation questions that stand in training data: shared 13-grams, and short questions whole. No torch here.

After GPT-3 (Brown et al. 2020, appendix C): a text is contaminated when it has runs of 13 tokens that a question has,
no fewer than `SHARE` of the question's or `MOSTLY` of its own; one sentence of a long passage is a quotation. Runs that
more than `COMMON` questions have are a benchmark's own template and tell nothing. A question of fewer tokens, but no
fewer than `SHORTEST`, must stand in the text whole; one that is shorter still must be all of it. Texts are compared as
`shingles` cuts them: case, width, spacing and punctuation make no difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.data.benchmark_items import BenchmarkItem
from fairlead.data.shingles import Hashes, Ragged, hash_tokens, runs_of

WIDTH = 13
SHORTEST = 5
COMMON = 10
SHARE = 0.05
MOSTLY = 0.5


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that holds a question, or a part of it."""

    index: int  # of the text
    item: BenchmarkItem
    num_shared: int  # runs of tokens that both have
    num_runs: int  # of the question


class Benchmarks:
    """The questions to look for, indexed by the hashes of their runs."""

    def __init__(self, items: Sequence[BenchmarkItem]) -> None:
        self._items = list(items)
        tokens = hash_tokens([item.text for item in items])
        lengths = np.diff(tokens.offsets)
        widths = np.where(lengths < SHORTEST, 0, np.minimum(lengths, WIDTH))
        self._runs: dict[int, tuple[Hashes, npt.NDArray[np.int64]]] = {}  # width: sorted runs, and whose each is
        self._num_runs = np.zeros(len(items), dtype=np.int64)
        for width in sorted(set(widths[widths > 0].tolist())):
            members = np.flatnonzero(widths == width)
            own = [np.unique(runs_of(tokens.of(index), width)) for index in members.tolist()]
            self._num_runs[members] = [len(runs) for runs in own]
            values, owners = np.concatenate(own), np.repeat(members, [len(runs) for runs in own])
            order = np.argsort(values, kind="stable")
            values, owners = values[order], owners[order]
            _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
            telling = counts[places] <= COMMON
            self._runs[width] = values[telling], owners[telling]
        self._whole: dict[int, list[int]] = {}  # the hash of a very short question: those that read so
        for index in np.flatnonzero((widths == 0) & (lengths > 0)).tolist():
            self._whole.setdefault(_hash_of_all(tokens.of(index)), []).append(index)

    def hits(self, texts: Sequence[str]) -> list[Hit]:
        """Every question that each text holds, in order of the texts, then of the questions."""
        tokens = hash_tokens(texts)
        shared: dict[tuple[int, int], int] = {}
        for width, (values, owners) in self._runs.items():
            for text, item, count in _matches(tokens, width, values, owners):
                shared[text, item] = count
        for text in range(len(texts)) if self._whole else ():
            own = tokens.of(text)
            if 0 < len(own) < SHORTEST:
                shared |= {(text, item): 1 for item in self._whole.get(_hash_of_all(own), ())}
        return [
            Hit(text, self._items[item], count, max(int(self._num_runs[item]), 1))
            for (text, item), count in sorted(shared.items())
            if count >= SHARE * self._num_runs[item] or count >= MOSTLY * (len(tokens.of(text)) - WIDTH + 1)
        ]


def _matches(tokens: Ragged, width: int, values: Hashes, owners: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(text, item, number of runs that both have), for runs of this width."""
    runs = runs_of(tokens.values, width)
    ends = np.repeat(tokens.offsets[1:], np.diff(tokens.offsets))[: len(runs)]
    inside = np.arange(len(runs)) + width <= ends  # no run goes on into the next text
    places = np.searchsorted(values, runs)
    found = np.flatnonzero(inside & (places < len(values)) & (values[np.minimum(places, len(values) - 1)] == runs))
    texts = np.searchsorted(tokens.offsets, found, side="right") - 1
    seen: set[tuple[int, int, int]] = set()
    for text, run in zip(texts.tolist(), runs[found].tolist(), strict=True):
        first = int(np.searchsorted(values, np.uint64(run)))
        last = int(np.searchsorted(values, np.uint64(run), side="right"))
        seen |= {(text, int(owner), run) for owner in owners[first:last]}
    counts: dict[tuple[int, int], int] = {}
    for text, owner, _ in seen:
        counts[text, owner] = counts.get((text, owner), 0) + 1
    return [(text, owner, count) for (text, owner), count in counts.items()]


def _hash_of_all(tokens: Hashes) -> int:
    return int(runs_of(tokens, len(tokens))[0])
