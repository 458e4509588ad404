"""Answers side by side: what is to be compared, who sees it next, and how people ranked it.

People see no model's name, and the answers in an order of their own. A correction is a new row: of one person's
rankings of a comparison the latest counts.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, and_, exists, func, insert, select

from fairlead.artifacts.hashing import sha256_json
from fairlead.errors import UserError
from fairlead.feedback.accounts import User
from fairlead.feedback.once import kept_once, latest
from fairlead.feedback.schema import answers, comparisons, rankings
from fairlead.feedback.store import Store, added, now
from fairlead.records import Message, plain

MAX_ANSWERS = 16
T = TypeVar("T")
Outcome = Literal["ranked", "skipped", "flagged"]

_later = rankings.alias()
_corrected = exists().where(
    _later.c.comparison_id == rankings.c.comparison_id, _later.c.annotator_id == rankings.c.annotator_id,
    _later.c.id > rankings.c.id,
)  # fmt: skip
NUM_RANKED = (
    select(func.count())
    .select_from(rankings)
    .where(rankings.c.comparison_id == comparisons.c.id, rankings.c.outcome == "ranked", ~_corrected)
    .scalar_subquery()
)
"""Of a comparison, how many people's latest word is a ranking."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response to a comparison's prompt; `details` say how it was drawn."""

    model: str
    content: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What a person is shown: no models, and the answers in their order for this person."""

    comparison: int
    prompt: tuple[Message, ...]
    answers: tuple[tuple[int, str], ...]  # number and text


@dataclass(frozen=True, slots=True)
class Verdict:
    """How somebody ranked a comparison: `ranks` by answer number, 1 is best, equal numbers are ties."""

    outcome: Outcome
    ranks: Mapping[int, int]
    grades: Mapping[int, int]
    reason: str = ""
    seconds: int = 0


def add_comparison(
    store: Store,
    user: User,
    prompt: Sequence[Message],
    given: Sequence[Answer],
    *,
    source: str = "",
    wanted: int = 1,
    interest: int = 0,
) -> int:
    """The number of a new comparison of 2 to 16 answers, to be ranked by `wanted` people."""
    if not 2 <= len(given) <= MAX_ANSWERS:
        raise UserError("a comparison has 2 to 16 answers", got=str(len(given)))
    row = {
        "created_by": user.id, "prompt": plain(prompt), "prompt_sha256": prompt_digest(prompt),
        "source": source[:400], "wanted": wanted, "interest": interest, "created_at": now(),
    }  # fmt: skip
    with store.write() as connection:
        number = added(connection, comparisons, row)
        for answer in given:
            of_it = {"model": answer.model, "content": answer.content, "details": dict(answer.details)}
            connection.execute(insert(answers).values(comparison_id=number, **of_it))
    return number


def open_for(user: User) -> ColumnElement[bool]:
    """Which comparisons this person may be shown: not yet seen by them, not ranked by as many as wanted."""
    seen = select(rankings.c.comparison_id).where(rankings.c.annotator_id == user.id)
    return and_(comparisons.c.id.not_in(seen), comparisons.c.wanted > NUM_RANKED)


def next_task(store: Store, user: User, *, without: Collection[int] = ()) -> Task | None:
    """What this person is to rank next: open, not yet seen by them, the most interesting first; None where all is done.

    without: numbers of comparisons that are not to be shown now.

    A comparison is open until as many people as it wants have ranked it; who skips or flags it sees it no more.
    """
    scattered = (comparisons.c.id * 7919 + user.id * 40503) % 65521  # so that two people seldom meet at one
    order = (comparisons.c.interest.desc(), scattered, comparisons.c.id)
    shown = and_(open_for(user), comparisons.c.id.not_in(without))
    query = select(comparisons).where(shown).order_by(*order).limit(1)
    with store.read() as connection:
        found = connection.execute(query).mappings().first()
        return _shown(connection, user, found) if found else None


def task_of(store: Store, user: User, comparison: int) -> Task | None:
    """A comparison as this person saw it, to correct what they said; None where they have not ranked it."""
    seen = select(rankings.c.id).where(rankings.c.comparison_id == comparison, rankings.c.annotator_id == user.id)
    with store.read() as connection:
        if not connection.execute(seen.limit(1)).first():
            return None
        found = connection.execute(select(comparisons).where(comparisons.c.id == comparison)).mappings().one()
        return _shown(connection, user, found)


def _shown(connection: Connection, user: User, found: RowMapping) -> Task:
    rows = connection.execute(_answers_of(found["id"])).all()
    prompt = tuple(Message(said["role"], said["content"]) for said in found["prompt"])
    return Task(found["id"], prompt, tuple((row.id, row.content) for row in _mixed(user, found["id"], rows)))


def _mixed(user: User, comparison: int, rows: Sequence[T]) -> list[T]:
    """In an order of this person's own, the same after a reload."""
    return random.Random(f"{user.id} {comparison}").sample(rows, len(rows))  # noqa: S311 - nothing is kept secret by it


