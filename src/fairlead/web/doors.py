"""The pages' routes in one table: who may come in, what they may bring, who answers. What is not named is closed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from fairlead.feedback.accounts import Scope, User
from fairlead.feedback.store import Store
from fairlead.serve.errors import HttpError

T = TypeVar("T")
Who = Scope | Literal["anybody", "somebody", "session"]
"""`somebody` has logged in or shows a key, a `session` has logged in; a scope is one that they have."""


class _RowConvertor(IntegerConvertor):
    """A row's number in a path: `{number:row}`."""

    regex = "[0-9]{1,19}"


register_url_convertor("row", _RowConvertor())


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that was let in: who comes, and what they bring. `token` is their session's, empty for a key."""

    store: Store
    person: User | None
    body: Any
    request: Request
    token: str = ""

    @property
    def user(self) -> User:
        """Who comes; a door for `anybody` does not ask."""
        assert self.person is not None, "this door is open to anybody"
        return self.person

    def number(self) -> int:
        """The number in the path. Raises HttpError (404) for one that no row can have."""
        number = self.request.path_params["number"]
        return found(number if number < 2**63 else None)


@dataclass(frozen=True, slots=True)
class Door:
    """A route. Its answer is computed in a thread, or on the loop where it is a coroutine."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    who: Who
    answer: Callable[[Visit], Any] | Callable[[Visit], Awaitable[Response]]
    body: type | None = None

    @property
    def summary(self) -> str:
        """What it does."""
        return (self.answer.__doc__ or "").splitlines()[0]


def found(value: T | None) -> T:
    """The value; HttpError (404) where there is none, or none that is this person's."""
    if value is None or value is False:
        raise HttpError(404, "there is no such thing here", code="not_found")
    return value
