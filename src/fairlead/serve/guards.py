"""What stands before every route: whose host this is, who asks, how large a body may be and how slowly it may come."""

import asyncio
import hmac
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairlead.serve.errors import HttpError
from fairlead.serve.pages import Pages

MAX_BODY_BYTES = 1 << 20
MAX_DRAINED_BYTES = 32 << 20  # of a body that is refused
IDLE_SECONDS = 15.0  # without a byte of the body, or of the answer taken
MAX_HEADERS, MAX_HEADER_BYTES = 100, 32 << 10
FAILED_KEYS, LOCK_SECONDS = 10, 60.0
OPEN = ("/health",)  # answers without a key
PEOPLES_KEY = "fl-"  # what keys of people begin with (feedback/accounts.py)


class Window:
    """How often something happened for one name within the last `seconds`; threads may ask at once."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self._times: dict[str, deque[float]] = defaultdict(deque)
        self._lock, self._swept = threading.Lock(), time.monotonic()

    def full(self, name: str) -> bool:
        """Whether it may not happen again."""
        with self._lock:
            self._sweep()
            since = time.monotonic() - self.seconds
            return sum(at > since for at in self._times.get(name, ())) >= self.limit

    def add(self, name: str) -> None:
        """It has happened."""
        with self._lock:
            times = self._times[name]
            times.append(time.monotonic())
            if len(times) > self.limit:
                times.popleft()

    def _sweep(self) -> None:
        """Names that nothing has happened for are forgotten."""
        now = time.monotonic()
        if now > self._swept + self.seconds:
            self._swept = now
            self._times = defaultdict(deque, {n: at for n, at in self._times.items() if at[-1] > now - self.seconds})

    def refusal(self, what: str) -> HttpError:
        """What to answer when it is full."""
        wait = {"Retry-After": str(int(self.seconds))}
        return HttpError(429, what, "rate_limit_error", code="locked_out", headers=wait)


class Guards:
    """Refuses before a route is reached; nothing of the request's body is read for it.

    keys: what may stand behind `Authorization: Bearer`; none where everybody who reaches this address may ask. hosts:
    names under which the server is asked for, against pages that point their own name here (DNS rebinding). pages: ask
    by themselves who comes; a person's key opens the rest too, and is looked at wherever it is shown.
    """

    def __init__(
        self, app: ASGIApp, *, keys: Iterable[str] = (), hosts: Iterable[str] = (), pages: Pages | None = None
    ) -> None:
        self._app, self._pages = app, pages
        self._keys = tuple(key.encode() for key in keys)
        self._hosts = frozenset(hosts)
        self._wrong_keys = Window(FAILED_KEYS, LOCK_SECONDS)  # by address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = self._checked(scope)
            if scope["path"] not in OPEN and not (self._pages and self._pages.owns(scope["path"])):
                await self._check_key(headers.get("authorization", ""), (scope.get("client") or ("", 0))[0])
        except HttpError as error:
            await _drained(receive)
            await answer(send, error)
            return
        started = False

        async def timed_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            async with asyncio.timeout(IDLE_SECONDS):  # a client that does not read is let go
                await send(message)

        try:
            await self._app(scope, _counted(receive), timed_send)
        except HttpError as error:
            if not started:
                await answer(send, error)

    def _checked(self, scope: Scope) -> dict[str, str]:
        """The headers, which are in order."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        num_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
        if len(scope["headers"]) > MAX_HEADERS or num_bytes > MAX_HEADER_BYTES:
            what = f"a request may have {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes in all"
            raise HttpError(431, what, code="headers_too_large")
        host = headers.get("host", "").lower()
        if self._hosts and _hostname(f"//{host}") not in self._hosts:
            raise HttpError(403, "this server is not asked for under this name", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            raise HttpError(403, "pages of another site may not ask this server", code="wrong_origin")
        if "transfer-encoding" in headers and "content-length" in headers:
            raise HttpError(400, "a body has a length or comes in chunks, not both", code="invalid_request")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            raise too_large()
        return headers

    async def _check_key(self, given: str, address: str) -> None:
        kind, _, key = given.partition(" ")
        key = key.strip() if kind.lower() == "bearer" else ""
        persons = self._pages if key.startswith(PEOPLES_KEY) else None
        if not self._keys and persons is None:
            return
        if self._wrong_keys.full(address):
            raise self._wrong_keys.refusal("too many wrong keys")
        same = [hmac.compare_digest(key.encode(), known) for known in self._keys]
        if any(same) or (persons is not None and await persons.opens(key)):
            return
        self._wrong_keys.add(address)
        headers = {"WWW-Authenticate": "Bearer"}
        raise HttpError(
            401, "this key opens nothing here", "authentication_error", code="invalid_api_key", headers=headers
        )


def _hostname(address: str) -> str:
    """The name in an address; none in what is no address."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def too_large() -> HttpError:
    """A body of more than MAX_BODY_BYTES."""
    return HttpError(
        413, f"a body may have {MAX_BODY_BYTES} bytes", code="request_too_large", headers={"Connection": "close"}
    )


def _counted(receive: Receive) -> Receive:
    """The body's pieces, up to what it may have, none of them late; then nothing but the end of the connection."""
    size, whole = 0, False

    async def counted() -> Message:
        nonlocal size, whole
        if whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), IDLE_SECONDS)
        except TimeoutError:
            raise HttpError(408, "the body did not come", code="timeout", headers={"Connection": "close"}) from None
        size += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if size > MAX_BODY_BYTES:
            if not whole:
                await _drained(receive)
            raise too_large()
        return message

    return counted


async def _drained(receive: Receive) -> None:
    """Let what is left of a body go by: who is still sending when the connection closes never sees the answer."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(IDLE_SECONDS):
            while size <= MAX_DRAINED_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


async def answer(send: Send, error: HttpError) -> None:
    """The whole answer of an error."""
    body = error.body()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **error.headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
