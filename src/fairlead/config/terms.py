"""What a response is rewarded for, as it is written: `maths_answer`, `0.2*format`, `rules.py:brevity`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Verifier = Literal["exact_match", "maths_answer", "format"]
"""Rules that find a response right or wrong."""
REWARD_MODEL = "reward_model"
RULES = (*get_args(Verifier), "length")

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


def parse_term(text: str) -> Term:
    """`name`, or `weight*name`. Raises ValueError for a name that is no term."""
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no reward; write NAME or WEIGHT*NAME")
    term = Term(match["name"].strip(), float(match["weight"] or 1.0))
    if term.name not in (REWARD_MODEL, *RULES) and term.file is None:
        known = ", ".join((REWARD_MODEL, *RULES))
        raise ValueError(f"{term.name!r} is no reward; write one of {known}, or FILE.py:FUNCTION of your own")
    return term
