"""Backup and restore. A backup is a file of SQLite, whatever the store is, so it can be opened anywhere."""

from pathlib import Path

from sqlalchemy import Connection, func, insert, select, text

from fairlead.artifacts.atomic import explain_disk_errors, fsync_folder
from fairlead.errors import ExitCode, UserError
from fairlead.feedback.schema import METADATA
from fairlead.feedback.store import Store, open_store

ROWS_AT_ONCE = 500


def backup(store: Store, path: Path) -> dict[str, int]:
    """Write one state of the store into a new file, while others go on writing to the store; rows by table."""
    if path.exists():
        raise UserError("this file is there already", where=str(path), fix="name another one, or move it away")
    beside = path.with_name(f"{path.name}.tmp")
    _remove(beside)
    with explain_disk_errors(path):
        copy = open_store(str(beside), create=True)
        try:
            counts = _copied(store, copy)
        finally:
            copy.close()
        beside.rename(path)
        fsync_folder(path.parent)
    return counts


def restore(path: Path, where: str) -> dict[str, int]:
    """Fill a new store with what a backup holds; rows by table. Raises UserError (65) for a store that holds rows."""
    source = open_store(str(path))
    target = open_store(where, create=True)
    try:
        return _copied(source, target)
    finally:
        source.close()
        target.close()


def _copied(source: Store, target: Store) -> dict[str, int]:
    counts = {}
    with source.read() as reading, target.write() as writing:
        if source.engine.dialect.name == "postgresql":
            reading.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        for table in METADATA.sorted_tables:
            if writing.execute(select(func.count()).select_from(table)).scalar():
                raise UserError(
                    "this store holds rows already, and nothing is overwritten", where=target.place,
                    fix="restore into a new file or an empty database", exit_code=ExitCode.BAD_DATA,
                )  # fmt: skip
            rows = reading.execute(select(table).order_by(table.c.id)).mappings()
            counts[table.name] = 0
            for part in rows.partitions(ROWS_AT_ONCE):
                writing.execute(insert(table), [{str(name): value for name, value in row.items()} for row in part])
                counts[table.name] += len(part)
            _count_on(writing, table.name)
    return counts


def _count_on(connection: Connection, table: str) -> None:
    """PostgreSQL numbers new rows behind those that were copied; SQLite does so by itself."""
    if connection.dialect.name == "postgresql":
        last = f"(SELECT max(id) FROM {table})"  # noqa: S608 - a table's name of ours
        connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last}) WHERE {last} > 0"))


def _remove(path: Path) -> None:
    for leftover in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        leftover.unlink(missing_ok=True)
