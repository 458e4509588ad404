"""Texts as sets of hashed shingles, many at a time: near-duplicates and contamination are found by them. No torch.

A text is folded (NFKC, case), then cut into tokens: a run of letters and digits is one, and so is each character of a
script that is written without spaces, each symbol of mathematics and code. Punctuation and white space only separate.
Digits stay what they are: two sums with different numbers are different texts.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]

TEXTS_AT_ONCE, CHARACTERS_AT_ONCE = 1024, 1 << 19  # bounds of the memory that the steps below take
_SEPARATOR, _IN_WORD, _ALONE = 0, 1, 2
_SYMBOLS = "*/%&#@\\-"  # beside the categories of symbols
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),  # Han
)  # fmt: skip
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2^64
_LONGEST_KEPT = 1 << 22
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))


class Ragged(NamedTuple):
    """Hashes of many texts in one array; those of text i are `values[offsets[i] : offsets[i + 1]]`."""

    values: Hashes
    offsets: Offsets  # one more than there are texts

    def of(self, index: int) -> Hashes:
        """The hashes of one text."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]


def some_at_a_time(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """As many at a time as have together `CHARACTERS_AT_ONCE`, at least one, at most `TEXTS_AT_ONCE`."""
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and (len(batch) == TEXTS_AT_ONCE or size + size_of(item) > CHARACTERS_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    if batch:
        yield batch


def folded(text: str) -> str:
    """NFKC and case no longer make a difference."""
    # Folding the case can leave a form that NFKC would compose, and the other way round
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def hash_tokens(texts: Sequence[str]) -> Ragged:
    """64-bit hashes of the tokens of each text, in order. A word of half a million characters may be taken for two."""
    cut = [_cut(folded(text)) for text in texts]
    hashed = [_hash_pieces(batch) for batch in some_at_a_time(chain.from_iterable(cut), len)]
    num_tokens = np.concatenate([np.zeros(1, dtype=np.int64), *(np.diff(part.offsets) for part in hashed)])
    first_piece = np.cumsum([0, *map(len, cut)])
    values = np.concatenate([np.zeros(0, dtype=np.uint64), *(part.values for part in hashed)])
    return Ragged(values, np.cumsum(num_tokens)[first_piece])


def _cut(text: str) -> list[str]:
    """Pieces of at most `CHARACTERS_AT_ONCE`, cut between tokens."""
    pieces = []
    while len(text) > CHARACTERS_AT_ONCE:
        kinds = _kinds()[np.frombuffer(text[:CHARACTERS_AT_ONCE].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)]
        between = np.flatnonzero(~((kinds[1:] == _IN_WORD) & (kinds[:-1] == _IN_WORD)))
        end = int(between[-1]) + 1 if len(between) else CHARACTERS_AT_ONCE
        pieces.append(text[:end])
        text = text[end:]
    return [*pieces, text]


def _hash_pieces(pieces: Sequence[str]) -> Ragged:
    joined = "\n".join([*pieces, ""])
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    kinds = _kinds()[points]
    in_word, alone = kinds == _IN_WORD, kinds == _ALONE
    before, after = np.zeros_like(in_word), np.zeros_like(in_word)
    before[1:], after[:-1] = in_word[:-1], in_word[1:]
    starts = np.flatnonzero(alone | (in_word & ~before))
    ends = np.flatnonzero(alone | (in_word & ~after)) + 1
    values = _hash_spans(points, starts, ends)
    text_ends = np.cumsum([len(piece) + 1 for piece in pieces], dtype=np.int64)
    return Ragged(values, np.concatenate([[0], np.searchsorted(starts, text_ends)]).astype(np.int64))


def hash_shingles(texts: Sequence[str], width: int) -> Ragged:
    """64-bit hashes of all runs of `width` tokens of each text, repeated ones included.

    A text with fewer tokens has one shingle, all of it; a text without a token has none.
    """
    tokens = hash_tokens(texts)
    counts = np.diff(tokens.offsets)
    runs = runs_of(tokens.values, width)
    num_shingles = np.where(counts >= width, counts - width + 1, np.minimum(counts, 1))
    offsets = np.concatenate([[0], np.cumsum(num_shingles)]).astype(np.int64)
    values = np.zeros(offsets[-1], dtype=np.uint64)
    long = counts >= width
    from_token = np.repeat(tokens.offsets[:-1][long] - offsets[:-1][long], num_shingles[long])
    places = np.flatnonzero(np.repeat(long, num_shingles))
    values[places] = runs[places + from_token]
    for index in np.flatnonzero(~long & (counts > 0)).tolist():
        values[offsets[index]] = runs_of(tokens.of(index), int(counts[index]))[0]
    return Ragged(values, offsets)


def runs_of(tokens: Hashes, width: int) -> Hashes:
    """64-bit hashes of all runs of `width` tokens."""
    powers = _powers(_BASE, width)
    runs = np.zeros(max(len(tokens) - width + 1, 0), dtype=np.uint64)
    for place in range(width):
        runs += tokens[place : place + len(runs)] * powers[place]
    return _mixed(runs)


def jaccard(one: Hashes, other: Hashes) -> float:
    """Share of the different shingles of two texts that both have; 0 where one has none."""
    one, other = np.unique(one), np.unique(other)
    common = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - common
    return common / union if union else 0.0


def _hash_spans(points: npt.NDArray[np.uint32], starts: Offsets, ends: Offsets) -> Hashes:
    """A polynomial in the characters of each span, whatever stands around it, well mixed."""
    weighted = (points.astype(np.uint64) + np.uint64(1)) * _powers(_BASE, len(points))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    return _mixed((sums[ends] - sums[starts]) * _powers(_INVERSE, len(points))[starts])


def _powers(base: np.uint64, count: int) -> Hashes:
    """base^0 .. base^(count - 1) modulo 2^64."""
    length = 1 << max(16, (count - 1).bit_length())  # few lengths, so that few tables are kept
    table = _powers_kept(base, length) if length <= _LONGEST_KEPT else _powers_of(base, length)
    return table[:count]


def _powers_of(base: np.uint64, length: int) -> Hashes:
    factors = np.full(length, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


_powers_kept = lru_cache(maxsize=16)(_powers_of)


def _mixed(values: Hashes) -> Hashes:
    """Every bit depends on every bit (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    """What each code point is to the tokens."""
    kinds = np.zeros(sys.maxunicode + 1, dtype=np.uint8)
    for point in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(point))
        if category[0] in "LNM":
            kinds[point] = _IN_WORD
        elif category[0] == "S":
            kinds[point] = _ALONE
    for symbol in _SYMBOLS:
        kinds[ord(symbol)] = _ALONE
    for first, last in _UNSPACED:
        block = kinds[first : last + 1]
        block[block == _IN_WORD] = _ALONE
    return kinds
