"""Answers side by side: what is to be ranked, new comparisons, and what people said of them."""

import asyncio
from typing import Any

import msgspec
from starlette.responses import Response

from fairlead.feedback import comparisons
from fairlead.feedback.comparisons import Answer, Task, Verdict
from fairlead.records import Message
from fairlead.serve.errors import HttpError
from fairlead.serve.http import as_json
from fairlead.web import results
from fairlead.web.doors import Door, Visit, found
from fairlead.web.schema import NewComparison, NewRanking
from fairlead.web.talk import Talker, asked_of, whole

OWN_INTEREST = 1_000_000  # what somebody asks themselves is shown first


class Ranking:
    """The doors of ranking."""

    def __init__(self, talker: Talker) -> None:
        self._talker = talker

    def doors(self) -> list[Door]:
        """All of them."""
        return [
            Door("GET", "/api/tasks/next", "label", next_task),
            Door("POST", "/api/comparisons", "label", self.compare, NewComparison),
            Door("GET", "/api/comparisons/{number:int}", "label", show_comparison),
            Door("POST", "/api/comparisons/{number:int}/rankings", "label", add_ranking, NewRanking),
            Door("GET", "/api/rankings", "label", list_rankings),
            Door("GET", "/api/progress", "label", progress),
            Door("GET", "/api/agreement", "read", agreement),
            Door("GET", "/api/arena", "read", arena),
        ]

    async def compare(self, visit: Visit) -> Response:
        """Draw answers to a prompt and put them up for ranking."""
        given: NewComparison = visit.body
        if "generate" not in visit.user.scopes:
            raise HttpError(403, "this asks for the right to generate", "permission_error", code="forbidden")
        source = f"page {given.key}"
        made = await asyncio.to_thread(comparisons.comparison_from, visit.store, visit.user, source)
        if made is None:
            prompt = [Message("system" if one.role == "developer" else one.role, one.text) for one in given.prompt]
            answers = await asyncio.gather(
                *(self._drawn(prompt, model, place, given) for place, model in enumerate(given.models))
            )
            made = await asyncio.to_thread(
                comparisons.add_comparison, visit.store, visit.user, prompt, answers, source=source,
                wanted=given.wanted, interest=OWN_INTEREST,
            )  # fmt: skip
        return as_json({"comparison": made}, 201)

    async def _drawn(self, prompt: list[Message], model: str, place: int, given: NewComparison) -> Answer:
        """Each answer has a seed of its own, so that one model can be compared with itself."""
        sampling = given.sampling
        if sampling.seed is not None:
            sampling = msgspec.structs.replace(sampling, seed=sampling.seed + place)
        said = await whole(self._talker, asked_of(model, prompt, sampling))
        return Answer(model, said.text, {"finish": said.finish, "sampling": msgspec.to_builtins(sampling)})


def next_task(visit: Visit) -> dict[str, Any]:
    """What I am to rank next; null where all is done."""
    task = comparisons.next_task(visit.store, visit.user)
    return {"task": task and _shown(task, None)}


def show_comparison(visit: Visit) -> dict[str, Any]:
    """A comparison that I have judged, to correct it."""
    task = found(comparisons.task_of(visit.store, visit.user, visit.number()))
    return {"task": _shown(task, comparisons.verdict_of(visit.store, visit.user, visit.number()))}


def add_ranking(visit: Visit) -> Response:
    """Say how I rank a comparison, or why I do not."""
    given: NewRanking = visit.body
    ranks, grades = ({int(number): at for number, at in of.items()} for of in (given.ranks, given.grades))
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
    return {
        "comparison": task.comparison,
        "prompt": [{"role": message.role, "content": message.content} for message in task.prompt],
        "answers": [{"id": number, "content": text} for number, text in task.answers],
        "verdict": verdict
        and {
            "outcome": verdict.outcome, "ranks": {str(n): at for n, at in verdict.ranks.items()},
            "grades": {str(n): at for n, at in verdict.grades.items()}, "reason": verdict.reason,
            "seconds": verdict.seconds,
        },
    }  # fmt: skip
