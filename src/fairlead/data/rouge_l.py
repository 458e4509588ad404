"""How much of two texts stands in the same order: ROUGE-L (Lin 2004), and the nearest of many texts. No torch here.

A token is a word, or one character of a script that is written without spaces, its case folded. The longest common
subsequence is counted with one bit per token (Crochemore et al. 2001): a row of the dynamic programme is one addition
of long integers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fairlead.data.filters.texts import words_of
from fairlead.data.shingles import folded


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text ready to be compared: its tokens, and for each the places where it stands, as bits."""

    sequence: tuple[str, ...]
    places: dict[str, int]

    @classmethod
    def of(cls, text: str) -> Self:
        """Those of a text."""
        sequence = tuple(words_of(folded(text)))
        places: dict[str, int] = {}
        for place, token in enumerate(sequence):
            places[token] = places.get(token, 0) | 1 << place
        return cls(sequence, places)


def rouge_l(one: Tokens, other: Tokens) -> float:
    """The F measure, in 0..1: twice the longest common subsequence by the number of all tokens; 0 where one has none.

    Its precision and recall count the same (beta = 1), as in the package rouge-score, without a stemmer.
    """
    total = len(one.sequence) + len(other.sequence)
    return 2 * longest_common(one, other) / total if total else 0.0


def longest_common(one: Tokens, other: Tokens) -> int:
    """Length of the longest common subsequence."""
    whole = (1 << len(one.sequence)) - 1
    row = whole  # a zero for every token of `one` at which the length grows
    for token in other.sequence:
        if places := one.places.get(token):
            matched = row & places
            row = ((row + matched) | (row - matched)) & whole
    return len(one.sequence) - row.bit_count()


class Texts:
    """Texts that new ones are compared with, found by the tokens that they share.

    A text that is like another has `least` tokens in common with it, so it shares one that is left when the commonest
    tokens, fewer than `least` in all, are set aside (prefix filtering, Chaudhuri et al. 2006). Nothing is missed.
    """

    def __init__(self) -> None:
        self._texts: list[tuple[str, Tokens]] = []
        self._with: dict[str, list[int]] = {}

    def add(self, text: str) -> None:
        """To be compared with from now on."""
        tokens = Tokens.of(text)
        for token in tokens.places:
            self._with.setdefault(token, []).append(len(self._texts))
        self._texts.append((text, tokens))

    def like(self, text: str, threshold: float) -> str | None:
        """The first text whose ROUGE-L with this one is at least the threshold; None where all are below it."""
        new = Tokens.of(text)
        for index in self._candidates(new, threshold):
            other, tokens = self._texts[index]
            shorter, longer = sorted((len(new.sequence), len(tokens.sequence)))
            most = 2 * shorter / max(shorter + longer, 1)  # all of the shorter one in order
            if most >= threshold and rouge_l(new, tokens) >= threshold:
                return other
        return None

    def _candidates(self, new: Tokens, threshold: float) -> Sequence[int]:
        """The texts that may be like the new one, in order."""
        # 2 c / (m + n) >= t, and no more than all n are common: c >= t m / (2 - t)
        least = math.ceil(threshold * len(new.sequence) / (2 - threshold) - 1e-9)
        if least <= 0:
            return range(len(self._texts))
        found: set[int] = set()
        for token in sorted(new.places, key=lambda token: -len(self._with.get(token, ()))):
            least -= new.places[token].bit_count()
            if least <= 0:
                found.update(self._with.get(token, ()))
        return sorted(found)
