"""What a check found. No torch here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "fatal"]

MOST_SHOWN = 5  # rows that a finding names
_WORSE = ("ok", "warning", "fatal")


@dataclass(frozen=True, slots=True)
class Shown:
    """One row that a check is about: where it stands, what came and what was wanted."""

    source: str  # file:line
    came: str
    wanted: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of a distribution."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict of one check; `number` is what was counted, `fix` what to do about it."""

    name: str  # never changes: an option may name it
    verdict: Verdict
    number: str
    sentence: str
    fix: str = ""
    shown: tuple[Shown, ...] = ()
    bars: tuple[Bar, ...] = ()

    @property
    def title(self) -> str:
        """The name as a headline."""
        return self.name.replace("-", " ").capitalize()


def none_wanted(
    name: str, shown: Sequence[Shown], total: int, *, verdict: Verdict, well: str, badly: str, fix: str,
    noun: str = "rows",
) -> Finding:  # fmt: skip
    """The finding of a check that should find nothing: ok where it did not, else `verdict`."""
    number = part_of(len(shown), total, noun)
    if not shown:
        return Finding(name, "ok", number, well)
    return Finding(name, verdict, number, badly, fix, tuple(shown[:MOST_SHOWN]))


def part_of(part: int, total: int, noun: str = "rows") -> str:
    """3 and 200 as "3 of 200 rows (1.5 %)"."""
    share = f" ({100 * part / total:.1f} %)" if part else ""
    return f"{part:,} of {total:,} {noun}{share}".replace(",", "\u202f")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of them, ok of none."""
    return max(verdicts, key=_WORSE.index, default="ok")


def excerpt(text: str, longest: int = 160) -> str:
    """The beginning of a text."""
    return text if len(text) <= longest else f"{text[:longest]}…"
