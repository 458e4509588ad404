"""What the rankings of a store say: who agrees with whom, which model people prefer, and how far a person has come.

Of one person's rankings of a comparison the latest counts. A ranking of K answers is K(K-1)/2 pairs of answers, each
with an order or a tie. Alpha and kappa read every pair in both directions, so that nothing depends on which of two
answers was added first.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from sqlalchemy import ColumnElement, RowMapping, func, select

from fairlead.algos.annotators import arena as strengths_of
from fairlead.algos.annotators import cohen_kappa, krippendorff_alpha
from fairlead.feedback.accounts import User
from fairlead.feedback.comparisons import NUM_RANKED, open_for
from fairlead.feedback.once import latest
from fairlead.feedback.schema import answers, comparisons, rankings, users
from fairlead.feedback.store import Store, now

DAY_MILLISECONDS, HOUR_SECONDS = 24 * 3600 * 1000, 3600

Pair = tuple[int, int]  # numbers of two answers to one prompt, the smaller first
Orders = dict[Pair, int]  # 1 where the first is preferred, -1 where the second is, 0 for a tie


@dataclass(frozen=True, slots=True)
class Annotator:
    """How often a person's order of two answers is that of the others' majority, and that of the reward model.

    Ties on either side are left out; None where nothing is left.
    """

    name: str
    rankings: int
    consensus: float | None
    reward_model: float | None


@dataclass(frozen=True, slots=True)
class PeoplePair:
    """Cohen's kappa of two people over the pairs of answers that both have judged."""

    one: str
    other: str
    kappa: float | None
    items: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well people agree; `alpha` is Krippendorff's, of orders and ties."""

    annotators: list[Annotator]
    alpha: float | None
    pairs: list[PeoplePair]


@dataclass(frozen=True, slots=True)
class Standing:
    """A model's Bradley-Terry strength in nats with its 95 % interval, and how often it met others how."""

    name: str
    strength: float
    low: float
    high: float
    wins: int
    losses: int
    ties: int
    comparisons: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What a person has judged (ranked, skipped or flagged), and what there is to do."""

    mine: int
    today: int  # since midnight, UTC
    per_hour: float  # over the last hour of work, which is the sum of the seconds that judging took
    median_seconds: float | None
    open: int  # for this person
    total: int
    finished: int  # ranked by as many people as wanted


def agreement(store: Store) -> Agreement:
    """The table of everybody who has ranked something, by name."""
    by_person: dict[str, Orders] = defaultdict(dict)
    by_pair: dict[Pair, dict[str, int]] = defaultdict(dict)
    counts: dict[str, int] = defaultdict(int)
    ranked, given = _read(store)
    for name, row in ranked:
        counts[name] += 1
        for pair, order in _orders(row).items():
            by_person[name][pair] = by_pair[pair][name] = order
    names = sorted(counts)
    return Agreement(
        [
            Annotator(
                name, counts[name], _share_of_consensus(name, by_person[name], by_pair),
                _share_of_reward_model(by_person[name], given),
            )
            for name in names
        ],
        krippendorff_alpha(
            [[sign * order for order in said.values()] for said in by_pair.values() for sign in (1, -1)],
            level="ordinal",
        ),
        [_people_pair(one, other, by_person) for one, other in combinations(names, 2)],
    )  # fmt: skip


def arena(store: Store, *, seed: int = 0) -> list[Standing]:
    """The models whose answers were ranked against another model's, the strongest first."""
    met: dict[int, list[tuple[str, str, float]]] = defaultdict(list)
    wins, losses, ties = (defaultdict[str, int](int) for _ in range(3))
    ranked, given = _read(store)
    for _, row in ranked:
        for (first, second), order in _orders(row).items():
            one, other = given[first]["model"], given[second]["model"]
            if one == other:
                continue
            met[row["comparison_id"]].append((one, other, (1 + order) / 2))
            if order:
                wins[one if order > 0 else other] += 1
                losses[other if order > 0 else one] += 1
            else:
                ties[one] += 1
                ties[other] += 1
    found = strengths_of(list(met.values()), seed=seed)
    return [
        Standing(name, one.strength, one.low, one.high, wins[name], losses[name], ties[name], one.num_comparisons)
        for name, one in sorted(found.items(), key=lambda item: (-item[1].strength, item[0]))
    ]


