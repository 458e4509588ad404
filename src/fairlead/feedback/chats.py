"""Chats: trees of messages. An edited or regenerated turn is a sibling of the first one, and nothing is overwritten.

Every query names its owner: another person's chat is not found.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table, and_, exists, select, update

from fairlead.feedback.accounts import User
from fairlead.feedback.once import kept_once, latest
from fairlead.feedback.schema import chats, edits, messages, opinions
from fairlead.feedback.store import Store, added, now
from fairlead.records import Message, Role


def new_chat(store: Store, user: User, title: str) -> int:
    """The number of a new chat of this person."""
    with store.write() as connection:
        row = {"owner_id": user.id, "title": title[:200], "created_at": now()}
        return added(connection, chats, row)


def chats_of(store: Store, user: User) -> list[RowMapping]:
    """The chats of a person, the latest first."""
    with store.read() as connection:
        query = select(chats.c.id, chats.c.title, chats.c.created_at).where(_mine(user)).order_by(chats.c.id.desc())
        return list(connection.execute(query).mappings())


def rename_chat(store: Store, user: User, chat: int, title: str) -> bool:
    """Give a chat another title. Whether it is there and this person's."""
    with store.write() as connection:
        here = and_(chats.c.id == chat, _mine(user))
        return bool(connection.execute(update(chats).where(here).values(title=title[:200])).rowcount)


def delete_chat(store: Store, user: User, chat: int) -> bool:
    """Show a chat no more; what was said of its answers stays. Whether it is there and this person's."""
    with store.write() as connection:
        here = and_(chats.c.id == chat, _mine(user))
        return bool(connection.execute(update(chats).where(here).values(deleted_at=now())).rowcount)


def chat_of(store: Store, user: User, chat: int) -> RowMapping | None:
    """A chat; None where it is not this person's."""
    with store.read() as connection:
        return connection.execute(select(chats).where(chats.c.id == chat, _mine(user))).mappings().first()


def messages_of(store: Store, user: User, chat: int) -> list[RowMapping] | None:
    """All messages of a chat in the order in which they were written; None where it is not this person's."""
    with store.read() as connection:
        if not connection.execute(select(chats.c.id).where(chats.c.id == chat, _mine(user))).first():
            return None
        query = select(messages).where(messages.c.chat_id == chat).order_by(messages.c.id)
        return list(connection.execute(query).mappings())


def add_message(
    store: Store,
    user: User,
    chat: int,
    *,
    parent: int | None,
    role: Role,
    content: str,
    model: str = "",
    details: Mapping[str, Any] | None = None,
) -> int | None:
    """The number of a new message under its parent; None where chat or parent is not this person's."""
    with store.write() as connection:
        if not connection.execute(select(chats.c.id).where(chats.c.id == chat, _mine(user))).first():
            return None
        of_chat = select(messages.c.id).where(messages.c.id == parent, messages.c.chat_id == chat)
        if parent is not None and not connection.execute(of_chat).first():
            return None
        row = {
            "chat_id": chat, "parent_id": parent, "role": role, "content": content, "model": model,
            "details": dict(details or {}), "created_at": now(),
        }  # fmt: skip
        return added(connection, messages, row)


def dialogue_to(rows: list[RowMapping], message: int) -> tuple[Message, ...]:
    """The branch that ends with a message, from the beginning of its chat."""
    by_number = {row["id"]: row for row in rows}
    branch: list[Message] = []
    at: int | None = message
    while at is not None:
        row = by_number[at]
        branch.append(Message(row["role"], row["content"]))
        at = row["parent_id"]
    return tuple(reversed(branch))


def add_opinion(
    store: Store, user: User, message: int, *, thumb: int, reasons: tuple[str, ...], comment: str, key: str
) -> int | None:
    """What a person thinks of an answer (1, -1, or 0 to take it back); the number of the row, once for one key.

    None where the answer is not in a chat of theirs. The latest opinion of a person counts.
    """
    row = {
        "message_id": message, "annotator_id": user.id, "thumb": thumb, "reasons": list(reasons), "comment": comment,
        "key": key, "created_at": now(),
    }  # fmt: skip
    with store.write() as connection:
        if not connection.execute(select(exists().where(_answer_of(user, message)))).scalar():
            return None
        return kept_once(connection, opinions, row)


def add_edit(store: Store, user: User, message: int, *, content: str, key: str) -> int | None:
    """What an answer should have been: a demonstration. As `add_opinion`."""
    row = {"message_id": message, "annotator_id": user.id, "content": content, "key": key, "created_at": now()}
    with store.write() as connection:
        if not connection.execute(select(exists().where(_answer_of(user, message)))).scalar():
            return None
        return kept_once(connection, edits, row)


def said_of_answers(store: Store, user: User, chat: int) -> tuple[dict[int, RowMapping], dict[int, str]]:
    """This person's latest opinion of each answer of a chat, and what they made of it, by message number."""
    of_chat = select(messages.c.id).where(messages.c.chat_id == chat)

    def mine(table: Table) -> Iterator[RowMapping]:
        conditions = (table.c.annotator_id == user.id, table.c.message_id.in_(of_chat))
        return latest(connection, table, table.c.message_id, *conditions)

    with store.read() as connection:
        thought = {row["message_id"]: row for row in mine(opinions)}
        edited = {row["message_id"]: row["content"] for row in mine(edits)}
    return thought, edited


def _mine(user: User) -> ColumnElement[bool]:
    return and_(chats.c.owner_id == user.id, chats.c.deleted_at.is_(None))


def _answer_of(user: User, message: int) -> ColumnElement[bool]:
    return and_(
        messages.c.id == message, messages.c.role == "assistant", messages.c.chat_id == chats.c.id,
        chats.c.owner_id == user.id,
    )  # fmt: skip
