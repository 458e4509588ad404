"""What the server asks of pages that stand beside the models' routes (room web)."""

from collections.abc import Sequence
from typing import Any, Protocol

from starlette.routing import BaseRoute


class Pages(Protocol):
    """Routes that ask by themselves who comes, and people who have keys."""

    def routes(self) -> Sequence[BaseRoute]:
        """Their routes."""
        ...

    def described(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """OpenAPI's paths and schemas of them."""
        ...

    def owns(self, path: str) -> bool:
        """Whether a path is one of theirs."""
        ...

    async def opens(self, key: str) -> bool:
        """Whether a person's key may ask the models."""
        ...
