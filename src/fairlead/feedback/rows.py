"""What the labels of a store say, as rows to train on.

Rankings become graded responses (people's mean rank, 1 for the best, turned round), an edited answer is preferred to
what the model said and is a demonstration, a thumb is a judgement, and what people asked is a prompt.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import Column, ColumnElement, Connection, RowMapping, Table, func, select

from fairlead.config.common import RowKind
from fairlead.errors import UserError
from fairlead.feedback import PREFIX
from fairlead.feedback.comparisons import answers_of_all
from fairlead.feedback.once import latest
from fairlead.feedback.schema import chats, comparisons, edits, messages, opinions, rankings, users
from fairlead.feedback.store import Store

_GROWING = (rankings, opinions, edits, messages)
State = tuple[int, int, int, int]
"""The last number of each of these tables: a state of the store for ever, since they only grow."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which labels count; times are milliseconds."""

    annotators: tuple[str, ...] = ()  # names; empty for all
    min_agreement: float = 0.0  # share of ordered pairs of answers on which two people agree
    since: int | None = None
    before: int | None = None
    until: State | None = None


def address_and_choice(address: str) -> tuple[str, Choice]:
    """`feedback:STORE?annotator=A&agreement=0.7&since=2026-11-01&until=12-3-4-56`, taken apart."""
    where, _, query = address.removeprefix(PREFIX).partition("?")
    given: dict[str, list[str]] = defaultdict(list)
    for name, value in parse_qsl(query, keep_blank_values=True):
        given[name].append(value)
    choice = None
    with suppress(ValueError):  # said below
        choice = Choice(
            annotators=tuple(given["annotator"]),
            min_agreement=float(_last(given, "agreement") or 0.0),
            since=day_start(_last(given, "since")),
            before=day_start(_last(given, "before")),
            until=_state(_last(given, "until")),
        )
    unknown = given.keys() - {"annotator", "agreement", "since", "before", "until"}
    if choice is None or unknown or not where or not 0 <= choice.min_agreement <= 1:
        raise UserError(
            "this is no address of labels", got=address,
            want=f"{PREFIX}STORE?annotator=NAME&agreement=0..1&since=YYYY-MM-DD&before=YYYY-MM-DD&until=N-N-N-N",
            fix="name the store, and after a ? what to choose, if anything",
        )  # fmt: skip
    return where, choice


def _last(given: Mapping[str, list[str]], name: str) -> str | None:
    return given[name][-1] if given.get(name) else None


def _state(text: str | None) -> State | None:
    if not text:
        return None
    one, two, three, four = map(int, text.split("-"))
    return one, two, three, four


def state_of(store: Store) -> State:
    """What the store holds now, to be named in an address: `until=` its numbers with dashes between them."""
    with store.write() as connection:  # who writes has ended: no lower number comes later
        one, two, three, four = (connection.execute(select(func.max(table.c.id))).scalar() or 0 for table in _GROWING)
    return one, two, three, four


def day_start(text: str | None) -> int | None:
    """Milliseconds of a day's beginning, UTC."""
    return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000) if text else None


def rows_of(store: Store, kind: RowKind, choice: Choice) -> Iterator[dict[str, Any]]:
    """The rows of one kind, in the order of the store's numbers; `source` says which rows they come from."""
    with store.read() as connection:
        chosen = _Chosen(connection, choice)
        match kind:
            case "preferences":
                yield from chosen.rankings()
                yield from chosen.edited_pairs()
            case "judgements":
                yield from chosen.thumbs()
            case "conversations":
                yield from chosen.demonstrations()
            case "prompts":
                yield from chosen.prompts()


