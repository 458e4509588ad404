"""Pages and their doors, to be put beside the models' routes."""

from collections.abc import Callable
from typing import Any

from starlette.routing import Route

from fairlead.feedback.store import Store
from fairlead.web.accounts import Accounts, Link
from fairlead.web.bundle import Bundle
from fairlead.web.chats import Chats
from fairlead.web.doors import Door
from fairlead.web.entrance import Entrance
from fairlead.web.openapi import described
from fairlead.web.ranking import Ranking
from fairlead.web.talk import Talker


class Site:
    """What people see in the browser.

    talker: what answers; models: the names it answers to. link: what opens the pages from this machine's terminal.
    refused: hears the status of every error.
    """

    def __init__(
        self,
        store: Store,
        talker: Talker,
        models: list[str],
        *,
        link: Link | None = None,
        refused: Callable[[int], object] = lambda _: None,
        bundle: Bundle | None = None,
    ) -> None:
        self._entrance, self._bundle = Entrance(store, refused), bundle or Bundle()
        self.doors: list[Door] = [
            *Accounts(models, link).doors(), *Chats(talker).doors(), *Ranking(talker).doors()
        ]  # fmt: skip

    def routes(self) -> list[Route]:
        """All routes: files for anybody, doors for whom they let in."""
        return [*self._bundle.routes(), *(self._entrance.route(door) for door in self.doors)]

    def described(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """OpenAPI's paths and schemas of the doors."""
        return described(self.doors)

    def owns(self, path: str) -> bool:
        """Whether a path asks by itself who comes."""
        return path.startswith("/api/") or path in self._bundle.paths()

    async def opens(self, key: str) -> bool:
        """Whether a person's key may ask the models."""
        return await self._entrance.opens_models(key)
