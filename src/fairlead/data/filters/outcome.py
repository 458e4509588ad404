"""What a step does with a record."""

from collections.abc import Callable
from dataclasses import dataclass

from fairlead.records import Record


@dataclass(frozen=True, slots=True)
class Kept:
    """The record goes on, as it was or as the step made it; `changed` says in words what is different."""

    record: Record
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The record does not go on. Reasons name the limit, not the measured number, so that they can be counted."""

    reason: str


Step = Callable[[Record], Kept | Dropped]