class _Chosen:
    """The labels that count, read in one transaction."""

    def __init__(self, connection: Connection, choice: Choice) -> None:
        self._connection, self._choice = connection, choice
        numbers = {row.name: row.id for row in connection.execute(select(users.c.id, users.c.name))}
        missing = set(choice.annotators) - numbers.keys()
        if missing:
            raise UserError(
                "nobody has this name here", got=", ".join(sorted(missing)),
                want=", ".join(sorted(numbers)) or "nobody", fix="check the name",
            )  # fmt: skip
        self._people = [numbers[name] for name in choice.annotators]

    def rankings(self) -> Iterator[dict[str, Any]]:
        by_comparison: dict[int, list[RowMapping]] = defaultdict(list)
        for row in self._latest(rankings, rankings.c.comparison_id):
            if row["outcome"] == "ranked":
                by_comparison[row["comparison_id"]].append(row)
        given = answers_of_all(self._connection)
        for one in self._connection.execute(select(comparisons).order_by(comparisons.c.id)).mappings():
            ranks = [row["ranks"] for row in by_comparison.get(one["id"], ())]
            if not ranks or agreement(ranks) < self._choice.min_agreement:
                continue
            scores = [-fmean(rank[str(answer["id"])] for rank in ranks) for answer in given[one["id"]]]
            if len(set(scores)) > 1:
                texts = [answer["content"] for answer in given[one["id"]]]
                yield {
                    "prompt": one["prompt"], "responses": texts, "scores": scores, "source": f"comparison {one['id']}"
                }  # fmt: skip

    def edited_pairs(self) -> Iterator[dict[str, Any]]:
        for prompt, said, row in self._of_answers(edits):
            if row["content"] != said:
                yield {
                    "prompt": prompt, "responses": [row["content"], said], "scores": [1.0, 0.0],
                    "source": f"edit {row['id']}",
                }  # fmt: skip

    def thumbs(self) -> Iterator[dict[str, Any]]:
        for prompt, said, row in self._of_answers(opinions):
            if row["thumb"]:
                yield {
                    "prompt": prompt, "responses": [said], "desirable": [row["thumb"] > 0],
                    "source": f"opinion {row['id']}",
                }  # fmt: skip

    def demonstrations(self) -> Iterator[dict[str, Any]]:
        for prompt, _, row in self._of_answers(edits):
            answer = {"role": "assistant", "content": row["content"]}
            yield {"messages": [*prompt, answer], "source": f"edit {row['id']}"}

    def prompts(self) -> Iterator[dict[str, Any]]:
        asked = select(messages.c.id).join(chats, messages.c.chat_id == chats.c.id).order_by(messages.c.id)
        asked = asked.where(messages.c.role == "user", chats.c.deleted_at.is_(None))
        wanted = asked.where(*self._conditions(messages, chats.c.owner_id))
        for number in self._connection.execute(wanted).scalars():
            yield {"messages": self._branch(number), "source": f"message {number}"}

    def _of_answers(self, table: Table) -> Iterator[tuple[list[dict[str, str]], str, RowMapping]]:
        """What was asked, what the model said, and the label of a person that counts."""
        for row in self._latest(table, table.c.message_id):
            said = self._messages[row["message_id"]]
            if said["parent_id"] is not None:
                yield self._branch(said["parent_id"]), said["content"], row

    def _latest(self, table: Table, subject: Column[int]) -> Iterator[RowMapping]:
        return latest(self._connection, table, subject, *self._conditions(table, table.c.annotator_id))

    def _conditions(self, table: Table, person: Column[int]) -> list[ColumnElement[bool]]:
        """Which rows of a table there are, as far as the choice is concerned."""
        choice = self._choice
        conditions: list[ColumnElement[bool]] = [person.in_(self._people)] if self._people else []
        if choice.until is not None:
            conditions.append(table.c.id <= choice.until[_GROWING.index(table)])
        if choice.since is not None:
            conditions.append(table.c.created_at >= choice.since)
        if choice.before is not None:
            conditions.append(table.c.created_at < choice.before)
        return conditions

    @cached_property
    def _messages(self) -> dict[int, RowMapping]:
        return {row["id"]: row for row in self._connection.execute(select(messages)).mappings()}

    def _branch(self, number: int | None) -> list[dict[str, str]]:
        branch: list[dict[str, str]] = []
        while number is not None:
            row = self._messages[number]
            branch.append({"role": row["role"], "content": row["content"]})
            number = row["parent_id"]
        return branch[::-1]


def agreement(ranks: list[dict[str, int]]) -> float:
    """Of the pairs of answers that two people both put in an order, the share on which they agree; 1 for one person.

    A tie of either leaves the pair out. Two people with no pair in common agree by half, as chance would.
    """
    same = counted = 0
    for one, other in combinations(ranks, 2):
        for first, second in combinations(one, 2):
            orders = (one[first] - one[second]) * (other[first] - other[second])
            counted += orders != 0
            same += orders > 0
    if counted:
        return same / counted
    return 1.0 if len(ranks) < 2 else 0.5
