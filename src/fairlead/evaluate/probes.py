"""Signs of a broken policy, read from its responses as token ids: endless text, repetition, drifting length.

Tokens, not words, so that Chinese and English are measured alike.
"""

from collections.abc import Sequence

from fairlead.algos.intervals import wilson
from fairlead.evaluate.summary import Probes

Tokens = Sequence[int]


def distinct_n(rows: Sequence[Tokens], n: int) -> float:
    """Distinct n-grams over all n-grams of all responses (Li et al. 2016, section 5.2); 0 if there is no n-gram.

    It falls as more text is counted, so compare only equal numbers of responses of about equal length.
    """
    if n < 1:
        raise ValueError(f"n={n} is not a positive length")
    grams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def longest_repeat(tokens: Tokens) -> int:
    """Length of the longest span that occurs at least twice without overlap, in tokens; 0 when nothing repeats.

    A span of length k that repeats contains one of length k - 1 that does, so the length is found by bisection.
    """
    row = tuple(tokens)
    low, high = 0, len(row) // 2
    while low < high:
        middle = (low + high + 1) // 2
        if _repeats(row, middle):
            low = middle
        else:
            high = middle - 1
    return low


def _repeats(row: tuple[int, ...], length: int) -> bool:
    first: dict[tuple[int, ...], int] = {}
    for start in range(len(row) - length + 1):
        span = row[start : start + length]
        if start - first.setdefault(span, start) >= length:
            return True
    return False


def mean_length(rows: Sequence[Tokens]) -> float:
    """Mean tokens per response."""
    if not rows:
        raise ValueError("no responses to measure")
    return sum(len(row) for row in rows) / len(rows)


def end_token_rate(finished: Sequence[bool]) -> tuple[float, float, float]:
    """Share of responses that ended by themselves, and its 95 % Wilson interval: (rate, low, high)."""
    if not finished:
        raise ValueError("no responses to measure")
    low, high = wilson(sum(finished), len(finished))
    return sum(finished) / len(finished), low, high


def measure(rows: Sequence[Tokens], finished: Sequence[bool]) -> Probes:
    """All probes of one set of responses. Tokens exclude the end token; `finished` says whether it was produced."""
    if len(rows) != len(finished):
        raise ValueError(f"{len(rows)} responses but {len(finished)} finished flags")
    rate, low, high = end_token_rate(finished)
    repeats = [longest_repeat(row) for row in rows]
    return Probes(
        num_responses=len(rows),
        distinct_1=distinct_n(rows, 1),
        distinct_2=distinct_n(rows, 2),
        longest_repeat=sum(repeats) / len(repeats),
        longest_repeat_max=max(repeats),
        mean_length=mean_length(rows),
        end_token_rate=rate,
        end_token_low=low,
        end_token_high=high,
    )
