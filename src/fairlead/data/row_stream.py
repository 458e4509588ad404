"""Rows of Parquet and Arrow files as a stream to train on: shuffled, in bounded memory, from any place on. No torch.

The files are a sequence of blocks: row groups of Parquet, record batches of Arrow. In each epoch the blocks come in an
order drawn by seed and epoch and are cut into windows of `window_rows` rows or a little more; the rows of a window are
drawn among each other. Two windows are held at a time, one of them read ahead; a block larger than a window is one. The
order hangs on the files, the seed and `window_rows` alone: a step takes the same rows under any number of ranks, and
its number says where to go on.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.data.sampler import permutation
from fairlead.data.sources import expand
from fairlead.data.streams import damaged
from fairlead.errors import ExitCode, UserError

WINDOW_ROWS = 8192
_ROWS_AT_ONCE = 256  # that are Python objects
_END_BYTES = 1 << 20
_PARQUET, _ARROW, _FILE_MAGIC = (".parquet",), (".arrow", ".feather"), b"ARROW1"


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are read together: a row group, or a record batch."""

    path: Path
    index: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class _Window:
    """Blocks whose rows are drawn among each other; `first` is the position of its first row among all epochs."""

    first: int
    blocks: tuple[Block, ...]
    key: tuple[int, ...]  # decides the order of its rows

    @property
    def num_rows(self) -> int:
        return sum(block.num_rows for block in self.blocks)


