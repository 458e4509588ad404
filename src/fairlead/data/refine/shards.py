"""First pass: rows are read and filtered, and saved shard by shard, so that a killed run goes on behind the last one.

A shard holds the kept records of `shard_rows` consecutive rows of one file (`FFFFF-NNNNN.jsonl`: number of the file and
of its shard), what became of the others (`.dropped.jsonl`), and its account (`.json`), which is written last: a shard
with an account is finished. The last shard of a file is the one that is not full. Names and contents say nothing of who
made a shard, so any number of tasks may share them out, and another number may go on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from fairlead.artifacts.atomic import write_bytes, write_pieces
from fairlead.data.filters.steps import Dropped, Step
from fairlead.data.rows import from_row, to_row
from fairlead.data.views import whole_text
from fairlead.records import Record, Rejection

READING = "reading"  # the step that rejects rows


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard. `rows_in` counts all that were read, `dropped` and `changed` rows by step."""

    path: Path  # without a suffix
    source: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    changed: dict[str, int]

    def lines(self) -> Iterator[bytes]:
        """Kept records as JSON, in order."""
        with self.path.with_suffix(".jsonl").open("rb") as file:
            yield from file

    def records(self) -> Iterator[Record]:
        """Kept records, in order."""
        return (from_row(orjson.loads(line)) for line in self.lines())

    def losses(self) -> Iterator[dict[str, Any]]:
        """What was dropped: step, reason, source, and how the text begins."""
        with self.path.with_suffix(".dropped.jsonl").open("rb") as file:
            yield from map(orjson.loads, file)


@dataclass(frozen=True, slots=True)
class Part:
    """What one of many tasks makes of the file at this position: its shard `first`, and from there every so manieth."""

    file: int
    first: int = 0
    every: int = 1