def progress(store: Store, user: User) -> Progress:
    """How far this person has come, and how much there is."""
    with store.read() as connection:
        judged = list(latest(connection, rankings, rankings.c.comparison_id, rankings.c.annotator_id == user.id))

        def count(*conditions: ColumnElement[bool]) -> int:
            return connection.execute(select(func.count()).select_from(comparisons).where(*conditions)).scalar_one()

        to_do, total, finished = count(open_for(user)), count(), count(comparisons.c.wanted <= NUM_RANKED)
    today = now() // DAY_MILLISECONDS * DAY_MILLISECONDS
    seconds = [row["seconds"] for row in judged]
    return Progress(
        len(judged), sum(row["created_at"] >= today for row in judged), _per_hour(seconds),
        float(median(seconds)) if seconds else None, to_do, total, finished,
    )  # fmt: skip


def _per_hour(seconds: list[int]) -> float:
    """As many as the last ones that took an hour together, or all of them, are in an hour; 0 without any time."""
    worked = count = 0
    for one in reversed(seconds):
        if worked >= HOUR_SECONDS:
            break
        worked, count = worked + one, count + 1
    return count * HOUR_SECONDS / worked if worked else 0.0


def _read(store: Store) -> tuple[list[tuple[str, RowMapping]], dict[int, RowMapping]]:
    """The rankings that count with the names of their authors, and all answers by number, without their texts."""
    columns = (answers.c.id, answers.c.model, answers.c.details)
    with store.read() as connection:
        names = {row.id: row.name for row in connection.execute(select(users.c.id, users.c.name))}
        judged = list(latest(connection, rankings, rankings.c.comparison_id))
        given = {row["id"]: row for row in connection.execute(select(*columns)).mappings()}
    return [(names[row["annotator_id"]], row) for row in judged if row["outcome"] == "ranked"], given


def _orders(row: RowMapping) -> Orders:
    ranks = {int(number): rank for number, rank in row["ranks"].items()}
    pairs = combinations(sorted(ranks), 2)
    return {(first, second): _sign(ranks[second] - ranks[first]) for first, second in pairs}


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _share_of_consensus(name: str, mine: Orders, by_pair: Mapping[Pair, Mapping[str, int]]) -> float | None:
    majorities = (_sign(sum(order for who, order in by_pair[pair].items() if who != name)) for pair in mine)
    return _share_alike(zip(mine.values(), majorities, strict=True))


def _share_of_reward_model(mine: Orders, given: Mapping[int, RowMapping]) -> float | None:
    scores = {number: row["details"].get("reward") for number, row in given.items()}
    both = [pair for pair in mine if scores[pair[0]] is not None and scores[pair[1]] is not None]
    return _share_alike((mine[pair], _sign(scores[pair[0]] - scores[pair[1]])) for pair in both)


def _share_alike(orders: Iterable[tuple[int, int]]) -> float | None:
    """The share of these twos that go the same way, among those in which neither is a tie."""
    counted = [one == other for one, other in orders if one and other]
    return sum(counted) / len(counted) if counted else None


def _people_pair(one: str, other: str, by_person: Mapping[str, Orders]) -> PeoplePair:
    shared = sorted(by_person[one].keys() & by_person[other].keys())
    first, second = ([by_person[name][pair] for pair in shared] for name in (one, other))
    kappa = cohen_kappa([*first, *(-order for order in first)], [*second, *(-order for order in second)])
    return PeoplePair(one, other, kappa, len(shared))
