"""Answers side by side: what is to be ranked, new comparisons, and what people said of them."""

import asyncio
import threading
import time
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from starlette.responses import Response

from fairlead.feedback import comparisons
from fairlead.feedback.comparisons import Answer, Task, Verdict
from fairlead.records import Message, plain
from fairlead.serve.dialogues import messages_of
from fairlead.serve.errors import HttpError
from fairlead.serve.http import as_json, unless_gone
from fairlead.web import results
from fairlead.web.doors import Door, Visit, found
from fairlead.web.schema import NewComparison, NewRanking, Sampling
from fairlead.web.talk import Talker, asked_of, seeded, whole

LENT_SECONDS = 600.0
OWN_INTEREST = 1_000_000  # what somebody asks themselves is shown first


class Ranking:
    """The doors of ranking."""

    def __init__(self, talker: Talker) -> None:
        self._talker = talker
        self._lending = threading.Lock()
        self._lent: dict[int, tuple[int, float]] = {}  # by person: the comparison that they were shown last, and when
        self._making: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    def doors(self) -> list[Door]:
        """All of them."""
        return [
            Door("GET", "/api/tasks/next", "label", self.next_task),
            Door("POST", "/api/comparisons", "label", self.compare, NewComparison),
            Door("GET", "/api/comparisons/{number:row}", "label", show_comparison),
            Door("POST", "/api/comparisons/{number:row}/rankings", "label", add_ranking, NewRanking),
            Door("GET", "/api/rankings", "label", list_rankings),
            Door("GET", "/api/progress", "label", progress),
            Door("GET", "/api/agreement", "read", agreement),
            Door("GET", "/api/arena", "read", arena),
        ]

    def next_task(self, visit: Visit) -> dict[str, Any]:
        """What I am to rank next, rather not what another looks at; null where all is done."""
        with self._lending:
            now = time.monotonic()
            self._lent = {who: lent for who, lent in self._lent.items() if lent[1] > now - LENT_SECONDS}
            others = {number for who, (number, _) in self._lent.items() if who != visit.user.id}
            task = comparisons.next_task(visit.store, visit.user, without=others)
            task = task or comparisons.next_task(visit.store, visit.user)
            if task is not None:
                self._lent[visit.user.id] = task.comparison, now
        return {"task": task and _shown(task, None)}

    async def compare(self, visit: Visit) -> Response:
        """Draw answers to a prompt and put them up for ranking."""
        given: NewComparison = visit.body
        if "generate" not in visit.user.scopes:
            raise HttpError(403, "this asks for the right to generate", "permission_error", code="forbidden")
        lock = self._making.setdefault((visit.user.id, given.key), asyncio.Lock())
        async with lock:
            number = await unless_gone(visit.request.receive, self._made(visit, given))
        return as_json({"comparison": number}, 201)

    async def _made(self, visit: Visit, given: NewComparison) -> int:
        """The number of this comparison; one that has been made under this key already is not made again."""
        source, prompt = f"page {given.key}", messages_of(given.prompt)
        found = await asyncio.to_thread(comparisons.comparison_from, visit.store, visit.user, source)
        if found is not None:
            number, before = found
            if before != prompt:
                raise HttpError(409, "this key has been used for another prompt", param="key", code="key_taken")
            return number
        try:
            async with asyncio.TaskGroup() as group:
                sampling = seeded(given.sampling)
                drawn = [
                    group.create_task(self._drawn(prompt, model, place, sampling))
                    for place, model in enumerate(given.models)
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return await asyncio.to_thread(
            comparisons.add_comparison, visit.store, visit.user, prompt, [task.result() for task in drawn],
            source=source, wanted=given.wanted, interest=OWN_INTEREST,
        )  # fmt: skip

    async def _drawn(self, prompt: list[Message], model: str, place: int, sampling: Sampling) -> Answer:
        """Each answer has a seed of its own, so that one model can be compared with itself."""
        sampling = msgspec.structs.replace(sampling, seed=(sampling.seed or 0) + place)
        said = await whole(self._talker, asked_of(model, prompt, sampling))
        return Answer(model, said.text, {"finish": said.finish, "sampling": msgspec.to_builtins(sampling)})


def show_comparison(visit: Visit) -> dict[str, Any]:
    """A comparison that I have judged, to correct it."""
    task = found(comparisons.task_of(visit.store, visit.user, visit.number()))
    return {"task": _shown(task, comparisons.verdict_of(visit.store, visit.user, visit.number()))}


def add_ranking(visit: Visit) -> Response:
    """Say how I rank a comparison, or why I do not."""
    given: NewRanking = visit.body
    order = found(comparisons.order_of(visit.store, visit.user, visit.number()))
    try:
        ranks, grades = ({order[int(place) - 1]: at for place, at in of.items()} for of in (given.ranks, given.grades))
    except IndexError:
        raise HttpError(400, f"there are {len(order)} answers", param="ranks", code="invalid_value") from None
    verdict = Verdict(given.outcome, ranks, grades, given.reason, given.seconds)
    number = comparisons.add_ranking(visit.store, visit.user, visit.number(), verdict, key=given.key)
    return as_json({"id": found(number)}, 201)


def list_rankings(visit: Visit) -> dict[str, Any]:
    """What I have judged, the latest first."""
    shown = {"comparison": "comparison_id", "outcome": "outcome", "created_at": "created_at"}
    rows = comparisons.rankings_of(visit.store, visit.user)
    return {"rankings": [{name: row[column] for name, column in shown.items()} for row in rows]}


def progress(visit: Visit) -> results.Progress:
    """How far I have come."""
    return results.progress(visit.store, visit.user)


def agreement(visit: Visit) -> results.Agreement:
    """How well people agree."""
    return results.agreement(visit.store)


def arena(visit: Visit) -> dict[str, Any]:
    """Which model people prefer."""
    return {"models": results.arena(visit.store)}


def _shown(task: Task, verdict: Verdict | None) -> dict[str, Any]:
    """Answers bear their places, 1 for the first that is shown: their own numbers go by models."""
    place_of = {number: str(place) for place, (number, _) in enumerate(task.answers, start=1)}
    return {
        "comparison": task.comparison,
        "prompt": plain(task.prompt),
        "answers": [{"id": place, "content": text} for place, (_, text) in enumerate(task.answers, start=1)],
        "verdict": verdict
        and {
            "outcome": verdict.outcome,
            "ranks": {place_of[number]: at for number, at in verdict.ranks.items()},
            "grades": {place_of[number]: at for number, at in verdict.grades.items()},
            "reason": verdict.reason,
            "seconds": verdict.seconds,
        },
    }
