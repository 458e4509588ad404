"""Who may do what: people with passwords, sessions of the browser, keys of programs, and the log of what they did.

Passwords are kept as argon2id, tokens and keys as their SHA-256: they are random, so nothing slower is needed.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, RowMapping, and_, false, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from fairlead.errors import UserError
from fairlead.feedback.schema import ROLES, api_keys, audit, sessions, users
from fairlead.feedback.store import Store, added, now

AccountRole = Literal["admin", "annotator", "viewer"]
Scope = Literal["generate", "label", "read", "admin"]

SCOPES: dict[AccountRole, tuple[Scope, ...]] = {
    "admin": ("generate", "label", "read", "admin"),
    "annotator": ("generate", "label"),
    "viewer": ("generate", "read"),
}
"""What each role may do: chat, label, read everybody's labels, and manage people and keys."""

SESSION_MILLISECONDS = 14 * 24 * 3600 * 1000
MIN_PASSWORD = 10  # characters
KEY_PREFIX = "fl-"
_HASHER = PasswordHasher()
_NOBODY = _HASHER.hash(secrets.token_urlsafe(16))  # so that an unknown name takes as long as a wrong password


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who was let in, and what they may do here."""

    id: int
    name: str
    role: AccountRole
    scopes: tuple[Scope, ...]
    must_change: bool = False


def add_user(
    store: Store, name: str, role: AccountRole, password: str, *, by: User | None = None, must_change: bool = False
) -> User:
    """A new account. Raises UserError for a name that is taken, a role that is none, and a short password."""
    if role not in ROLES:
        raise UserError("there is no such role", got=role, want=", ".join(ROLES))
    if not name.strip() or len(name) > 64:
        raise UserError("a name has 1 to 64 characters", got=repr(name[:80]))
    row = {
        "name": name, "role": role, "password_hash": _hashed(password), "must_change": int(must_change),
        "created_at": now(),
    }  # fmt: skip
    try:
        with store.write() as connection:
            number = added(connection, users, row)
            record(connection, by, "user.add", name=name, role=role)
    except IntegrityError:
        raise UserError("this name is taken", got=name, fix="choose another one") from None
    return User(number, name, role, SCOPES[role], must_change)


def first_admin(store: Store) -> tuple[User, str] | None:
    """The account `admin` with a password to be shown once, where nobody has an account yet."""
    with store.read() as connection:
        if connection.execute(select(users.c.id).limit(1)).first():
            return None
    password = secrets.token_urlsafe(15)
    return add_user(store, "admin", "admin", password, must_change=True), password


def keeper(store: Store) -> User | None:
    """The first administrator who is not locked out: whom the terminal's link lets in."""
    lives = and_(users.c.role == "admin", users.c.disabled_at.is_(None))
    with store.read() as connection:
        found = connection.execute(select(users).where(lives).order_by(users.c.id).limit(1)).first()
    return User(found.id, found.name, found.role, SCOPES[found.role], bool(found.must_change)) if found else None


def change_password(store: Store, user: User, password: str) -> None:
    """Another password; every session of this person ends."""
    hashed = _hashed(password)
    with store.write() as connection:
        connection.execute(update(users).where(users.c.id == user.id).values(password_hash=hashed, must_change=0))
        live = and_(sessions.c.user_id == user.id, sessions.c.ended_at.is_(None))
        connection.execute(update(sessions).where(live).values(ended_at=now()))
        record(connection, user, "user.password")


def disable_user(store: Store, number: int, *, by: User) -> bool:
    """Lock an account: its sessions and keys let nobody in any more. Whether there was one."""
    with store.write() as connection:
        here = and_(users.c.id == number, users.c.disabled_at.is_(None))
        found = connection.execute(update(users).where(here).values(disabled_at=now())).rowcount
        record(connection, by, "user.disable", user=number, found=found)
    return bool(found)


def verified(store: Store, name: str, password: str) -> User | None:
    """Whose name and password these are; None where one of them is wrong, in about the same time."""
    with store.read() as connection:
        found = connection.execute(select(users).where(users.c.name == name, users.c.disabled_at.is_(None))).first()
    try:
        _HASHER.verify(found.password_hash if found else _NOBODY, password)
    except (VerificationError, InvalidHashError):
        found = None
    if found is None:
        with store.write() as connection:
            record(connection, None, "login.failed", name=name[:64])
        return None
    return User(found.id, found.name, found.role, SCOPES[found.role], bool(found.must_change))


def open_session(store: Store, user: User) -> str:
    """A new session's token: 256 random bits, of which the store keeps the digest."""
    token = secrets.token_urlsafe(32)
    row = {
        "user_id": user.id, "token_sha256": _digest(token), "created_at": now(),
        "expires_at": now() + SESSION_MILLISECONDS,
    }  # fmt: skip
    with store.write() as connection:
        connection.execute(insert(sessions).values(row))
        record(connection, user, "login")
    return token


