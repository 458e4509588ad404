"""How much of two texts stands in the same order: ROUGE-L (Lin 2004), and the nearest of many texts. No torch here.

A token is a word, or one character of a script that is written without spaces, its case folded. The longest common
subsequence is counted with one bit per token (Crochemore et al. 2001): a row of the dynamic programme is one addition
of long integers.
"""

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
    """Texts that new ones are compared with."""

    def __init__(self) -> None:
        self._texts: list[tuple[str, Tokens]] = []

    def add(self, text: str) -> None:
        """To be compared with from now on."""
        self._texts.append((text, Tokens.of(text)))

    def like(self, text: str, threshold: float) -> str | None:
        """The first text whose ROUGE-L with this one is at least the threshold; None where all are below it."""
        new = Tokens.of(text)
        for other, tokens in self._texts:
            shorter, longer = sorted((len(new.sequence), len(tokens.sequence)))
            most = 2 * shorter / max(shorter + longer, 1)  # all of the shorter one in order
            if most >= threshold and rouge_l(new, tokens) >= threshold:
                return other
        return None
