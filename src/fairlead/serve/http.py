"""What every route shares: bodies that are read against a schema, JSON answers, streams, and failures as errors."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from fairlead.serve.errors import HttpError, of_invalid

LOG = logging.getLogger("fairlead.serve")
Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


async def read_body(request: Request, kind: type[T]) -> T:
    """The body as `kind`. Raises HttpError for another content type (415) and what does not fit (400)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HttpError(415, "the body must be application/json", code="unsupported_media_type")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise of_invalid(error) from None
    except UnicodeDecodeError:
        raise HttpError(400, "the body is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise HttpError(400, "the body is nested too deeply", code="invalid_json") from None


def as_json(value: Any, status: int = 200) -> Response:
    """An answer of one JSON value."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class Events(StreamingResponse):
    """Server-sent events, after which, or when the client has gone, all that `held` holds is let go, begun or not."""

    def __init__(self, events: AsyncGenerator[bytes], held: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._events, self._held = events, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Send them.

        Starlette's own way waits for a moment at which nothing is ready to be sent, which may not come.
        """
        async with self._held:
            try:
                await unless_gone(receive, self.stream_response(send))
            except ClientDisconnect:
                pass
            finally:
                await self._events.aclose()


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result, or ClientDisconnect as soon as nobody waits for it."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def told(route: Handler, refused: Callable[[int], object]) -> Handler:
    """The route, whose failures are OpenAI's errors: known ones by their text, others by a number in the log alone.

    `refused` hears the status of each.
    """

    async def answered(request: Request) -> Response:
        try:
            return await route(request)
        except HttpError as error:
            refused(error.status)
            return Response(error.body(), error.status, error.headers, "application/json")
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            number = secrets.token_hex(8)
            LOG.exception("request %s failed", number)
            refused(500)
            failed = HttpError(500, f"something failed here; the log says what, under {number}", "server_error")
            return Response(failed.body(), 500, media_type="application/json")

    return answered
