"""Rows of tables: CSV and TSV, whose cells are always text, Parquet and Arrow. No torch here."""

import csv
import io
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.data.encodings import MARKING, UNREADABLE
from fairlead.data.streams import MAX_RATIO, MAX_ROW_BYTES, Row, archive_of, compression_of, damaged, unpacks_too_far
from fairlead.errors import ExitCode, UserError

_BATCH_ROWS = 256
_ROW_BYTES = 64  # that a row takes at least, though all its values were null
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError)  # the last for a size that cannot be
_TOO_LONG = "\udcfe"  # stands for a line that was passed over


def csv_rows(path: Path, stream: BinaryIO, *, delimiter: str, encoding: str) -> Iterator[tuple[int, Row]]:
    """Rows of a UTF-8 stream with the line each begins on; the first line that is not blank names the columns.

    A name that comes twice gets a number: `a`, `a (2)`. Raises UserError (65) where quotes do not match, because
    what follows cannot be told apart any more, and for names with bytes that stand for no character.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    with stream:
        text = io.TextIOWrapper(stream, "utf-8", errors=MARKING, newline="")  # type: ignore[arg-type]
        reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
        try:
            header = _names(next((cells for cells in reader if any(cell.strip() for cell in cells)), []))
            if any(UNREADABLE in name for name in header):
                what = f"the names of the columns are not {encoding.upper()}: some bytes stand for no character"
                fix = "say encoding=..., or mend that line"
                raise UserError(what, where=f"{path}:{reader.line_num}", fix=fix, exit_code=ExitCode.BAD_DATA)
            first_line = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield first_line, _csv_row(header, cells, encoding)
                first_line = reader.line_num + 1
        except csv.Error as error:
            where = f"{path}:{reader.line_num}"
            fix = "mend the quotes"
            raise UserError(f"this is not CSV: {error}", where=where, fix=fix, exit_code=ExitCode.BAD_DATA) from None


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_ROW_BYTES):
        if len(line) == MAX_ROW_BYTES and line[-1] not in "\r\n":
            while (piece := text.readline(MAX_ROW_BYTES)) and piece[-1] not in "\r\n":
                pass
            line = f"{_TOO_LONG}\n"
        yield line


def _names(header: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for name in header:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _csv_row(header: Sequence[str], cells: Sequence[str], encoding: str) -> Row:
    if any(_TOO_LONG in cell for cell in cells):
        return f"the line has more than {MAX_ROW_BYTES >> 20} MiB"
    if any(UNREADABLE in cell for cell in cells):
        return f"not {encoding.upper()}: some bytes of the row stand for no character"
    if len(cells) != len(header):
        return f"the row has {len(cells)} cells, the header {len(header)}"
    return dict(zip(header, cells, strict=True))


# --- columns


def parquet_rows(path: Path, stream: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Rows of a Parquet file with their positions from 1, a few hundred at a time."""
    try:
        with _seekable(path, stream) as file:
            table = pq.ParquetFile(file, pre_buffer=False)
            _check_names(path, table.schema_arrow.names)
            groups = map(table.metadata.row_group, range(table.num_row_groups))
            _check_size(path, file, sum(group.total_byte_size for group in groups))
            yield from _batch_rows(path, file, table.iter_batches(batch_size=_BATCH_ROWS))
    except _DAMAGE as error:
        raise damaged(path, "Parquet", error) from None


def arrow_rows(path: Path, stream: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Rows of an Arrow file: the IPC file format, which Feather is, or the stream format, which `datasets` writes."""
    try:
        with _seekable(path, stream) as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(0)
            reader: Any = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
            _check_names(path, reader.schema.names)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else iter(reader)
            yield from _batch_rows(path, file, (part for batch in batches for part in _parts(batch)))
    except _DAMAGE as error:
        raise damaged(path, "Arrow", error) from None


def _seekable(path: Path, stream: BinaryIO) -> BinaryIO:
    """The file itself, or a temporary one with what it unpacks to."""
    if not compression_of(path.name) and archive_of(path) is None:
        stream.close()
        return path.open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    with stream:
        shutil.copyfileobj(stream, file, 1 << 20)
    file.seek(0)
    return file


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            "a column comes twice, so one would be lost",
            where=str(path),
            got=", ".join(map(repr, twice)),
            fix="rename one of them",
            exit_code=ExitCode.BAD_DATA,
        )


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, _BATCH_ROWS) for start in range(0, batch.num_rows, _BATCH_ROWS))


def _batch_rows(path: Path, file: BinaryIO, batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, Row]]:
    size, number = 0, 0
    for batch in batches:
        batch.validate(full=True)  # without it a broken offset is followed wherever it leads
        size += batch.nbytes + _ROW_BYTES * batch.num_rows  # one value, said once, may stand for millions of rows
        _check_size(path, file, size)
        for row in _rows_of(batch):
            number += 1
            yield number, row


def _check_size(path: Path, file: BinaryIO, num_bytes: int) -> None:
    """Refuse a file whose rows take far more than it does."""
    stored_bytes = os.fstat(file.fileno()).st_size
    limit = max(MAX_RATIO * stored_bytes, MAX_ROW_BYTES)
    if num_bytes > limit:
        raise unpacks_too_far(path, limit, stored_bytes)


def _rows_of(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a batch; of one with values that Python has no type for, such as the year 10000, the reason.

    A decimal whose digits lie further from its point than Python allows is an ArithmeticError, as an overflow is.
    """
    try:
        return batch.to_pylist()
    except (ValueError, ArithmeticError) as error:
        if batch.num_rows == 1:
            return [f"a value cannot be read: {str(error).splitlines()[0]}"]
        return [row for index in range(batch.num_rows) for row in _rows_of(batch.slice(index, 1))]
