"""Files become records; rows that cannot be used become rejections, and too many stop the run. No torch here."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from fairlead.artifacts.atomic import write_bytes
from fairlead.data.drafts import BadRowError, Draft, to_conversation, to_judgement, to_preference, to_prompt
from fairlead.data.layouts import LAYOUTS, Kind, Layout, detect
from fairlead.data.sources import Row, expand, read_rows, read_rows_and_digest
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Judgement, Preference, Prompt, Rejection

R = TypeVar("R", Conversation, Preference, Judgement, Prompt)

_ALL_KINDS: tuple[Kind, ...] = ("prompts", "conversations", "preferences", "labelled answers")
_TAKEN_BY: Mapping[Kind, str] = {
    "conversations": "give them to `fairlead sft`, or to `fairlead eval` as --conversations",
    "preferences": "give them to `fairlead reward`, `dpo` or `kto`, or to `fairlead eval` as --preferences",
    "prompts": "give them to `fairlead ppo`, or to `fairlead eval` as --prompts; the others want answers",
    "labelled answers": "give them to `fairlead kto`",
}


@dataclass(frozen=True, slots=True)
class Loaded(Generic[R]):
    """What was read. `layouts` and `digests` (sha256 of the file) are by path; `num_rows` counts rejections too."""

    records: tuple[R, ...]
    layouts: Mapping[str, str]
    rejections: tuple[Rejection, ...]
    num_rows: int
    digests: Mapping[str, str]


def read_conversations(
    paths: Iterable[Path | str], *, rejects: Path | None = None, max_reject_rate: float = 0.01
) -> Loaded[Conversation]:
    """Dialogues to imitate, from the files and folders named.

    Rows that cannot be used are written to `rejects`, one JSON object a line. Raises UserError for a file that is
    missing, empty, unreadable, of an unknown layout or of another kind, and for too many unusable rows.
    """
    return _read(paths, to_conversation, ("conversations",), rejects, max_reject_rate)


def read_preferences(
    paths: Iterable[Path | str], *, rejects: Path | None = None, max_reject_rate: float = 0.01
) -> Loaded[Preference]:
    """Prompts with ranked responses; otherwise as `read_conversations`."""
    return _read(paths, to_preference, ("preferences",), rejects, max_reject_rate)


def read_judgements(
    paths: Iterable[Path | str], *, rejects: Path | None = None, max_reject_rate: float = 0.01
) -> Loaded[Judgement]:
    """Answers with a label, or the best and the worst of ranked responses; otherwise as `read_conversations`."""
    return _read(paths, to_judgement, ("labelled answers", "preferences"), rejects, max_reject_rate)


def read_prompts(
    paths: Iterable[Path | str], *, rejects: Path | None = None, max_reject_rate: float = 0.01
) -> Loaded[Prompt]:
    """Prompts from rows of any kind, whose answers are left out; otherwise as `read_conversations`."""
    return _read(paths, to_prompt, _ALL_KINDS, rejects, max_reject_rate)


def kind_of(path: Path | str) -> Kind:
    """What the rows of a file hold, or those of a folder's first file.

    UserError as in `read_conversations`, and where no row can be parsed.
    """
    first = expand([path])[0]
    rows = [row for _, row in read_rows(first)]
    layout = _layout_of(first, rows, _ALL_KINDS)
    if layout is None:
        reason = next(row for row in rows if isinstance(row, str))
        fix = "mend the file, or save it again in one of the known formats"
        raise UserError(f"no row can be read: {reason}", where=str(first), fix=fix, exit_code=ExitCode.BAD_DATA)
    return layout.kind


def check_rejections(
    rejections: Sequence[Rejection], num_rows: int, *, max_reject_rate: float, rejects: Path | None = None
) -> None:
    """Raise UserError where the share of unusable rows exceeds the limit."""
    if len(rejections) <= max_reject_rate * num_rows:
        return
    reasons = Counter(rejection.reason for rejection in rejections).most_common(3)
    first = rejections[0]
    raise UserError(
        f"{len(rejections)} of {num_rows} rows cannot be used",
        where=f"{first.path}:{first.line}",
        got="; ".join(f"{count} × {reason}" for reason, count in reasons),
        want=f"at most {max_reject_rate:.2%} unusable rows",
        fix=f"mend the rows listed in {rejects}, or raise data.max_reject_rate" if rejects else "mend those rows",
        exit_code=ExitCode.BAD_DATA,
    )


def write_rejections(path: Path, rejections: Iterable[Rejection]) -> None:
    """Write one JSON object per rejection, atomically."""
    lines = (orjson.dumps(asdict(rejection), option=orjson.OPT_APPEND_NEWLINE) for rejection in rejections)
    write_bytes(path, b"".join(lines))


def _read(
    paths: Iterable[Path | str],
    finish: Callable[[Draft, str], R],
    kinds: tuple[Kind, ...],
    rejects: Path | None,
    max_reject_rate: float,
) -> Loaded[R]:
    records: list[R] = []
    rejections: list[Rejection] = []
    layouts: dict[str, str] = {}
    digests: dict[str, str] = {}
    num_rows = 0
    for path in expand(paths):
        rows, digests[str(path)] = read_rows_and_digest(path)
        numbered = list(rows)
        layout = _layout_of(path, [row for _, row in numbered], kinds)
        num_rows += len(numbered)
        if layout is not None:
            layouts[str(path)] = layout.name
        for line, row in numbered:
            outcome = _record(row, layout, finish, path, line)
            if isinstance(outcome, Rejection):
                rejections.append(outcome)
            else:
                records.append(outcome)
    if rejects is not None:
        write_rejections(rejects, rejections)
    check_rejections(rejections, num_rows, max_reject_rate=max_reject_rate, rejects=rejects)
    return Loaded(tuple(records), layouts, tuple(rejections), num_rows, digests)


def _record(row: Row, layout: Layout | None, finish: Callable[[Draft, str], R], path: Path, line: int) -> R | Rejection:
    if isinstance(row, str):
        return Rejection(str(path), line, row)
    assert layout is not None, "a file with a parsed row has a layout"
    try:
        return finish(layout.draft(row), f"{path}:{line}")
    except BadRowError as error:
        other = detect(row)
        mixed = f" (this row looks like {other.name}, the file is {layout.name})" if other and other != layout else ""
        return Rejection(str(path), line, f"{error}{mixed}")


def _layout_of(path: Path, rows: Sequence[Row], kinds: tuple[Kind, ...]) -> Layout | None:
    """The layout of most rows. None where no row could even be parsed: then every row is a rejection already."""
    parsed = [row for row in rows if not isinstance(row, str)]
    if not rows:
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
        got=f"the keys {', '.join(map(repr, row)) or 'none'}",
        want=f"one of: {known}",
        fix="rename the columns to one of these layouts",
        exit_code=ExitCode.BAD_DATA,
    )
