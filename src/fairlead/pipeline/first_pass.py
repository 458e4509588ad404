"""First pass of the refinery: files are read and filtered into shards, by this process or by one of many tasks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairlead.config.refine import RefineConfig
from fairlead.data.filters.pii import masked
from fairlead.data.filters.steps import steps_of
from fairlead.data.load import read_records
from fairlead.data.refine.shards import Part, Shard, all_finished, write_shards
from fairlead.records import Record, Rejection

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FirstPass:
    """What is read and where its shards go; plain values, which another process can be given."""

    config: RefineConfig
    files: tuple[tuple[str, Path], ...]  # the entry of `data` that a file belongs to, and the file
    work: Path

    @property
    def is_done(self) -> bool:
        """Whether all shards are there."""
        return all_finished(self.work, num_files=len(self.files), shard_rows=self.config.shard_rows)

    def run(
        self, say: Say, *, parts: Sequence[Part] | None = None, after_shard: Callable[[Shard], None] = lambda _: None
    ) -> list[Shard]:
        """Make the shards that are missing, all or those of some parts; returns these and the finished ones."""
        filters = self.config.filters
        sources = [(name, partial(self._rows, path, say)) for name, path in self.files]
        return write_shards(
            self.work, sources, steps_of(filters), shard_rows=self.config.shard_rows, parts=parts,
            after_shard=after_shard,
            show=partial(masked, config=filters.pii),  # what goes for another reason may hold it too
        )  # fmt: skip

    def _rows(self, path: Path, say: Say) -> Iterator[Record | Rejection]:
        reading = self.config.reading
        rows = read_records(path, columns=reading["columns"], encoding=reading["encoding"])
        for note in rows.notes:
            say(f"refine: {path}: {note}")
        yield from rows
        for reason, count in rows.left_out.items():
            say(f"refine: {path}: {count} rows left out: {reason}")
