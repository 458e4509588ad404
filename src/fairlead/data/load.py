"""Files become records; rows that cannot be used become rejections, and too many stop the run. No torch here."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson

from fairlead.artifacts.atomic import write_bytes
from fairlead.config.common import RowKind
from fairlead.data.drafts import to_conversation, to_document, to_judgement, to_preference, to_prompt
from fairlead.data.layouts import Kind
from fairlead.data.record_stream import Reading, RecordStream, stream_records
from fairlead.data.sources import expand
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Document, Judgement, Preference, Prompt, Record, Rejection

R = TypeVar("R", bound=Record)

DIALOGUES: tuple[Kind, ...] = ("prompts", "conversations", "preferences", "labelled answers")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[R]):
    """What was read. `num_rows` counts records and rejections.

    `layouts`, `digests` (sha256 of the file) and `notes` (what there is to tell about how it was read) are by path.
    `left_out` counts, by reason, what is no mistake but holds no record of this kind.
    """

    records: tuple[R, ...]
    layouts: Mapping[str, str]
    rejections: tuple[Rejection, ...]
    num_rows: int
    digests: Mapping[str, str]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def told(self) -> list[str]:
        """What there is to tell the user about how the files were read."""
        told = [f"{Path(path).name}: {note}" for path, notes in self.notes.items() for note in notes]
        return [*told, *(f"left out: {count} × {reason}" for reason, count in self.left_out.items())]


def read_records(
    path: Path | str, columns: Mapping[str, str] | None = None, encoding: str | None = None
) -> RecordStream[Record]:
    """Records of one file, whatever it holds, in bounded memory, each with its rejections in their place.

    columns: names of a known layout -> names in the file; then nothing but these columns is read. encoding: of text
    that is not UTF-8. Raises UserError, at once or while reading, as `read_conversations`; rejections never stop it.
    """
    return stream_records(Path(path), Reading(None, (*DIALOGUES, "documents"), columns, encoding))


def read_conversations(
    paths: Iterable[Path | str],
    *,
    rejects: Path | None = None,
    max_reject_rate: float = 0.01,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Loaded[Conversation]:
    """Dialogues to imitate, from the files and folders named.

    Rows that cannot be used are written to `rejects`, one JSON object a line. `columns` and `encoding` as in
    `read_records`. Raises UserError for a file that is missing, empty, unreadable, of an unknown layout or of another
    kind, and for too many unusable rows.
    """
    reading = Reading(to_conversation, ("conversations",), columns, encoding)
    return _read(expand(paths), reading, rejects, max_reject_rate)


def read_preferences(
    paths: Iterable[Path | str],
    *,
    rejects: Path | None = None,
    max_reject_rate: float = 0.01,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Loaded[Preference]:
    """Prompts with ranked responses; otherwise as `read_conversations`."""
    reading = Reading(to_preference, ("preferences",), columns, encoding)
    return _read(expand(paths), reading, rejects, max_reject_rate)


def read_judgements(
    paths: Iterable[Path | str],
    *,
    rejects: Path | None = None,
    max_reject_rate: float = 0.01,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Loaded[Judgement]:
    """Answers with a label, or the best and the worst of ranked responses; otherwise as `read_conversations`."""
    reading = Reading(to_judgement, ("labelled answers", "preferences"), columns, encoding)
    return _read(expand(paths), reading, rejects, max_reject_rate)


def read_prompts(
    paths: Iterable[Path | str],
    *,
    rejects: Path | None = None,
    max_reject_rate: float = 0.01,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Loaded[Prompt]:
    """Prompts from dialogues of any kind, whose answers are left out; otherwise as `read_conversations`."""
    reading = Reading(to_prompt, DIALOGUES, columns, encoding)
    return _read(expand(paths), reading, rejects, max_reject_rate)


def read_documents(
    paths: Iterable[Path | str],
    *,
    rejects: Path | None = None,
    max_reject_rate: float = 0.01,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Loaded[Document]:
    """Texts to pre-train on, also of .txt files in folders; otherwise as `read_conversations`."""
    reading = Reading(to_document, ("documents",), columns, encoding)
    return _read(expand(paths, texts=True), reading, rejects, max_reject_rate)


READERS: Mapping[RowKind, Callable[..., Loaded]] = {
    "conversations": read_conversations, "preferences": read_preferences, "judgements": read_judgements,
    "prompts": read_prompts,
}  # fmt: skip
"""What reads the rows of a kind."""


def kind_of(path: Path | str, columns: Mapping[str, str] | None = None, encoding: str | None = None) -> Kind:
    """What the rows of a file hold, or those of a folder's first file; `columns` and `encoding` as in `read_records`.

    UserError as in `read_conversations`, and where no row can be parsed.
    """
    first = expand([path])[0]
    stream = read_records(first, columns, encoding)
    if stream.kind is None:
        reason = next(outcome.reason for outcome in stream if isinstance(outcome, Rejection))
        fix = "mend the file, or save it again in one of the known formats"
        raise UserError(f"no row can be read: {reason}", where=str(first), fix=fix, exit_code=ExitCode.BAD_DATA)
    return stream.kind


def read_all(
    path: Path | str, columns: Mapping[str, str] | None = None, encoding: str | None = None
) -> tuple[Kind, Loaded[Any]]:
    """What the rows of a file or folder hold, and all of them by it, however many cannot be used; for looking at."""
    readers: Mapping[Kind, Callable[..., Loaded[Any]]] = {
        "conversations": read_conversations, "preferences": read_preferences, "labelled answers": read_judgements,
        "documents": read_documents, "prompts": read_prompts,
    }  # fmt: skip
    kind = kind_of(path, columns, encoding)
    return kind, readers[kind]([path], max_reject_rate=1.0, columns=columns, encoding=encoding)


def check_rejections(
    rejections: Sequence[Rejection], num_rows: int, *, max_reject_rate: float, rejects: Path | None = None,
    fix: str = "mend those rows",
) -> None:  # fmt: skip
    """Raise UserError where the share of unusable rows exceeds the limit; `fix` is what to do where none are listed."""
    if len(rejections) <= max_reject_rate * num_rows:
        return
    reasons = Counter(rejection.reason for rejection in rejections).most_common(3)
    first = rejections[0]
    raise UserError(
        f"{len(rejections)} of {num_rows} rows cannot be used",
        where=f"{first.path}:{first.line}",
        got="; ".join(f"{count} × {reason}" for reason, count in reasons),
        want=f"at most {max_reject_rate:.2%} unusable rows",
        fix=f"mend the rows listed in {rejects}, or raise data.max_reject_rate" if rejects else fix,
        exit_code=ExitCode.BAD_DATA,
    )


def write_rejections(path: Path, rejections: Iterable[Rejection]) -> None:
    """Write one JSON object per rejection, atomically."""
    lines = (orjson.dumps(asdict(rejection), option=orjson.OPT_APPEND_NEWLINE) for rejection in rejections)
    write_bytes(path, b"".join(lines))


# --- many files


def _read(paths: Sequence[Path], reading: Reading[R], rejects: Path | None, max_reject_rate: float) -> Loaded[R]:
    records: list[R] = []
    rejections: list[Rejection] = []
    layouts: dict[str, str] = {}
    digests: dict[str, str] = {}
    notes: dict[str, tuple[str, ...]] = {}
    left_out: Counter[str] = Counter()
    for path in paths:
        stream = stream_records(path, reading)
        for outcome in stream:
            if isinstance(outcome, Rejection):
                rejections.append(outcome)
            else:
                records.append(outcome)
        if stream.layout is not None:
            layouts[str(path)] = stream.layout.name
        digests[str(path)], notes[str(path)] = stream.digest(), stream.notes
        left_out += stream.left_out
    if rejects is not None:
        write_rejections(rejects, rejections)
    num_rows = len(records) + len(rejections)
    check_rejections(rejections, num_rows, max_reject_rate=max_reject_rate, rejects=rejects)
    if paths and not num_rows:
        raise _nothing_left(paths, reading.kinds[0], left_out)
    return Loaded(tuple(records), layouts, tuple(rejections), num_rows, digests, notes, left_out)


def _nothing_left(paths: Sequence[Path], kind: Kind, left_out: Counter[str]) -> UserError:
    got = "; ".join(f"{count} × {reason}" for reason, count in left_out.most_common(3)) or "rows of other things"
    what, fix = f"no row gives any {kind}", "give more rows"
    return UserError(what, where=", ".join(map(str, paths)), got=got, fix=fix, exit_code=ExitCode.BAD_DATA)
