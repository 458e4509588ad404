"""What a response is rewarded for, as it is written: `maths_answer`, `0.2*format`, `rules.py:brevity`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Verifier = Literal["exact_match", "maths_answer", "format"]
"""Rules that find a response right or wrong."""
REWARD_MODEL = "reward_model"
JUDGE = "judge"
PATTERNED = get_args(Verifier)
RULES = (*PATTERNED, "length")

_TERM = re.compile(r"(?:(?P<weight>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*\*\s*)?(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Term:
    """`0.5*maths_answer` has the name `maths_answer` and the weight 0.5."""

    name: str
    weight: float

    @property
    def file(self) -> Path | None:
        """The Python file of a user's own function, `rules.py:brevity`."""
        path, colon, function = self.name.rpartition(":")
        return Path(path) if colon and function and path.endswith(".py") else None


def parse_term(text: str, *, more: Sequence[str] = ()) -> Term:
    """`name`, or `weight*name`. Raises ValueError for a name that is no term; `more` are names taken besides."""
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no reward; write NAME or WEIGHT*NAME")
    term = Term(match["name"].strip(), float(match["weight"] or 1.0))
    names = (REWARD_MODEL, *RULES, *more)
    if term.name not in names and term.file is None:
        known = ", ".join(names)
        raise ValueError(f"{term.name!r} is no reward; write one of {known}, or FILE.py:FUNCTION of your own")
    return term


def short_name(term: str) -> str:
    """A term's name as a metric: of a user's function the name alone."""
    return term.rpartition(":")[2]


def check_pattern(pattern: str, names: Sequence[str], section: str) -> None:
    """ValueError for an answer pattern that cannot be read, or is missing where one of the terms needs it."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{section}.answer_pattern is no regular expression ({error}); mend it") from None
    if "format" in names and not pattern:
        raise ValueError(f"format is judged, but no format is given; set {section}.answer_pattern")