def order_of(store: Store, user: User, comparison: int) -> tuple[int, ...] | None:
    """The numbers of a comparison's answers in the order in which this person sees them; None where there is none."""
    with store.read() as connection:
        numbers = [row.id for row in connection.execute(_answers_of(comparison))]
    return tuple(_mixed(user, comparison, numbers)) or None


def verdict_of(store: Store, user: User, comparison: int) -> Verdict | None:
    """What this person said of a comparison last."""
    mine = and_(rankings.c.comparison_id == comparison, rankings.c.annotator_id == user.id)
    with store.read() as connection:
        query = select(rankings).where(mine).order_by(rankings.c.id.desc()).limit(1)
        row = connection.execute(query).mappings().first()
    if row is None:
        return None
    ranks, grades = ({int(number): at for number, at in row[name].items()} for name in ("ranks", "grades"))
    return Verdict(row["outcome"], ranks, grades, row["reason"], row["seconds"])


def rankings_of(store: Store, user: User, *, limit: int = 50) -> list[RowMapping]:
    """The comparisons that this person has judged, the latest first, each with its last outcome."""
    with store.read() as connection:
        rows = latest(connection, rankings, rankings.c.comparison_id, rankings.c.annotator_id == user.id)
        return list(reversed(list(rows)))[:limit]


def comparison_from(store: Store, user: User, source: str) -> tuple[int, list[Message]] | None:
    """Number and prompt of the comparison that this person made from a source."""
    made = and_(comparisons.c.created_by == user.id, comparisons.c.source == source)
    with store.read() as connection:
        found = connection.execute(select(comparisons).where(made).limit(1)).mappings().first()
    return (found["id"], [Message(said["role"], said["content"]) for said in found["prompt"]]) if found else None


def prompt_digest(prompt: Sequence[Message]) -> str:
    """What the store knows a prompt by."""
    return sha256_json(plain(prompt))


def compared_on(store: Store, models: Collection[str]) -> set[str]:
    """The digests of the prompts on which exactly these models have been compared."""
    found: dict[tuple[int, str], set[str]] = {}
    query = select(comparisons.c.id, comparisons.c.prompt_sha256, answers.c.model).join(answers)
    with store.read() as connection:
        for row in connection.execute(query):
            found.setdefault((row.id, row.prompt_sha256), set()).add(row.model)
    return {prompt for (_, prompt), of_it in found.items() if of_it == set(models)}


def add_ranking(store: Store, user: User, comparison: int, verdict: Verdict, *, key: str) -> int | None:
    """Keep how a person ranked a comparison; the number of the row, once for one key. None where it is not there.

    Raises UserError where ranks or grades do not name every answer once.
    """
    with store.write() as connection:
        numbers = [row.id for row in connection.execute(_answers_of(comparison))]
        if not numbers:
            return None
        _check(verdict, numbers)
        shown = _mixed(user, comparison, numbers)
        row = {
            "comparison_id": comparison, "annotator_id": user.id, "outcome": verdict.outcome,
            "ranks": {str(number): rank for number, rank in sorted(_dense(verdict.ranks).items())},
            "grades": {str(number): grade for number, grade in sorted(verdict.grades.items())},
            "reason": verdict.reason, "shown": shown, "seconds": verdict.seconds, "key": key, "created_at": now(),
        }  # fmt: skip
        return kept_once(connection, rankings, row)


def _answers_of(comparison: int) -> Select:
    return select(answers.c.id, answers.c.content).where(answers.c.comparison_id == comparison).order_by(answers.c.id)


def _check(verdict: Verdict, numbers: Sequence[int]) -> None:
    wanted = set(numbers) if verdict.outcome == "ranked" else set()
    if set(verdict.ranks) != wanted or any(rank < 1 for rank in verdict.ranks.values()):
        want = f"a rank from 1 for each of {sorted(wanted)}" if wanted else "no ranks where nothing was ranked"
        raise UserError("these ranks do not fit the comparison", got=str(dict(verdict.ranks)), want=want)
    if not set(verdict.grades) <= set(numbers):
        raise UserError("these grades name other answers", got=str(dict(verdict.grades)), want=str(sorted(numbers)))


def _dense(ranks: Mapping[int, int]) -> dict[int, int]:
    """1, 2, 3 for whatever numbers were given; ties stay ties."""
    order = {rank: place for place, rank in enumerate(sorted(set(ranks.values())), start=1)}
    return {number: order[rank] for number, rank in ranks.items()}


def answers_of_all(connection: Connection) -> dict[int, list[RowMapping]]:
    """The answers of every comparison, by its number, in the order in which they were added."""
    found: dict[int, list[RowMapping]] = {}
    for row in connection.execute(select(answers).order_by(answers.c.id)).mappings():
        found.setdefault(row["comparison_id"], []).append(row)
    return found