class RowStream:
    """An endless sequence of epochs over the rows of all files, in file order, as dicts of columns that are not null.

    Raises UserError for a file that is missing, damaged or of another format, and for files without rows.
    """

    def __init__(self, paths: Iterable[Path | str], *, seed: int, window_rows: int = WINDOW_ROWS) -> None:
        files = expand(paths)
        self.blocks = tuple(block for path in files for block in _blocks(path))
        self.num_rows = sum(block.num_rows for block in self.blocks)
        self.seed, self.window_rows = seed, window_rows
        self._ends = [_end_digest(path) for path in files]
        if not self.num_rows:
            where = ", ".join(map(str, files))
            raise UserError("these files hold no rows", where=where, fix="give more", exit_code=ExitCode.MISSING_INPUT)

    @property
    def digest(self) -> str:
        """Identity of the order of the rows: the ends of the files, the seed and the window."""
        parts = [*self._ends, str(self.seed), str(self.window_rows)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def cursor(self, step: int, rows_per_step: int) -> dict[str, Any]:
        """What a checkpoint keeps, to go on with `step`."""
        return {"position": step * rows_per_step, "digest": self.digest}

    def step_at(self, cursor: dict[str, Any], rows_per_step: int) -> int:
        """The step to go on with. UserError where the cursor is of another stream, or stands within a step."""
        if cursor["digest"] != self.digest:
            raise UserError(
                "the rows are not those that the saved place belongs to", got=f"digest {self.digest[:12]}",
                want=cursor["digest"][:12], fix="give the same files, seed and window, or begin anew",
                exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        step, within = divmod(cursor["position"], rows_per_step)
        if within:
            raise UserError(
                "the saved place stands within a step", got=f"{rows_per_step} rows per step",
                want=f"a divisor of {cursor['position']}", fix="take as many rows per step as before",
            )  # fmt: skip
        return step

    def steps(
        self, rows_per_step: int, *, first: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[list[dict[str, Any]]]:
        """This rank's rows of step `first`, of the next, and so on: every `world_size`-th row of a step."""
        share = len(range(rank, rows_per_step, world_size))
        if not share:
            while True:
                yield []
        held: list[dict[str, Any]] = []
        for window, table in self._read(first * rows_per_step):
            positions = np.arange(window.first, window.first + window.num_rows)
            own = (positions >= first * rows_per_step) & (positions % rows_per_step % world_size == rank)
            places = np.asarray(permutation(window.num_rows, window.key))[own]
            for start in range(0, len(places), _ROWS_AT_ONCE):
                for row in _objects(table.take(places[start : start + _ROWS_AT_ONCE]), window):
                    held.append({name: value for name, value in row.items() if value is not None})
                    if len(held) == share:
                        yield held
                        held = []

    def _read(self, position: int) -> Iterator[tuple[_Window, pa.Table]]:
        """The windows from the one that holds `position` on, the next one read while this one is used."""
        windows = self._windows(position)
        with ThreadPoolExecutor(1, "rows") as ahead:
            window = next(windows)
            reading = ahead.submit(_table, window.blocks)
            while True:
                table, current = reading.result(), window
                window = next(windows)
                reading = ahead.submit(_table, window.blocks)
                yield current, table

    def _windows(self, position: int) -> Iterator[_Window]:
        epoch, within = divmod(position, self.num_rows)
        while True:
            start = epoch * self.num_rows
            for number, blocks in enumerate(self._cut(epoch)):
                window = _Window(start, blocks, (self.seed, epoch, 1 + number))  # zeros at the end of a key do nothing
                start += window.num_rows
                if start > epoch * self.num_rows + within:
                    yield window
            epoch, within = epoch + 1, 0

    def _cut(self, epoch: int) -> Iterator[tuple[Block, ...]]:
        """The blocks of an epoch, as many at a time as a window takes."""
        blocks: list[Block] = []
        num_rows = 0
        for place in permutation(len(self.blocks), (self.seed, epoch)):
            blocks.append(self.blocks[place])
            num_rows += blocks[-1].num_rows
            if num_rows >= self.window_rows:
                yield tuple(blocks)
                blocks, num_rows = [], 0
        if num_rows:
            yield tuple(blocks)


def _blocks(path: Path) -> list[Block]:
    try:
        if path.suffix in _PARQUET:
            with pq.ParquetFile(path) as file:
                counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        elif path.suffix in _ARROW:
            counts = [batch.num_rows for batch in _batches(path)]
        else:
            raise UserError(
                "only columns can be streamed", where=str(path), got=path.suffix or "no suffix",
                want=", ".join((*_PARQUET, *_ARROW)), fix="fairlead data refine --data FILE --format parquet",
            )  # fmt: skip
    except FileNotFoundError:
        raise UserError(
            "there is no such file", where=str(path), fix="check the path", exit_code=ExitCode.MISSING_INPUT
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, "Parquet" if path.suffix in _PARQUET else "Arrow", error) from None
    return [Block(path, index, count) for index, count in enumerate(counts) if count]


def _arrow(path: Path) -> Any:
    """The batches of a file, by index: of the file format as they are asked for, of the stream format all at once.

    Both are mapped from disk, so that what is not compressed takes no memory.
    """
    return _mapped(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _mapped(path: Path, _changed: int) -> Any:
    mapped = pa.memory_map(str(path))
    if mapped.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
        return pa.ipc.open_file(mapped)
    mapped.seek(0)
    return list(pa.ipc.open_stream(mapped))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    reader = _arrow(path)
    return iter(reader) if isinstance(reader, list) else map(reader.get_batch, range(reader.num_record_batches))


def _batch(path: Path, index: int) -> pa.RecordBatch:
    reader = _arrow(path)
    return reader[index] if isinstance(reader, list) else reader.get_batch(index)


def _table(blocks: Sequence[Block]) -> pa.Table:
    """All rows of the blocks, read from disk; columns that a file lacks are null."""
    tables = []
    for block in blocks:
        try:
            if block.path.suffix in _PARQUET:
                with pq.ParquetFile(block.path, pre_buffer=False) as file:
                    tables.append(file.read_row_group(block.index))
            else:
                tables.append(pa.Table.from_batches([_batch(block.path, block.index)]))
            tables[-1].validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise damaged(block.path, f"block {block.index}", error) from None
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise _unlike(blocks, error, "give the columns of all files one type") from None


def _objects(table: pa.Table, window: _Window) -> list[dict[str, Any]]:
    try:
        return table.to_pylist()
    except (ValueError, ArithmeticError) as error:  # such as the year 10000
        raise _unlike(window.blocks, error, "write such values as text") from None


def _unlike(blocks: Sequence[Block], error: Exception, fix: str) -> UserError:
    where = ", ".join(dict.fromkeys(str(block.path) for block in blocks))
    what = f"these rows cannot be streamed ({str(error).splitlines()[0]})"
    return UserError(what, where=where, fix=fix, exit_code=ExitCode.BAD_DATA)


def _end_digest(path: Path) -> str:
    """Of name, size and the last bytes, where the footer says how the rows lie: not of every byte."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _END_BYTES))
        return hashlib.sha256(f"{path.name} {size} ".encode() + file.read()).hexdigest()
