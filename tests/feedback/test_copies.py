"""A backup holds one state of the store, and a new store is filled from it, whatever databases both are."""

import threading

import pytest
from sqlalchemy import select

from fairlead.errors import ExitCode, UserError
from fairlead.feedback.accounts import add_user, verified
from fairlead.feedback.chats import add_message, messages_of, new_chat
from fairlead.feedback.copies import backup, restore
from fairlead.feedback.schema import METADATA
from fairlead.feedback.store import open_store

from .conftest import PASSWORD


def everything(store):
    with store.read() as connection:
        return {
            table.name: connection.execute(select(table).order_by(table.c.id)).all() for table in METADATA.sorted_tables
        }


@pytest.fixture
def full(store, people):
    chat = new_chat(store, people["ann"], "你好 \U0001f600")
    asked = add_message(store, people["ann"], chat, parent=None, role="user", content="x" * 5000, details={"a": [1.5]})
    for step in range(700):  # more than are copied at once
        add_message(store, people["ann"], chat, parent=asked, role="assistant", content=f"{step}")
    return store


def test_there_and_back(full, new_address, tmp_path):
    path, there = tmp_path / "backup.db", new_address()
    counts = backup(full, path)
    assert counts["messages"] == 701
    assert restore(path, there) == counts
    restored = open_store(there)
    assert everything(restored) == everything(full)
    assert verified(restored, "ann", PASSWORD)
    assert add_user(restored, "new", "viewer", PASSWORD).id == 5  # numbers go on
    restored.close()


def test_nothing_is_overwritten(full, address, tmp_path):
    path = tmp_path / "backup.db"
    backup(full, path)
    with pytest.raises(UserError, match="there already"):
        backup(full, path)
    with pytest.raises(UserError) as caught:
        restore(path, address)
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert not list(tmp_path.glob("*.tmp*"))


def test_a_backup_is_one_state_while_others_write(full, people, tmp_path):
    """Each writer adds a question and its answer in one go: no backup may hold one without the other."""
    done = threading.Event()
    chat = new_chat(full, people["bob"], "t")

    def write():
        while not done.is_set():
            asked = add_message(full, people["bob"], chat, parent=None, role="user", content="q")
            add_message(full, people["bob"], chat, parent=asked, role="assistant", content="a")

    writer = threading.Thread(target=write)
    writer.start()
    for step in range(3):
        backup(full, tmp_path / f"{step}.db")
    done.set()
    writer.join()
    sizes = []
    for step in range(3):
        copy = open_store(str(tmp_path / f"{step}.db"))
        rows = messages_of(copy, people["bob"], chat)
        copy.close()
        known = {row["id"] for row in rows}
        assert all(row["parent_id"] is None or row["parent_id"] in known for row in rows)
        sizes.append(len(rows))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
