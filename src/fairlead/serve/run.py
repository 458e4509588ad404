"""The server in this process: an address, a time limit for what comes before a body, an orderly end."""

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fairlead.config.serve import LOOPBACK
from fairlead.errors import ExitCode, UserError
from fairlead.serve.guards import MAX_HEADER_BYTES, Guards
from fairlead.serve.pages import Pages

HEADER_SECONDS = 10.0
END_SECONDS = 30  # that requests have to finish once the server is told to end


def serve(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    keys: Sequence[str],
    hosts: Sequence[str] = (),
    pages: Pages | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM. `ready` hears the address once requests are taken; the rest as in `Guards`.

    Raises UserError (75) for an address that is taken.
    """
    assert keys or host in LOOPBACK, "the configuration asks for a key"
    sock = bound(host, port)
    names = {*hosts, host, *LOOPBACK} if host in LOOPBACK or hosts else set()
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{sock.getsockname()[1]}")
    server = server_of(Guards(app, keys=keys, hosts=names, pages=pages))
    server.run(sockets=[sock])
    if server.ended_by == signal.SIGINT:
        raise KeyboardInterrupt
    if server.ended_by == signal.SIGTERM:
        sys.exit(ExitCode.TERMINATED)


class OrderlyServer(uvicorn.Server):
    """uvicorn, which on a signal ends what it does; its own would raise the signal again and cut off what is saved."""

    ended_by: int | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ctrl-C and SIGTERM end the server, a second one at once; in a thread of tests nothing does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        self.ended_by = self.ended_by or sig
        super().handle_exit(sig, frame)


def server_of(app: ASGIApp) -> OrderlyServer:
    """What answers on a socket: uvicorn with our limits. Headers that say whom a proxy serves are not believed."""
    return OrderlyServer(
        uvicorn.Config(
            app,
            http=TimedHttp,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=END_SECONDS,
            timeout_keep_alive=15,
        )
    )


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at this address. Raises UserError (75) where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise UserError(
            "this address cannot be taken", where=f"{host}:{port}", got=error.strerror or str(error),
            fix="end what uses it, or name another: --port 8001", exit_code=ExitCode.RETRY,
        ) from None  # fmt: skip
    return sock


class TimedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which waits for the headers of a request no longer than HEADER_SECONDS."""

    _late: asyncio.TimerHandle | None = None
    _head = 0  # bytes since a request began whose headers are not complete

    def connection_made(self, transport: Any) -> None:
        """The first request may come."""
        super().connection_made(transport)
        self._expect()

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        """From here on the body is waited for (guards.py)."""
        self._relax()
        self._head = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Headers without end are no request."""
        self._head = self._head + len(data) if self._late is not None else 0
        super().data_received(data)
        if self._late is not None and self._head > MAX_HEADER_BYTES:
            self._end(b"431 Request Header Fields Too Large")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._relax()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._relax()
        self._late = self.loop.call_later(HEADER_SECONDS, self._end, b"408 Request Timeout")

    def _relax(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
