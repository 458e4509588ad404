"""Each quantity of the suite: its equation, its source, and the slow loop that its expected numbers come from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Quantity:
    """What one file of `vectors/` says. `definition` takes the inputs of a case by name, as lists of Python floats."""

    name: str
    equation: str
    source: str
    inputs: dict[str, str]  # name -> meaning, unit, shape
    output: str
    definition: Callable[..., Any]
    cases: Mapping[str, dict[str, Any]]  # name -> inputs
    catches: str = ""  # bugs that were found in released code
    published: dict[str, Any] = field(default_factory=dict)  # case -> the same numbers as others printed them
    relative: float = 1e-5
    absolute: float = 1e-6
    exact: tuple[str, ...] = ()  # cases that allow no error at all
