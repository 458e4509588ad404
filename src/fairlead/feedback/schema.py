"""The tables of the store, the same in SQLite and PostgreSQL.

Labels (`rankings`, `opinions`, `edits`) only grow: who changes their mind adds a row, and the latest row of a person
counts. Rows are ordered by their number, never by a clock. Times are milliseconds since 1970, UTC.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ROLES = ("admin", "annotator", "viewer")
OUTCOMES = ("ranked", "skipped", "flagged")


def _number() -> Column[int]:
    """A row's number; SQLite numbers its rows in an INTEGER key alone."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _of(table: str, name: str, *, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, ForeignKey(f"{table}.id"), nullable=optional, index=True)


def _time(name: str = "created_at", *, optional: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=optional)


def _needed(name: str, kind: TypeEngine) -> Column:
    return Column(name, kind, nullable=False)


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, values))})", name=column)


# --- who

users = Table(
    "users", METADATA, _number(),
    Column("name", String(64), nullable=False, unique=True),
    _needed("role", String(16)),
    _needed("password_hash", Text()),  # argon2id
    Column("must_change", Integer, nullable=False, default=0),  # the password is the one shown at the first start
    _time(), _time("disabled_at", optional=True),
    _one_of("role", ROLES),
)  # fmt: skip

sessions = Table(
    "sessions", METADATA, _number(), _of("users", "user_id"),
    Column("token_sha256", String(64), nullable=False, unique=True),
    _time(), _time("expires_at"), _time("ended_at", optional=True),
)  # fmt: skip

api_keys = Table(
    "api_keys", METADATA, _number(), _of("users", "user_id"),
    _needed("name", String(64)),
    Column("key_sha256", String(64), nullable=False, unique=True),
    _needed("scopes", JSON()),
    _time(), _time("revoked_at", optional=True),
)  # fmt: skip

audit = Table(
    "audit", METADATA, _number(), _of("users", "user_id", optional=True),
    _needed("action", String(64)),
    _needed("details", JSON()),
    _time(),
)  # fmt: skip

# --- chats

chats = Table(
    "chats", METADATA, _number(), _of("users", "owner_id"),
    _needed("title", String(200)),
    _time(), _time("deleted_at", optional=True),
)  # fmt: skip

messages = Table(
    "messages", METADATA, _number(), _of("chats", "chat_id"),
    _of("messages", "parent_id", optional=True),  # what it answers: an edited or regenerated turn is a sibling
    _needed("role", String(16)),
    _needed("content", Text()),
    _needed("model", String(200)),  # empty where a person wrote it
    _needed("details", JSON()),  # sampling, seed, tokens, why it ended
    _time(),
    _one_of("role", ("system", "user", "assistant")),
)  # fmt: skip

opinions = Table(
    "opinions", METADATA, _number(), _of("messages", "message_id"), _of("users", "annotator_id"),
    _needed("thumb", Integer()),  # 1 up, -1 down, 0 taken back
    _needed("reasons", JSON()),
    _needed("comment", Text()),
    _needed("key", String(64)),  # of the request, so that one that is sent again counts once
    _time(),
    CheckConstraint("thumb IN (-1, 0, 1)", name="thumb"),
    UniqueConstraint("annotator_id", "key"),
)  # fmt: skip

edits = Table(
    "edits", METADATA, _number(), _of("messages", "message_id"), _of("users", "annotator_id"),
    _needed("content", Text()),  # what the answer should have been
    _needed("key", String(64)),
    _time(),
    UniqueConstraint("annotator_id", "key"),
)  # fmt: skip

# --- answers side by side

comparisons = Table(
    "comparisons", METADATA, _number(), _of("users", "created_by"),
    _needed("prompt", JSON()),  # messages
    _needed("prompt_sha256", String(64)),
    _needed("source", String(400)),  # file:line of a dataset, the number of a chat's message, or empty
    _needed("wanted", Integer()),  # people who are to rank it
    _needed("interest", Integer()),  # the higher, the sooner it is shown
    _time(),
    Index(None, "prompt_sha256"),
)  # fmt: skip

answers = Table(
    "answers", METADATA, _number(), _of("comparisons", "comparison_id"),
    _needed("model", String(200)),
    _needed("content", Text()),
    _needed("details", JSON()),
)  # fmt: skip

rankings = Table(
    "rankings", METADATA, _number(), _of("comparisons", "comparison_id"), _of("users", "annotator_id"),
    _needed("outcome", String(16)),
    _needed("ranks", JSON()),  # by answer number; 1 is best, equal numbers are ties
    _needed("grades", JSON()),  # by answer number, or empty
    _needed("reason", Text()),
    _needed("shown", JSON()),  # answer numbers in the order in which they were seen
    _needed("seconds", Integer()),  # that it took
    _needed("key", String(64)),
    _time(),
    UniqueConstraint("annotator_id", "key"),
    _one_of("outcome", OUTCOMES),
)  # fmt: skip