def end_session(store: Store, token: str) -> None:
    """Log out."""
    with store.write() as connection:
        mine = and_(sessions.c.token_sha256 == _digest(token), sessions.c.ended_at.is_(None))
        connection.execute(update(sessions).where(mine).values(ended_at=now()))


def user_of_session(store: Store, token: str) -> User | None:
    """Whose session this is; None where it has ended, or its account is locked."""
    joined = sessions.join(users, sessions.c.user_id == users.c.id)
    lives = and_(
        sessions.c.token_sha256 == _digest(token), sessions.c.ended_at.is_(None), sessions.c.expires_at > now(),
        users.c.disabled_at.is_(None),
    )  # fmt: skip
    with store.read() as connection:
        found = connection.execute(select(users).select_from(joined).where(lives)).first()
    if found is None:
        return None
    return User(found.id, found.name, found.role, SCOPES[found.role], bool(found.must_change))


def add_key(store: Store, user: User, name: str, scopes: tuple[Scope, ...]) -> tuple[int, str]:
    """The number and the secret of a new key, which is shown once. A key may do no more than its owner."""
    beyond = [scope for scope in scopes if scope not in user.scopes]
    if beyond or not scopes:
        raise UserError("a key may do some of what its owner may", got=", ".join(scopes), want=", ".join(user.scopes))
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    row = {
        "user_id": user.id, "name": name[:64], "key_sha256": _digest(secret), "scopes": list(scopes),
        "created_at": now(),
    }  # fmt: skip
    with store.write() as connection:
        number = added(connection, api_keys, row)
        record(connection, user, "key.add", key=number, scopes=list(scopes))
    return number, secret


def revoke_key(store: Store, user: User, number: int) -> bool:
    """End a key: one's own, or anybody's for an admin. Whether there was such a key."""
    mine = or_(api_keys.c.user_id == user.id, true() if "admin" in user.scopes else false())
    lives = and_(api_keys.c.id == number, api_keys.c.revoked_at.is_(None), mine)
    with store.write() as connection:
        found = connection.execute(update(api_keys).where(lives).values(revoked_at=now())).rowcount
        record(connection, user, "key.revoke", key=number, found=found)
    return bool(found)


def user_of_key(store: Store, secret: str) -> User | None:
    """Whose key this is, with what both the key and its owner may do; None where it was revoked."""
    joined = api_keys.join(users, api_keys.c.user_id == users.c.id)
    lives = and_(
        api_keys.c.key_sha256 == _digest(secret), api_keys.c.revoked_at.is_(None), users.c.disabled_at.is_(None)
    )
    with store.read() as connection:
        found = connection.execute(select(users, api_keys.c.scopes).select_from(joined).where(lives)).first()
    if found is None:
        return None
    scopes = tuple(scope for scope in SCOPES[found.role] if scope in found.scopes)
    return User(found.id, found.name, found.role, scopes)


def all_users(store: Store) -> list[RowMapping]:
    """Everybody who has or had an account."""
    shown = (users.c.id, users.c.name, users.c.role, users.c.created_at, users.c.disabled_at)
    with store.read() as connection:
        return list(connection.execute(select(*shown).order_by(users.c.id)).mappings())


def keys_of(store: Store, user: User) -> list[RowMapping]:
    """One's own keys, or everybody's for an admin; the secrets are nowhere."""
    shown = (
        api_keys.c.id, users.c.name.label("user"), api_keys.c.name, api_keys.c.scopes, api_keys.c.created_at,
        api_keys.c.revoked_at,
    )  # fmt: skip
    mine = or_(api_keys.c.user_id == user.id, true() if "admin" in user.scopes else false())
    query = select(*shown).join(users, api_keys.c.user_id == users.c.id).where(mine).order_by(api_keys.c.id.desc())
    with store.read() as connection:
        return list(connection.execute(query).mappings())


def deeds(store: Store, *, before: int | None = None, limit: int = 100) -> list[RowMapping]:
    """The log of what people did, the latest first."""
    shown = (audit.c.id, users.c.name.label("user"), audit.c.action, audit.c.details, audit.c.created_at)
    query = select(*shown).join(users, audit.c.user_id == users.c.id, isouter=True).order_by(audit.c.id.desc())
    if before is not None:
        query = query.where(audit.c.id < before)
    with store.read() as connection:
        return list(connection.execute(query.limit(limit)).mappings())


def record(connection: Connection, user: User | None, action: str, /, **details: Any) -> None:
    """Add a line to the log of what people did; it never holds a secret or a text of theirs."""
    row = {"user_id": user.id if user else None, "action": action, "details": details, "created_at": now()}
    connection.execute(insert(audit).values(row))


def _hashed(password: str) -> str:
    if len(password) < MIN_PASSWORD:
        raise UserError("this password is too short", want=f"at least {MIN_PASSWORD} characters")
    if len(password) > 1024:
        raise UserError("this password is too long", want="at most 1,024 characters")
    return _HASHER.hash(password)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
