"""Logging in and out, people, their keys, and what they did."""

import hmac
import secrets
import time
from typing import Any

from starlette.responses import Response

from fairlead.feedback import accounts
from fairlead.feedback.accounts import User
from fairlead.serve.errors import HttpError
from fairlead.serve.guards import Window
from fairlead.serve.http import as_json
from fairlead.web.doors import Door, Visit, found
from fairlead.web.entrance import COOKIE, csrf_of
from fairlead.web.schema import Login, NewKey, NewPassword, NewUser, Nothing, Open

LINK_SECONDS = 3600.0
WRONG, WRONG_OF_A_NAME, SECONDS = 10, 60, 60.0


class Link:
    """What opens the pages once, from the terminal of this machine."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        self._until = time.monotonic() + LINK_SECONDS

    def take(self, token: str) -> bool:
        """Whether this is it; it opens nothing a second time."""
        same = hmac.compare_digest(token.encode(), self.token.encode()) and time.monotonic() < self._until
        if same:
            self._until = 0.0
        return same


class Accounts:
    """The doors of accounts; `models` are the names to talk to."""

    def __init__(self, models: list[str], link: Link | None) -> None:
        self._models, self._link = models, link
        self._wrong = Window(WRONG, SECONDS)  # by address
        self._wrong_of_name = Window(WRONG_OF_A_NAME, SECONDS)

    def doors(self) -> list[Door]:
        """All of them."""
        return [
            Door("POST", "/api/login", "anybody", self.log_in, Login),
            Door("POST", "/api/open", "anybody", self.open, Open),
            Door("POST", "/api/logout", "somebody", self.log_out, Nothing),
            Door("GET", "/api/me", "somebody", self.me),
            Door("POST", "/api/password", "session", self.change_password, NewPassword),
            Door("GET", "/api/users", "admin", self.users),
            Door("POST", "/api/users", "admin", self.add_user, NewUser),
            Door("DELETE", "/api/users/{number:row}", "admin", self.disable_user),
            Door("GET", "/api/audit", "admin", self.audit),
            Door("GET", "/api/keys", "session", self.keys),
            Door("POST", "/api/keys", "session", self.add_key, NewKey),
            Door("DELETE", "/api/keys/{number:row}", "session", self.revoke_key),
        ]

    def log_in(self, visit: Visit) -> Response:
        """Open a session by name and password."""
        given: Login = visit.body
        user = self._verified(visit, given.name, given.password)
        if user.must_change:
            if given.new_password is None:
                raise HttpError(
                    403, "this password was made for you; choose one of your own", param="new_password",
                    code="password_change_needed",
                )  # fmt: skip
            self._change(visit, user, given.password, given.new_password)
        return self._opened(visit, user)

    def open(self, visit: Visit) -> Response:
        """Open a session by the terminal's link."""
        address = _address(visit)
        if self._wrong.full(address):
            raise self._wrong.refusal("too many wrong links")
        user = accounts.keeper(visit.store)
        if user is None or self._link is None or not self._link.take(visit.body.token):
            self._wrong.add(address)
            raise HttpError(401, "this link has been used or is old; the terminal shows a new one at the next start",
                            "authentication_error", code="link_used")  # fmt: skip
        return self._opened(visit, user)

    def log_out(self, visit: Visit) -> Response:
        """End this session."""
        if visit.token:
            accounts.end_session(visit.store, visit.token)
        response = as_json({})
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    def me(self, visit: Visit) -> dict[str, Any]:
        """Who I am and what I may do."""
        return self._card(visit.user, visit.token)

    def change_password(self, visit: Visit) -> None:
        """Choose another password; all sessions end."""
        given: NewPassword = visit.body
        self._change(visit, self._verified(visit, visit.user.name, given.password), given.password, given.new_password)

    def users(self, visit: Visit) -> dict[str, Any]:
        """Everybody who has or had an account."""
        return {"users": [dict(row) for row in accounts.all_users(visit.store)]}

    def add_user(self, visit: Visit) -> Response:
        """Make an account with a password that is shown once."""
        password = secrets.token_urlsafe(15)
        made = accounts.add_user(
            visit.store, visit.body.name, visit.body.role, password, by=visit.user, must_change=True
        )
        return as_json({"id": made.id, "password": password}, 201)

    def disable_user(self, visit: Visit) -> None:
        """Lock an account."""
        if visit.number() == visit.user.id:
            raise HttpError(400, "nobody locks themselves out", code="invalid_value")
        found(accounts.disable_user(visit.store, visit.number(), by=visit.user) or None)

    def audit(self, visit: Visit) -> dict[str, Any]:
        """What people did, the latest first."""
        before = visit.request.query_params.get("before")
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 19):
            raise HttpError(400, "a whole number is wanted", param="before", code="invalid_value")
        return {"entries": [dict(row) for row in accounts.deeds(visit.store, before=int(before) if before else None)]}

    def keys(self, visit: Visit) -> dict[str, Any]:
        """One's own keys, or everybody's for an admin."""
        return {"keys": [dict(row) for row in accounts.keys_of(visit.store, visit.user)]}

    def add_key(self, visit: Visit) -> Response:
        """Make a key that is shown once."""
        number, key = accounts.add_key(
            visit.store, visit.user, visit.body.name, tuple(dict.fromkeys(visit.body.scopes))
        )
        return as_json({"id": number, "key": key}, 201)

    def revoke_key(self, visit: Visit) -> None:
        """End a key."""
        found(accounts.revoke_key(visit.store, visit.user, visit.number()) or None)

    # --- what they share

    def _verified(self, visit: Visit, name: str, password: str) -> User:
        address = _address(visit)
        if self._wrong.full(address) or self._wrong_of_name.full(name):
            raise self._wrong.refusal("too many wrong passwords")
        user = accounts.verified(visit.store, name, password)
        if user is None:
            self._wrong.add(address)
            self._wrong_of_name.add(name)
            raise HttpError(401, "name or password is wrong", "authentication_error", code="wrong_password")
        return user

    def _change(self, visit: Visit, user: User, old: str, new: str) -> None:
        if old == new:
            raise HttpError(400, "this is the password of before", param="new_password", code="invalid_value")
        accounts.change_password(visit.store, user, new)

    def _opened(self, visit: Visit, user: User) -> Response:
        token = accounts.open_session(visit.store, user)
        response = as_json(self._card(user, token))
        response.set_cookie(
            COOKIE, token, max_age=accounts.SESSION_MILLISECONDS // 1000, path="/", httponly=True, samesite="strict",
            secure=visit.request.headers.get("origin", "").startswith("https:"),
        )  # fmt: skip
        return response

    def _card(self, user: User, token: str) -> dict[str, Any]:
        return {
            "id": user.id, "name": user.name, "role": user.role, "scopes": user.scopes,
            "csrf": csrf_of(token) if token else "", "models": self._models if "generate" in user.scopes else [],
        }  # fmt: skip


def _address(visit: Visit) -> str:
    return visit.request.client.host if visit.request.client else ""
