"""Chats: their tree of messages, answers as they are drawn, and what people think of them."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec
from starlette.responses import Response

from fairlead.feedback import chats
from fairlead.serve.errors import HttpError
from fairlead.serve.http import Events, as_json, event
from fairlead.web.doors import Door, Visit, found
from fairlead.web.schema import MOST_TOKENS, NewAnswer, NewEdit, NewMessage, NewOpinion, Titled
from fairlead.web.talk import Piece, Said, Talker, asked_of, seeded

LOG = logging.getLogger("fairlead.web")


class Chats:
    """The doors of chats."""

    def __init__(self, talker: Talker) -> None:
        self._talker = talker

    def doors(self) -> list[Door]:
        """All of them."""
        one = "/api/chats/{number:row}"
        return [
            Door("GET", "/api/chats", "generate", list_chats),
            Door("POST", "/api/chats", "generate", add_chat, Titled),
            Door("GET", one, "generate", show_chat),
            Door("PATCH", one, "generate", rename_chat, Titled),
            Door("DELETE", one, "generate", delete_chat),
            Door("POST", f"{one}/messages", "generate", add_message, NewMessage),
            Door("POST", f"{one}/answers", "generate", self.answer, NewAnswer),
            Door("POST", "/api/messages/{number:row}/opinions", "label", add_opinion, NewOpinion),
            Door("POST", "/api/messages/{number:row}/edits", "label", add_edit, NewEdit),
        ]

    async def answer(self, visit: Visit) -> Response:
        """Have a model answer a message, as server-sent events; what was said until the client went is kept."""
        given: NewAnswer = visit.body
        rows = found(await asyncio.to_thread(chats.messages_of, visit.store, visit.user, visit.number()))
        if not any(row["id"] == given.parent and row["role"] == "user" for row in rows):
            raise HttpError(404, "there is no such message to answer here", param="parent", code="not_found")
        given = msgspec.structs.replace(given, sampling=seeded(given.sampling))
        asked = asked_of(given.model, chats.dialogue_to(rows, given.parent), given.sampling)
        kept = _Kept(visit, given)
        held = AsyncExitStack()
        held.push_async_callback(kept.keep)
        pieces = await self._talker.talk(asked, held, most=MOST_TOKENS)
        return Events(kept.events(pieces), held)


class _Kept:
    """An answer that goes to the page and into the store."""

    def __init__(self, visit: Visit, given: NewAnswer) -> None:
        self._visit, self._given, self._said = visit, given, Said()
        self._saving: asyncio.Future[int | None] | None = None

    async def events(self, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[bytes]:
        """Its text as it comes, then its number."""
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if text := self._said.add(piece):
                        yield event({"text": text})
            yield event({"message": await self.keep(), "finish": self._said.finish})
        except Exception:
            LOG.exception("an answer failed")
            yield (
                b"data: " + HttpError(500, "something failed here; the log says what", "server_error").body() + b"\n\n"
            )

    async def keep(self) -> int | None:
        """The number of what was said, saved once; an answer that was stopped before its first word is none."""
        if not self._said.text and self._said.finish == "stopped":
            return None
        if self._saving is None:
            self._saving = asyncio.ensure_future(asyncio.to_thread(self._save))
        return await asyncio.shield(self._saving)

    def _save(self) -> int | None:
        details = {"finish": self._said.finish, "sampling": msgspec.to_builtins(self._given.sampling)}
        return chats.add_message(
            self._visit.store, self._visit.user, self._visit.number(), parent=self._given.parent, role="assistant",
            content=self._said.text, model=self._given.model, details=details,
        )  # fmt: skip


def list_chats(visit: Visit) -> dict[str, Any]:
    """One's own chats, the latest first."""
    return {"chats": [dict(row) for row in chats.chats_of(visit.store, visit.user)]}


def add_chat(visit: Visit) -> Response:
    """Begin a chat."""
    return as_json({"id": chats.new_chat(visit.store, visit.user, visit.body.title)}, 201)


def show_chat(visit: Visit) -> dict[str, Any]:
    """A chat with all its messages, and what one thought of them."""
    chat = found(chats.chat_of(visit.store, visit.user, visit.number()))
    rows = chats.messages_of(visit.store, visit.user, visit.number()) or []
    thought, edited = chats.said_of_answers(visit.store, visit.user, visit.number())
    messages = []
    for row in rows:
        opinion = thought.get(row["id"])
        shown = ("id", "parent_id", "role", "content", "model", "details", "created_at")
        messages.append(
            {name: row[name] for name in shown}
            | {
                "opinion": opinion and {name: opinion[name] for name in ("thumb", "reasons", "comment")},
                "edit": edited.get(row["id"]),
            }
        )
    return {"id": chat["id"], "title": chat["title"], "messages": messages}


def rename_chat(visit: Visit) -> None:
    """Give a chat another title."""
    found(chats.rename_chat(visit.store, visit.user, visit.number(), visit.body.title) or None)


def delete_chat(visit: Visit) -> None:
    """Show a chat no more."""
    found(chats.delete_chat(visit.store, visit.user, visit.number()) or None)


def add_message(visit: Visit) -> Response:
    """Say something."""
    given: NewMessage = visit.body
    number = chats.add_message(
        visit.store, visit.user, visit.number(), parent=given.parent, role=given.role, content=given.content
    )
    return as_json({"id": found(number)}, 201)


def add_opinion(visit: Visit) -> Response:
    """Say what one thinks of an answer."""
    given: NewOpinion = visit.body
    number = chats.add_opinion(
        visit.store, visit.user, visit.number(), thumb=given.thumb, reasons=tuple(given.reasons),
        comment=given.comment, key=given.key,
    )  # fmt: skip
    return as_json({"id": found(number)}, 201)


def add_edit(visit: Visit) -> Response:
    """Say what an answer should have been."""
    number = chats.add_edit(visit.store, visit.user, visit.number(), content=visit.body.content, key=visit.body.key)
    return as_json({"id": found(number)}, 201)
