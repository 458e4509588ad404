"""The store: a file of SQLite, or a PostgreSQL database by its URL. What `write` has ended is on the disk.

A writer takes its turn before it reads (BEGIN IMMEDIATE), so it never fails half-way for another one, and waits at most
`BUSY_SECONDS` for it. In SQLite every commit waits for the disk (WAL, synchronous=FULL).
"""

import atexit
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import QueuePool

from fairlead.errors import ExitCode, UserError
from fairlead.feedback import PREFIX, journal

BUSY_SECONDS = 5
MIGRATIONS = "fairlead.feedback:migrations"
_WRITES = "fairlead_writes"
_TURN = 7203  # PostgreSQL's lock of whoever writes
_MAGIC = b"SQLite format 3\0"


class BusyError(UserError):
    """Somebody else writes for longer than we wait; nothing was saved."""

    def __init__(self, place: str) -> None:
        super().__init__("the store is busy, nothing was saved", where=place, fix="try again", exit_code=ExitCode.RETRY)


class Store:
    """An open store; many threads may use it at once."""

    def __init__(self, engine: Engine, place: str, file: Path | None = None) -> None:
        self.engine, self.place, self._file = engine, place, file
        atexit.register(self.close)

    @contextmanager
    def read(self) -> Generator[Connection]:
        """A transaction that sees one state of the store."""
        options = {} if self._file else {"isolation_level": "REPEATABLE READ"}
        with self._told(), self.engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Generator[Connection]:
        """A transaction that is on the disk when it ends, or has left nothing. Raises BusyError when others write."""
        options = {_WRITES: True}
        with self._told(), self.engine.connect().execution_options(**options) as connection, connection.begin():
            if self._file is not None:
                journal.begin(self._file)
            else:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_SECONDS}s'")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TURN})")
            yield connection

    def close(self) -> None:
        """Give all connections back; SQLite's journal goes into the file. A program's end closes what it has opened."""
        atexit.unregister(self.close)
        if self._file is not None:
            with suppress(DBAPIError, sqlite3.Error), closing(self.engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")  # it stays where others write
            journal.end(self._file)
        self.engine.dispose()

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            if any(word in str(error.orig) for word in ("locked", "busy", "lock timeout")):
                raise BusyError(self.place) from error
            raise _broken(self.place, error) from error


def now() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def added(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    """The number of a new row."""
    key = connection.execute(insert(table).values(row)).inserted_primary_key
    assert key is not None
    return key[0]


def open_store(where: str, *, create: bool = False) -> Store:
    """The store in a file, or at a `postgresql://` URL, brought to this version's tables.

    `create` makes a file that is not there. Raises UserError for a file that is missing (66), of another kind, damaged
    or unreadable (65), or written by a later version (65), and for a database that does not answer (75).
    """
    where = where.removeprefix(PREFIX)
    store = _postgres(where) if "://" in where and not where.startswith("sqlite:") else _sqlite(where, create=create)
    try:
        _migrate(store)
    except BaseException:
        store.close()
        raise
    return store


def _sqlite(where: str, *, create: bool) -> Store:
    path = Path(where.removeprefix("sqlite:///"))
    _check_file(path, create=create)
    engine = create_engine(
        f"sqlite:///{path}", poolclass=QueuePool, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _connected(raw: Any, _: object) -> None:
        raw.isolation_level = None  # transactions begin where we say so
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            raw.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    store = Store(engine, str(path), path)
    with store.read() as connection:
        faults = [row[0] for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
        journal.begin(path)
    if faults != ["ok"]:
        raise _damaged(str(path), "; ".join(faults))
    return store


def _check_file(path: Path, *, create: bool) -> None:
    if not path.exists():
        if not create:
            raise UserError(
                "there is no such store", where=str(path), fix="name the file that `fairlead serve` was given",
                exit_code=ExitCode.MISSING_INPUT,
            )  # fmt: skip
        if not path.parent.is_dir():
            raise UserError(
                "its folder is not there", where=str(path), fix=f"mkdir -p {path.parent}",
                exit_code=ExitCode.MISSING_INPUT,
            )  # fmt: skip
        path.touch(mode=0o600)  # it holds people's words and the hashes of their passwords
        return
    if not path.is_file():
        raise UserError("this is no file", where=str(path), want="a file of SQLite", exit_code=ExitCode.BAD_DATA)
    with path.open("rb") as stream:
        head = stream.read(len(_MAGIC))
    journal.check(path)
    if head and head != _MAGIC:
        raise UserError(
            "this is no store", where=str(path), got=f"a file that begins with {head!r}", want="a file of SQLite",
            exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip


def _postgres(where: str) -> Store:
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise _not_an_address(where) from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise _not_an_address(url.render_as_string(hide_password=True))
    engine = create_engine(
        url.set(drivername="postgresql+pg8000"), pool_pre_ping=True, isolation_level="READ COMMITTED",
        connect_args={"timeout": BUSY_SECONDS * 2},
    )  # fmt: skip
    return Store(engine, url.render_as_string(hide_password=True))


def _not_an_address(where: str) -> UserError:
    return UserError(
        "this is no address of a store", got=where, want="a file, or postgresql://USER@HOST/DATABASE",
        fix="SQLite needs nothing but a file's name",
    )  # fmt: skip


def _migrate(store: Store) -> None:
    """Bring the tables to this version, in one transaction; two that start at once take turns."""
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    newest = ScriptDirectory.from_config(config)
    known = {step.revision for step in newest.walk_revisions()}
    try:
        with store.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        if found == newest.get_current_head():
            return
        if found is not None and found not in known:
            raise UserError(
                "a later version of fairlead has written this store", where=store.place, got=f"tables of {found}",
                want=f"tables of {newest.get_current_head()} or before",
                fix="update fairlead, or restore a backup: fairlead feedback restore", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        with store.write() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise _silent(store.place, error) from error


def _broken(place: str, error: DBAPIError) -> UserError:
    text = str(error.orig).lower()
    if "readonly" in text or "permission" in text:
        return UserError(
            "this store cannot be written", where=place, got=str(error.orig), fix=f"chmod u+w {place} and its folder",
            exit_code=ExitCode.IO,
        )  # fmt: skip
    if "full" in text or "disk i/o" in text:
        return UserError(
            "the disk refused, nothing was saved", where=place, got=str(error.orig), fix="free some space",
            exit_code=ExitCode.IO,
        )  # fmt: skip
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return _damaged(place, str(error.orig))
    return _silent(place, error)


def _damaged(place: str, got: str) -> UserError:
    return UserError(
        "this store is damaged", where=place, got=got, fix="restore a backup: fairlead feedback restore",
        exit_code=ExitCode.BAD_DATA,
    )  # fmt: skip


def _silent(place: str, error: DBAPIError) -> UserError:
    return UserError(
        "the database does not do what it was asked", where=place, got=str(error.orig).splitlines()[0][:300],
        fix="look whether it runs and lets this user in", exit_code=ExitCode.RETRY,
    )  # fmt: skip
