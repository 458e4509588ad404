"""The records of one file, as they are read: layout and columns are settled by its first rows. No torch here."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from fairlead.data.drafts import (
    BadRowError,
    Draft,
    LeftOutError,
    to_conversation,
    to_document,
    to_judgement,
    to_preference,
    to_prompt,
)
from fairlead.data.layouts import LAYOUTS, Kind, Layout, detect
from fairlead.data.sources import Rows, open_rows
from fairlead.data.streams import Row
from fairlead.errors import ExitCode, UserError
from fairlead.records import Record, Rejection

R = TypeVar("R", bound=Record)

SAMPLE_ROWS = 1000  # that decide on the layout of a file
_FINISH: Mapping[Kind, Callable[[Draft, str], Record]] = {
    "conversations": to_conversation,
    "preferences": to_preference,
    "labelled answers": to_judgement,
    "prompts": to_prompt,
    "documents": to_document,
}
_TAKEN_BY: Mapping[Kind, str] = {
    "conversations": "give them to `fairlead sft`, or to `fairlead eval` as --conversations",
    "preferences": "give them to `fairlead reward`, `dpo` or `kto`, or to `fairlead eval` as --preferences",
    "prompts": "give them to `fairlead ppo`, or to `fairlead eval` as --prompts; the others want answers",
    "labelled answers": "give them to `fairlead kto`",
    "documents": "they are texts to pre-train on; give a file of dialogues",
}


@dataclass(frozen=True, slots=True)
class Reading(Generic[R]):
    """What is made of rows of which kinds, and how the user described the file.

    Without `finish` the rows become what their own kind says. columns: names of a known layout -> names in the file.
    """

    finish: Callable[[Draft, str], R] | None
    kinds: tuple[Kind, ...]
    columns: Mapping[str, str] | None = None
    encoding: str | None = None


class RecordStream(Iterator[R | Rejection], Generic[R]):
    """Records and rejections of one file, read as they are asked for, once. `layout` is None where no row is one.

    `notes` tells how the file is read; `left_out` counts, by reason and as far as was read, what is no mistake but
    holds no record of this kind.
    """

    def __init__(self, rows: Rows, layout: Layout | None, outcomes: Iterator[R | Rejection], left_out: Counter[str]):
        self.path, self.notes, self.digest = rows.path, rows.notes, rows.digest
        self.layout, self.left_out = layout, left_out
        self._outcomes = outcomes

    @property
    def kind(self) -> Kind | None:
        """What the rows hold."""
        return self.layout.kind if self.layout else None

    def __next__(self) -> R | Rejection:
        return next(self._outcomes)


def stream_records(path: Path, reading: Reading[R]) -> RecordStream[R]:
    """The records of one file. Raises UserError where its layout is unknown or of another kind."""
    rows = open_rows(path, encoding=reading.encoding)
    numbered = iter(rows)
    sample = list(islice(numbered, SAMPLE_ROWS))
    numbered = chain(sample, numbered)
    parsed = [row for _, row in sample if not isinstance(row, str)]
    if reading.columns:
        parsed = _checked(path, reading.columns, parsed)
        numbered = ((line, _renamed(row, reading.columns)) for line, row in numbered)
    layout = _layout_of(path, len(sample), parsed, reading.kinds)
    if layout is not None and layout.gather:
        numbered = layout.gather(numbered)
    left_out: Counter[str] = Counter()
    finish: Callable[[Draft, str], Any] = reading.finish or (_FINISH[layout.kind] if layout else to_document)
    return RecordStream(rows, layout, _outcomes(rows.path, numbered, layout, finish, left_out), left_out)


def _outcomes(
    path: Path,
    rows: Iterator[tuple[int, Row]],
    layout: Layout | None,
    finish: Callable[[Draft, str], R],
    left_out: Counter[str],
) -> Iterator[R | Rejection]:
    for line, row in rows:
        if isinstance(row, str):
            yield Rejection(str(path), line, row)
            continue
        if layout is None:
            yield Rejection(str(path), line, f"the first {SAMPLE_ROWS} rows cannot be read, so the layout is not known")
            continue
        try:
            drafts: Sequence[Draft | BadRowError] = layout.drafts(row)
        except BadRowError as error:
            drafts = [error]
        for draft in drafts:
            outcome = _outcome(draft, finish, f"{path}:{line}")
            if isinstance(outcome, LeftOutError):
                left_out[str(outcome)] += 1
            elif isinstance(outcome, BadRowError):
                yield Rejection(str(path), line, f"{outcome}{_mixed(row, layout)}")
            else:
                yield outcome


def _outcome(draft: Draft | BadRowError, finish: Callable[[Draft, str], R], source: str) -> R | BadRowError:
    if isinstance(draft, BadRowError):
        return draft
    try:
        return finish(draft, source)
    except BadRowError as error:
        return error


def _mixed(row: dict[str, Any], layout: Layout) -> str:
    other = None if layout.gather else detect(row)
    return f" (this row looks like {other.name}, the file is {layout.name})" if other and other != layout else ""


def _layout_of(path: Path, num_rows: int, parsed: Sequence[dict[str, Any]], kinds: tuple[Kind, ...]) -> Layout | None:
    """The layout of most rows. None where no row could even be parsed: then every row is a rejection already."""
    if not num_rows:
        fix = "name a file with rows"
        raise UserError("the file holds no rows", where=str(path), fix=fix, exit_code=ExitCode.MISSING_INPUT)
    if not parsed:
        return None
    found = Counter(layout.name for layout in map(detect, parsed) if layout is not None)
    if not found:
        raise _unknown(path, parsed[0], kinds)
    name = found.most_common(1)[0][0]
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    if layout.kind not in kinds:
        raise UserError(
            f"this file holds {layout.kind}",
            where=str(path),
            got=f"layout {layout.name} ({layout.looks_like})",
            want=kinds[0],
            fix=_TAKEN_BY[layout.kind],
        )
    return layout


def _unknown(path: Path, row: dict[str, Any], kinds: tuple[Kind, ...]) -> UserError:
    known = "; ".join(f"{layout.name} ({layout.looks_like})" for layout in LAYOUTS if layout.kind in kinds)
    return UserError(
        "the layout of the rows is not known",
        where=str(path),
        got=_keys(row),
        want=f"one of: {known}",
        fix="rename the columns to one of these layouts, or say columns=OURS=YOURS (data.columns in training)",
        exit_code=ExitCode.BAD_DATA,
    )


def _keys(row: dict[str, Any]) -> str:
    return f"the keys {', '.join(map(repr, row)) or 'none'}"


# --- columns of the user's own


def _renamed(row: Row, columns: Mapping[str, str]) -> Row:
    return row if isinstance(row, str) else {ours: row[own] for ours, own in columns.items() if own in row}


def _checked(path: Path, columns: Mapping[str, str], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows under our names, where each column is in at least one of them."""
    missing = [own for own in columns.values() if not any(own in row for row in rows)]
    if missing and rows:
        raise UserError(
            f"no row has the column {', '.join(map(repr, missing))}",
            where=str(path),
            got=_keys(rows[0]),
            want=", ".join(f"{ours}={own}" for ours, own in columns.items()),
            fix="name columns that the file has",
            exit_code=ExitCode.BAD_DATA,
        )
    return [{ours: row[own] for ours, own in columns.items() if own in row} for row in rows]
