"""Splitting rows by prompt, so that nothing measured on was trained on. No torch here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from fairlead.data.shingles import folded
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Record

R = TypeVar("R", Conversation, Preference, Judgement, Prompt)


@dataclass(frozen=True, slots=True)
class Split(Generic[R]):
    """Records by part, in their original order; how many duplicates were removed; the sha256 of all of it."""

    parts: dict[str, list[R]]
    num_duplicates: int
    digest: str


def normalise_prompt(messages: Sequence[Message]) -> str:
    """The prompt with roles; NFKC, case and white space no longer make a difference."""
    turns = (f"{message.role}: {' '.join(folded(message.content).split())}" for message in messages)
    return "\n".join(turns)


def split_by_prompt(
    records: Sequence[R], *, parts: Mapping[str, float | int], seed: int, one_per_prompt: bool = False
) -> Split[R]:
    """Records shared out so that every prompt, with all its records, lies in one part only.

    Of records that are equal in normalised prompt and responses the first is kept; with `one_per_prompt`, of those that
    are equal in the prompt. `parts` gives for each part a count of records (int; whole prompts until it is reached) or
    a share (float) of the prompts that the counts leave; shares add up to 1. Where a prompt goes depends on a hash of
    prompt and seed, not on its position in the file. Raises UserError when there are fewer records than the counts ask
    for.
    """
    prompts: dict[str, dict[tuple[str, ...], int]] = {}  # normalised prompt -> responses -> index of the first
    for index, record in enumerate(records):
        same = prompts.setdefault(normalise_prompt(prompt_of(record)), {})
        same.setdefault(() if one_per_prompt else _responses(record), index)
    order = sorted(prompts, key=lambda text: hashlib.sha256(f"{seed}\n{text}".encode()).digest())
    groups = [list(prompts[text].values()) for text in order]
    result: dict[str, list[R]] = {}
    start = 0
    for name, size in _sizes(parts, [len(group) for group in groups]).items():
        result[name] = [records[index] for index in sorted(i for group in groups[start : start + size] for i in group)]
        start += size
    return Split(result, len(records) - sum(map(len, groups)), split_digest(result))


def without_prompts_of(records: Sequence[R], held_out: Sequence[Record]) -> list[R]:
    """The records whose normalised prompt no held-out record has."""
    known = {normalise_prompt(prompt_of(record)) for record in held_out}
    return [record for record in records if normalise_prompt(prompt_of(record)) not in known]


def split_digest(parts: Mapping[str, Sequence[Record]]) -> str:
    """sha256 over the records of every part, in order; where they were read from does not count."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(orjson.dumps([name, len(parts[name])]))
        for record in parts[name]:
            digest.update(orjson.dumps(_content(record)))
    return digest.hexdigest()


def prompt_of(record: Record) -> tuple[Message, ...]:
    """The messages before the response; a document stands for itself."""
    match record:
        case Document():
            return (Message("user", record.text),)
        case Prompt():
            return record.messages
        case _:
            return record.prompt


def _responses(record: Record) -> tuple[str, ...]:
    match record:
        case Prompt() | Document():
            return ()
        case Preference():
            return record.responses
        case Judgement():
            return (*record.responses, str(record.desirable))
        case Conversation():
            return (record.messages[-1].content,)


def _content(record: Record) -> list[object]:
    judged = isinstance(record, Preference | Judgement)
    messages = prompt_of(record) if judged or isinstance(record, Document) else record.messages
    turns = [[message.role, message.content] for message in messages]
    content: list[object] = [type(record).__name__, turns, list(record.responses) if judged else []]
    match record:
        case Judgement():
            content.append(record.desirable)
        case Preference() if record.grades:
            content.append(list(record.grades))
        case _:
            pass
    return content


def _sizes(parts: Mapping[str, float | int], rows: Sequence[int]) -> dict[str, int]:
    """How many of the prompts, which have these numbers of rows, go to each part: first the counts, then the shares."""
    counts = {name: size for name, size in parts.items() if isinstance(size, int)}
    shares = {name: size for name, size in parts.items() if not isinstance(size, int)}
    assert not shares or abs(sum(shares.values()) - 1) < 1e-9, f"shares add up to 1: {shares}"
    sizes, taken = {}, 0
    for name, count in counts.items():
        sizes[name] = _reaching(count, rows[taken:])
        taken += sizes[name]
    left = len(rows) - taken
    if sum(rows) < sum(counts.values()) or (shares and left < len(shares)):
        raise UserError(
            "there are too few rows to split",
            got=f"{sum(rows)} different rows of {len(rows)} prompts",
            want=", ".join(f"{name}: {size}" for name, size in parts.items()),
            fix="give more rows, or ask for fewer",
            exit_code=ExitCode.BAD_DATA,
        )
    # Rounding the running sum keeps the parts adding up to the whole
    before, share_before = 0, 0.0
    for name, share in shares.items():
        share_before += share
        until = round(left * share_before)
        sizes[name], before = until - before, until
    return sizes


def _reaching(count: int, rows: Sequence[int]) -> int:
    """How many of the first prompts together have at least `count` rows."""
    total = 0
    for number, size in enumerate(rows):
        if total >= count:
            return number
        total += size
    return len(rows)
