"""Which label counts: one of a key, however often its request is sent, and the latest of a person.

A label's table has `annotator_id`, and `key`, which the request brings.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, Table, func, select
from sqlalchemy.exc import IntegrityError

from fairlead.errors import UserError
from fairlead.feedback.store import added


class KeyTakenError(UserError):
    """A key came again with other words; what came first stays."""


def kept_once(connection: Connection, table: Table, row: dict[str, Any]) -> int:
    """The number of the row under (annotator_id, key): a new one, or the one that says the same already.

    Raises KeyTakenError where that row says something else.
    """
    try:
        with connection.begin_nested():
            return added(connection, table, row)
    except IntegrityError:
        mine = (table.c.annotator_id == row["annotator_id"], table.c.key == row["key"])
        found = connection.execute(select(table).where(*mine)).mappings().first()
        if found is None:
            raise
        said = {name: found[name] for name in row if name not in {"created_at", "seconds"}}
        if said != {name: row[name] for name in said}:
            raise KeyTakenError("this key has been used for another label", got=row["key"]) from None
        return found["id"]


def latest(
    connection: Connection, table: Table, subject: Column[int], *conditions: ColumnElement[bool]
) -> Iterator[RowMapping]:
    """Of the rows that meet the conditions, each person's last about each subject, in the order of their numbers."""
    last = select(func.max(table.c.id)).where(*conditions).group_by(table.c.annotator_id, subject)
    yield from connection.execute(select(table).where(table.c.id.in_(last)).order_by(table.c.id)).mappings()
