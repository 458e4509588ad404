"""The store opens, refuses, migrates, waits its turn, and keeps what it has acknowledged."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, insert, select, text

from fairlead.errors import ExitCode, UserError
from fairlead.feedback import store as store_module
from fairlead.feedback.accounts import add_user
from fairlead.feedback.schema import METADATA, rankings, users
from fairlead.feedback.store import BusyError, open_store

WRITER = Path(__file__).parent / "keeps_ranking.py"


def test_the_steps_end_with_the_tables_of_this_version(store):
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_opening_again_changes_nothing(address, store, people):
    again = open_store(address)
    with again.read() as connection:
        assert connection.execute(select(func.count()).select_from(users)).scalar() == 4
    again.close()


def test_many_may_open_a_new_store_at_once(address):
    opened, errors = [], []

    def go():
        try:
            opened.append(open_store(address, create=True))
        except Exception as error:  # noqa: BLE001 - whatever a thread meets is looked at below
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with opened[0].read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    for one in opened:
        one.close()


def test_what_fails_leaves_nothing(store, people):
    row = {"name": "x", "role": "viewer", "password_hash": "", "must_change": 0, "created_at": 0}

    def fail():
        with store.write() as connection:
            connection.execute(insert(users).values(row))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with store.read() as connection:
        assert not connection.execute(select(users).where(users.c.name == "x")).first()


def test_writers_take_turns(store, people):
    def add(number):
        for step in range(5):
            add_user(store, f"u{number}-{step}", "viewer", "a long password")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert connection.execute(select(func.count()).select_from(users)).scalar() == 34


STEP = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    with op.batch_alter_table("users") as table:
        table.add_column(sa.Column("nickname", sa.String(64), nullable=False, server_default="none"))
    op.execute("UPDATE users SET nickname = name || '!'")
    {then}
"""


@pytest.fixture
def with_step(tmp_path, monkeypatch):
    """Makes this version one that has one more step."""

    def stepped(then="pass"):
        folder = tmp_path / "migrations"
        shutil.copytree(Path(store_module.__file__).parent / "migrations", folder, dirs_exist_ok=True)
        (folder / "versions" / "0002_next.py").write_text(STEP.format(then=then))
        monkeypatch.setattr(store_module, "MIGRATIONS", str(folder))

    return stepped


def everything(store):
    with store.read() as connection:
        return {table.name: connection.execute(select(table)).all() for table in METADATA.sorted_tables}


def test_a_store_with_data_is_brought_to_a_later_version(address, store, people, with_step, monkeypatch):
    before = everything(store)
    store.close()
    with_step()
    for _ in range(2):
        later = open_store(address)
        assert everything(later) == before
        with later.read() as connection:
            names = connection.execute(text("SELECT nickname FROM users ORDER BY id")).scalars().all()
        later.close()
        assert names == ["admin!", "ann!", "bob!", "vera!"]
    monkeypatch.undo()
    with pytest.raises(UserError, match="later version"):
        open_store(address)


def test_a_step_that_fails_leaves_the_store_as_it_was(address, store, people, with_step, monkeypatch):
    before = everything(store)
    store.close()
    with_step("raise RuntimeError('half-way')")
    with pytest.raises(RuntimeError, match="half-way"):
        open_store(address)
    monkeypatch.undo()
    again = open_store(address)
    assert everything(again) == before
    with again.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    again.close()


LEAVES = """
import os, sys
from fairlead.feedback.accounts import add_user
from fairlead.feedback.store import open_store
store = open_store(sys.argv[1], create=True)
add_user(store, sys.argv[2], "viewer", "a long password")
if sys.argv[3] == "killed":
    os._exit(9)
"""


def left(path, name, how):
    """A program that writes to the store and ends, or is killed, without closing it."""
    subprocess.run([sys.executable, "-c", LEAVES, path, name, how], check=how == "ended")
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-open")


