"""Rows as Parquet, in blocks that `RowStream` can draw from. No torch here."""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK_ROWS, BLOCK_BYTES = 1024, 2_000_000  # a row group ends at either

_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPES = {
    "text": pa.string(), "messages": _TURNS, "prompt": _TURNS, "answer": pa.string(), "ranked": pa.list_(pa.string()),
    "responses": pa.list_(pa.string()), "scores": pa.list_(pa.float64()), "desirable": pa.list_(pa.bool_()),
    "source": pa.string(),
}  # fmt: skip


def parquet_pieces(lines: Iterable[bytes], columns: Iterable[str]) -> Iterator[bytes]:
    """The bytes of a Parquet file of rows that `to_row` made and JSON holds, one row group at a time.

    `columns` are all that a row may have; what a row lacks is null. The same rows give the same bytes.
    """
    wanted = set(columns)
    schema = pa.schema([(name, kind) for name, kind in _TYPES.items() if name in wanted])
    assert len(schema) == len(wanted), wanted
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for block in _blocks(lines):
            writer.write_table(pa.Table.from_pylist(block, schema))
            yield sink.taken()
    yield sink.taken()


def _blocks(lines: Iterable[bytes]) -> Iterator[list[dict[str, Any]]]:
    block: list[dict[str, Any]] = []
    size = 0
    for line in lines:
        block.append(orjson.loads(line))
        size += len(line)
        if len(block) == BLOCK_ROWS or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


class _Sink(io.RawIOBase):
    """A file that only grows, whose bytes are taken out as they come."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting.append(bytes(data))
        self._size += len(self._waiting[-1])
        return len(self._waiting[-1])

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        """What was written since the last time."""
        taken, self._waiting = b"".join(self._waiting), []
        return taken