def parts_of(task: int, *, num_tasks: int, num_files: int) -> list[Part]:
    """The share of one task: whole files where there are enough, else some shards of one file.

    Every shard is in the share of exactly one task.
    """
    if num_files >= num_tasks:
        return [Part(file) for file in range(task, num_files, num_tasks)]
    file = task % num_files
    return [Part(file, task // num_files, len(range(file, num_tasks, num_files)))]


Opens = Callable[[], Iterable[Record | Rejection]]  # the rows of a file, from its beginning


def write_shards(
    folder: Path, sources: Sequence[tuple[str, Opens]], steps: dict[str, Step],
    *, shard_rows: int, parts: Sequence[Part] | None = None, after_shard: Callable[[Shard], None] = lambda _: None,
    show: Callable[[str], str] = str,
) -> list[Shard]:  # fmt: skip
    """All sources through all steps, or only these parts; finished shards are taken as they lie there.

    A source is its name and what opens its rows. `after_shard` is called after each new shard, and may stop the run;
    `show` is what may be told of the text of a dropped row.
    """
    shards: list[Shard] = []
    for part in [Part(file) for file in range(len(sources))] if parts is None else parts:
        source, open_rows = sources[part.file]
        for path, found in _shards_or_rows(folder, part, open_rows, shard_rows):
            if isinstance(found, Shard):
                shards.append(found)
            else:
                shards.append(_write(path, source, found, steps, show))
                after_shard(shards[-1])
    return shards


def all_finished(folder: Path, *, num_files: int, shard_rows: int) -> bool:
    """Whether every shard of every file is there."""
    for file in range(num_files):
        for number in count():
            shard = _finished(_path(folder, file, number))
            if shard is None:
                return False
            if shard.rows_in < shard_rows:
                break
    return True


class Reader:
    """Kept records of all shards by their position in the whole, read again from disk."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = list(shards)
        self._firsts = np.cumsum([0, *(shard.rows_out for shard in shards)])
        self._offsets: dict[int, npt.NDArray[np.int64]] = {}

    def records(self, indices: Sequence[int]) -> list[Record]:
        """The records at these positions, which ascend."""
        found: list[Record] = []
        places = np.searchsorted(self._firsts, indices, side="right") - 1
        for number in dict.fromkeys(places.tolist()):
            within = np.asarray(indices)[places == number] - self._firsts[number]
            offsets = self._offsets_of(number)
            with self._shards[number].path.with_suffix(".jsonl").open("rb") as file:
                for line in within.tolist():
                    file.seek(int(offsets[line]))
                    found.append(from_row(orjson.loads(file.readline())))
        return found

    def _offsets_of(self, number: int) -> npt.NDArray[np.int64]:
        if number not in self._offsets:
            lengths = np.fromiter(map(len, self._shards[number].lines()), dtype=np.int64)
            self._offsets[number] = np.cumsum(lengths) - lengths
        return self._offsets[number]


def loss(step: str, reason: str, source: str, text: str = "") -> dict[str, str]:
    """The account of one row that went."""
    return {"step": step, "reason": reason, "source": source, "text": text[:300]}


def _write(
    path: Path, source: str, rows: Iterator[Record | Rejection], steps: dict[str, Step], show: Callable[[str], str]
) -> Shard:
    """One shard; no more than a row and the accounts of the dropped are held."""
    losses: list[dict[str, str]] = []
    changed = dict.fromkeys(steps, 0)
    num_kept = 0

    def kept() -> Iterator[bytes]:
        nonlocal num_kept
        for row in rows:
            outcome = _filtered(row, steps, changed, show)
            if isinstance(outcome, dict):
                losses.append(outcome)
            else:
                num_kept += 1
                yield orjson.dumps(to_row(outcome), option=orjson.OPT_APPEND_NEWLINE)

    write_pieces(path.with_suffix(".jsonl"), kept())
    dropped = {step: sum(one["step"] == step for one in losses) for step in (READING, *steps)}
    lines = (orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in losses)
    write_pieces(path.with_suffix(".dropped.jsonl"), lines)
    account = {
        "source": source, "rows_in": num_kept + len(losses), "rows_out": num_kept, "dropped": dropped,
        "changed": changed,
    }  # fmt: skip
    write_bytes(path.with_suffix(".json"), orjson.dumps(account))
    return Shard(path, **account)


def _filtered(
    row: Record | Rejection, steps: dict[str, Step], changed: dict[str, int], show: Callable[[str], str]
) -> Record | dict[str, str]:
    """The record as the steps leave it, or the account of its loss."""
    if isinstance(row, Rejection):
        return loss(READING, row.reason, f"{row.path}:{row.line}")
    record = row
    for name, step in steps.items():
        outcome = step(record)
        if isinstance(outcome, Dropped):
            return loss(name, outcome.reason, record.source, show(whole_text(record)))
        changed[name] += bool(outcome.changed)
        record = outcome.record
    return record


def _shards_or_rows(
    folder: Path, part: Part, open_rows: Opens, shard_rows: int
) -> Iterator[tuple[Path, "Shard | _Counted"]]:
    """Each shard of a part as it lies there, or the rows for it; the file is opened where one is missing."""
    rows: Iterator[Record | Rejection] | None = None
    position = 0
    for number in count():
        path = _path(folder, part.file, number)
        found: Shard | _Counted | None = _finished(path)
        if found is None:
            rows = iter(open_rows()) if rows is None else rows
            begin, position = number * shard_rows - position, (number + 1) * shard_rows
            found = _Counted(islice(rows, begin, begin + shard_rows))
        if number % part.every == part.first:
            yield path, found
        if isinstance(found, _Counted):
            deque(found, maxlen=0)  # rows of another task's shard are passed over
        if found.rows_in < shard_rows:
            return


class _Counted(Iterator[Record | Rejection]):
    """Rows, and how many of them were taken."""

    def __init__(self, rows: Iterator[Record | Rejection]) -> None:
        self.rows_in, self._rows = 0, rows

    def __next__(self) -> Record | Rejection:
        row = next(self._rows)
        self.rows_in += 1
        return row


def _path(folder: Path, file: int, number: int) -> Path:
    return folder / f"{file:05d}-{number:05d}"


def _finished(path: Path) -> Shard | None:
    try:
        return Shard(path, **orjson.loads(path.with_suffix(".json").read_bytes()))
    except FileNotFoundError:
        return None