def test_a_journal_that_was_taken_away_is_missed(tmp_path):
    path = tmp_path / "f.db"
    journal, mark = left(path, "one", "ended")
    assert not journal.exists()
    assert not mark.exists()
    journal, mark = left(path, "two", "killed")
    assert journal.stat().st_size
    opened = open_store(str(path))
    with opened.read() as connection:
        assert set(connection.execute(select(users.c.name)).scalars()) == {"one", "two"}
    opened.close()
    assert not mark.exists()
    journal, mark = left(path, "three", "killed")
    journal.unlink()
    with pytest.raises(UserError, match="taken away") as told:
        open_store(str(path))
    assert told.value.exit_code == ExitCode.BAD_DATA
    mark.unlink()
    open_store(str(path)).close()


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_label_that_was_acknowledged_survives_kills_once(address, store, people, kills):
    """The writer prints a key once its ranking is kept; it is killed, and sends the last keys again."""
    store.close()
    seed = random.Random(7)
    acknowledged: list[str] = []
    for _ in range(kills):
        command = [sys.executable, str(WRITER), address, str(max(len(acknowledged) - 3, 0))]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        writer.stdout.readline()  # it is ready
        time.sleep(seed.uniform(0.05, 0.4))
        writer.send_signal(signal.SIGKILL)
        lines = writer.communicate()[0].splitlines()
        acknowledged += [line for line in lines if line not in acknowledged]
    assert len(acknowledged) > 10
    opened = open_store(address)
    with opened.read() as connection:
        kept = list(connection.execute(select(rankings.c.key).order_by(rankings.c.id)).scalars())
    opened.close()
    assert len(set(kept)) == len(kept)
    assert set(acknowledged) <= set(kept)


# --- what only a file can suffer


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "labels.db"
    open_store(str(path), create=True).close()
    return path


def refused(where, **options):
    with pytest.raises(UserError) as caught:
        open_store(str(where), **options)
    return caught.value


def test_commits_wait_for_the_disk(file):
    opened = open_store(str(file))
    with opened.read() as connection:
        said = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    opened.close()
    assert said == ["wal", 2]


def test_a_new_file_is_its_owners_alone(file):
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "feedback:{}", "feedback:sqlite:///{}"])
def test_forms_of_an_address(file, form):
    assert open_store(form.format(file)).place == str(file)


@pytest.mark.parametrize("where", ["mysql://a@b/c", "http://example.com", "postgresql://[::1"])
def test_another_address_is_refused(where):
    assert refused(where).exit_code == ExitCode.USAGE


def test_a_missing_file(tmp_path):
    error = refused(tmp_path / "none.db")
    assert error.exit_code == ExitCode.MISSING_INPUT
    assert not (tmp_path / "none.db").exists()
    assert "mkdir" in str(refused(tmp_path / "no" / "none.db", create=True))


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n')
    assert refused(path, create=True).exit_code == ExitCode.BAD_DATA
    assert path.read_text() == '{"a": 1}\n'
    assert refused(tmp_path).exit_code == ExitCode.BAD_DATA


def test_a_damaged_file(file):
    raw = bytearray(file.read_bytes())
    raw[4096 : 4096 * 4] = b"\x5a" * (4096 * 3)
    file.write_bytes(raw)
    error = refused(file)
    assert error.exit_code == ExitCode.BAD_DATA
    assert "fairlead feedback restore" in str(error)


def test_a_file_cut_short(file):
    file.write_bytes(file.read_bytes()[: 4096 * 3])
    assert refused(file).exit_code == ExitCode.BAD_DATA


def test_a_store_of_a_later_version(file):
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    error = refused(file)
    assert error.exit_code == ExitCode.BAD_DATA
    assert "later version" in str(error)
    assert "9999" in str(error)


def test_a_database_that_does_not_answer(monkeypatch):
    assert refused("postgresql://nobody@127.0.0.1:9/none").exit_code == ExitCode.RETRY


def test_a_password_is_not_shown():
    assert "s3cret" not in str(refused("postgresql://nobody:s3cret@127.0.0.1:9/none"))


def test_another_who_writes_for_long_is_waited_for_and_then_told(file, monkeypatch):
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.5)
    opened = open_store(str(file))
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(BusyError) as caught, opened.write():
        pass
    assert 0.4 < time.monotonic() - began < 5
    assert caught.value.exit_code == ExitCode.RETRY
    other.execute("ROLLBACK")
    with opened.write():
        pass
    opened.close()


def test_reading_goes_on_while_another_writes(file):
    opened = open_store(str(file))
    with opened.write() as writing:
        row = {"name": "x", "role": "viewer", "password_hash": "", "must_change": 0, "created_at": 0}
        writing.execute(insert(users).values(row))
        with opened.read() as reading:
            assert reading.execute(select(users)).first() is None
    opened.close()
