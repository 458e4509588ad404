"""Splitting rows by prompt, so that nothing measured on was trained on. No torch here."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Message, Preference, Prompt, Record

R = TypeVar("R", Conversation, Preference, Prompt)


@dataclass(frozen=True, slots=True)
class Split(Generic[R]):
    """Records by part, in their original order; how many duplicates were removed; the sha256 of all of it."""

    parts: dict[str, list[R]]
    num_duplicates: int
    digest: str


def normalise_prompt(messages: Sequence[Message]) -> str:
    """The prompt with roles; NFKC, case and white space no longer make a difference."""
    turns = (f"{message.role}: {' '.join(_folded(message.content).split())}" for message in messages)
    return "\n".join(turns)


def split_by_prompt(records: Sequence[R], *, parts: Mapping[str, float | int], seed: int) -> Split[R]:
    """Records shared out so that every prompt lies in one part only.

    Of records with the same normalised prompt the first is kept. `parts` gives for each part a count of records (int)
    or a share (float) of what the counts leave; shares add up to 1. Where a prompt goes depends on a hash of prompt and
    seed, not on its position in the file. Raises UserError when there are fewer records than the counts ask for.
    """
    kept: dict[str, int] = {}
    for index, record in enumerate(records):
        kept.setdefault(normalise_prompt(_prompt(record)), index)
    order = [kept[text] for text in sorted(kept, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())]
    result: dict[str, list[R]] = {}
    start = 0
    for name, size in _sizes(parts, len(order)).items():
        result[name] = [records[index] for index in sorted(order[start : start + size])]
        start += size
    return Split(result, len(records) - len(order), split_digest(result))


def split_digest(parts: Mapping[str, Sequence[Record]]) -> str:
    """sha256 over the records of every part, in order; where they were read from does not count."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(orjson.dumps([name, len(parts[name])]))
        for record in parts[name]:
            digest.update(orjson.dumps(_content(record)))
    return digest.hexdigest()


def _folded(text: str) -> str:
    # Folding the case can leave a form that NFKC would compose, and the other way round
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _prompt(record: Record) -> tuple[Message, ...]:
    return record.messages if isinstance(record, Prompt) else record.prompt


def _content(record: Record) -> list[object]:
    messages = record.prompt if isinstance(record, Preference) else record.messages
    responses = record.responses if isinstance(record, Preference) else ()
    return [type(record).__name__, [[message.role, message.content] for message in messages], list(responses)]


def _sizes(parts: Mapping[str, float | int], total: int) -> dict[str, int]:
    counts = {name: size for name, size in parts.items() if isinstance(size, int)}
    shares = {name: size for name, size in parts.items() if not isinstance(size, int)}
    assert not shares or abs(sum(shares.values()) - 1) < 1e-9, f"shares add up to 1: {shares}"
    left = total - sum(counts.values())
    if left < 0 or (shares and left < len(shares)):
        raise UserError(
            "there are too few rows to split",
            got=f"{total} rows with different prompts",
            want=", ".join(f"{name}: {size}" for name, size in parts.items()),
            fix="give more rows or ask for fewer held-out rows",
            exit_code=ExitCode.BAD_DATA,
        )
    # Rounding the running sum keeps the parts adding up to the whole
    sizes, before, share_before = {}, 0, 0.0
    for name, size in parts.items():
        if name in counts:
            sizes[name] = counts[name]
            continue
        share_before += size
        until = round(left * share_before)
        sizes[name], before = until - before, until
    return sizes
