"""A few rows for a reader, token by token. No torch here."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.data.audit.encoded_rows import AuditedRow
from fairlead.data.chat_template import TokenRole

_MOST_TOKENS = 8  # of one character


@dataclass(frozen=True, slots=True)
class Piece:
    """A token as it is shown, or the few that spell one character; their weight in the loss is 1 if trained, else 0."""

    text: str
    role: TokenRole
    trained: bool
    num_tokens: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One sequence, cut to the longest that is trained on; `num_cut` tokens are missing at its end."""

    title: str
    pieces: tuple[Piece, ...]
    num_cut: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that are shown."""
        return sum(piece.num_tokens for piece in self.pieces)

    @property
    def num_trained(self) -> int:
        """Of these, the tokens with a weight."""
        return sum(piece.num_tokens for piece in self.pieces if piece.trained)


def pick(total: int, count: int, seed: int) -> list[int]:
    """`count` of `total` places, ascending; all where there are not more."""
    return sorted(random.Random(seed).sample(range(total), min(count, total)))  # noqa: S311  which rows a reader sees


def sample_rows(rows: Sequence[AuditedRow], tokenizer: Any, *, max_length: int) -> tuple[Sample, ...]:
    """The rows, as they are shown."""
    return tuple(_sample(row, tokenizer, max_length) for row in rows)


def _sample(row: AuditedRow, tokenizer: Any, max_length: int) -> Sample:
    num_tokens = len(row.encoded.input_ids)
    shown = min(num_tokens, max_length)
    return Sample(row.title, tuple(_pieces(row, tokenizer, shown)), num_tokens - shown)


def _pieces(row: AuditedRow, tokenizer: Any, end: int) -> Iterator[Piece]:
    encoded = row.encoded
    marks = list(zip(encoded.roles, encoded.trained, strict=True))
    at = 0
    while at < end:
        alike = next((i for i in range(at, end) if marks[i] != marks[at]), end)
        width, text = _character(encoded.input_ids[at : min(alike, at + _MOST_TOKENS)], tokenizer)
        yield Piece(text, *marks[at], width)
        at += width


def _character(ids: Sequence[int], tokenizer: Any) -> tuple[int, str]:
    """How many of the tokens spell a whole text, and that text; else one, as <its bytes in the vocabulary>."""
    for width in range(1, len(ids) + 1):
        decoded = tokenizer.decode(list(ids[:width]))
        if decoded and "�" not in decoded:
            return width, decoded
    return 1, f"<{tokenizer.convert_ids_to_tokens(ids[0])}>"
