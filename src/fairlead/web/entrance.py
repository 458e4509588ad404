"""Who comes: a session's cookie or a person's key, what they may do, and whether a page of ours has sent them."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairlead.errors import ExitCode, UserError
from fairlead.feedback.accounts import User, user_of_key, user_of_session
from fairlead.feedback.once import KeyTakenError
from fairlead.feedback.store import BusyError, Store
from fairlead.serve.errors import HttpError
from fairlead.serve.guards import Window
from fairlead.serve.http import as_json, read_body, told
from fairlead.web.doors import Door, Visit

LOG = logging.getLogger("fairlead.web")
COOKIE = "fairlead_session"
REQUESTS, SECONDS = 1200, 60.0  # of one person, or one address
_SAFE = ("GET", "HEAD")


class Entrance:
    """Lets people in at the doors."""

    def __init__(self, store: Store, refused: Callable[[int], object]) -> None:
        self.store, self._refused = store, refused
        self._visits = Window(REQUESTS, SECONDS)

    def route(self, door: Door) -> Route:
        """The door as a route."""

        async def enter(request: Request) -> Response:
            person, token = await self._who(request)
            self._check(door, request, person, token)
            body = None
            if door.body is not None:
                body = await read_body(request, door.body)
                _check_texts(msgspec.to_builtins(body))
            visit = Visit(self.store, person, body, request, token)
            try:
                if asyncio.iscoroutinefunction(door.answer):
                    return await door.answer(visit)
                answered = await asyncio.to_thread(door.answer, visit)
            except UserError as error:
                raise _of_store(error) from error
            return answered if isinstance(answered, Response) else as_json(answered if answered is not None else {})

        answered = told(enter, self._refused)

        async def quiet(request: Request) -> Response:
            response = await answered(request)
            response.headers.setdefault("cache-control", "no-store")
            response.headers["x-content-type-options"] = "nosniff"
            return response

        return Route(door.path, quiet, methods=[door.method])

    async def opens_models(self, key: str) -> bool:
        """Whether a person's key may ask the models that are served."""
        try:
            user = await asyncio.to_thread(user_of_key, self.store, key)
        except UserError as error:
            raise _of_store(error) from error
        return user is not None and "generate" in user.scopes

    async def _who(self, request: Request) -> tuple[User | None, str]:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        try:
            if key:
                key = key.strip() if kind.lower() == "bearer" else ""
                return await asyncio.to_thread(user_of_key, self.store, key), ""
            token = request.cookies.get(COOKIE, "")
            if not token:
                return None, ""
            user = await asyncio.to_thread(user_of_session, self.store, token)
        except UserError as error:
            raise _of_store(error) from error
        return user, token if user else ""

    def _check(self, door: Door, request: Request, person: User | None, token: str) -> None:
        name = f"user {person.id}" if person else request.client.host if request.client else ""
        if self._visits.full(name):
            raise self._visits.refusal("too many requests")
        self._visits.add(name)
        if door.who == "anybody":
            return
        if person is None:
            raise HttpError(401, "log in first", "authentication_error", code="not_logged_in")
        if token and request.method not in _SAFE:
            given = request.headers.get("x-csrf-token", "")
            if not hmac.compare_digest(given.encode(), csrf_of(token).encode()):
                raise HttpError(403, "this request does not come from a page of this server", code="wrong_csrf")
        if door.who == "session" and not token:
            raise HttpError(403, "a key does not do this: log in", "permission_error", code="forbidden")
        if door.who not in {"somebody", "session", *person.scopes}:
            raise HttpError(403, f"this asks for the right to {door.who}", "permission_error", code="forbidden")


def csrf_of(token: str) -> str:
    """What a page must send with a session's requests; who cannot read the page cannot know it."""
    return hmac.new(token.encode(), b"fairlead csrf", hashlib.sha256).hexdigest()


def _check_texts(value: Any) -> None:
    """PostgreSQL keeps no U+0000. Raises HttpError for a text that has one."""
    if isinstance(value, str) and "\0" in value:
        raise HttpError(400, "a text may not hold the character U+0000", code="invalid_value")
    if isinstance(value, dict):
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        _check_texts(one)


def _of_store(error: UserError) -> HttpError:
    """What the store refuses, without names of ours."""
    if isinstance(error, KeyTakenError):
        return HttpError(409, error.what, param="key", code="key_taken")
    if isinstance(error, BusyError):
        return HttpError(503, "the store is busy, nothing was saved, try again", "server_error", code="busy",
                         headers={"Retry-After": "1"})  # fmt: skip
    if error.exit_code == ExitCode.USAGE:
        said = "; ".join(filter(None, (error.what, error.want and f"want {error.want}")))
        return HttpError(400, said, code="invalid_value")
    LOG.error("the store: %s", error)
    return HttpError(503, "the store refused, nothing was saved; the log says why", "server_error", code="store")
