"""Who writes new texts: the model at hand or an endpoint. What it wrote is kept as it comes and asked for once.

A request carries its own seed, so that the same stage asks the same questions and, of a model that heeds seeds, gets
the same answers. The journal holds a line per batch: a batch that was cut off is asked for again as a whole, since a
model's numbers may round differently in other company.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from fairlead.artifacts.hashing import sha256_json
from fairlead.artifacts.journal import Journal
from fairlead.config.common import SamplingConfig
from fairlead.config.endpoint import EndpointConfig
from fairlead.data.refine.shards import loss
from fairlead.records import Conversation, Message, Prompt
from fairlead.synthesize.best_of_n import is_text
from fairlead.synthesize.endpoint import Answer, Endpoint, RefusedError

CUT = "cut off by the length limit"
MAX_REFUSED, MAX_REFUSED_RATE = 3, 0.05  # requests that the endpoint will not read, above which it is no author
TELL_EVERY = 64  # answers
SEEDS_APART = 65_536  # between the first request of one seed and that of the next

_OF_THE_TEXT = (400, 413, 422)  # statuses


@dataclass(frozen=True, slots=True)
class Request:
    """A dialogue to go on with, and what its randomness follows from."""

    messages: tuple[Message, ...]
    seed: int


Ask = Callable[[Sequence[Sequence[Request]], SamplingConfig], Generator[list[Answer]]]
"""Batches of requests to batches of answers, in order, each as soon as it is there."""


@dataclass
class Grown:
    """New prompts, and the account of what was refused."""

    prompts: list[Prompt] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, step: str, reason: str, source: str, text: str, **more: str) -> None:
        """Note a text that does not become a row."""
        self.refused.append(loss(step, reason, source, text) | more)


class Author:
    """Asks for what it does not know yet; `known` are the lines of the journal, which only the first rank has."""

    def __init__(
        self, ask: Ask, *, rows_at_once: int, known: Iterable[Mapping[str, Any]], journal: Journal | None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._ask, self._rows_at_once, self._journal, self._say = ask, rows_at_once, journal, say
        self._known = {row["requests"]: [Answer(**answer) for answer in row["answers"]] for row in known}

    def answers(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[Answer]:
        """One for each request, in order."""
        batches = [requests[i : i + self._rows_at_once] for i in range(0, len(requests), self._rows_at_once)]
        new = [batch for batch in batches if _key(batch, sampling) not in self._known]
        total, done = sum(map(len, new)), 0
        if total < len(requests):
            self._say(f"{len(requests) - total} of {len(requests)} answers were there already")
        with closing(self._ask(new, sampling)) as answered:
            for batch, answers in zip(new, answered, strict=True):
                key = _key(batch, sampling)
                self._known[key] = answers
                if self._journal is not None:
                    self._journal.append({"requests": key, "answers": [asdict(answer) for answer in answers]})
                done += len(batch)
                if done % TELL_EVERY < len(batch):
                    self._say(f"{done} of {total} answers")
        return [answer for batch in batches for answer in self._known[_key(batch, sampling)]]


class EndpointAsker:
    """Asks an endpoint, several at a time; a batch is one request.

    A text that the endpoint will not read, too long or against its rules, is that request's own problem; where they are
    many it is the endpoint's, and a UserError as everything else that `Endpoint` raises.
    """

    def __init__(self, config: EndpointConfig, api_key: str) -> None:
        self._endpoint, self._num_at_once = Endpoint(config, api_key), config.num_at_once
        self._num_asked = self._num_refused = 0

    def ask(self, batches: Sequence[Sequence[Request]], sampling: SamplingConfig) -> Generator[list[Answer]]:
        """The answer to each."""
        pool = ThreadPoolExecutor(self._num_at_once)
        try:
            for found in pool.map(partial(self._answer, options=_fields(sampling)), batches):
                self._num_asked += 1
                yield [self._own_problem(found) if isinstance(found, RefusedError) else found]
        finally:
            pool.shutdown(cancel_futures=True)

    def _answer(self, batch: Sequence[Request], options: Mapping[str, Any]) -> Answer | RefusedError:
        (request,) = batch
        try:
            return self._endpoint.ask(request.messages, seed=request.seed, **options)
        except RefusedError as refusal:
            if refusal.status not in _OF_THE_TEXT:
                raise
            return refusal

    def _own_problem(self, refusal: RefusedError) -> Answer:
        self._num_refused += 1
        if self._num_refused > MAX_REFUSED + MAX_REFUSED_RATE * self._num_asked:
            raise refusal
        return Answer("", problem=f"refused by the endpoint: status {refusal.status}")


def answered(
    grown: Grown, author: Author, sampling: SamplingConfig, *, seed: int, shown: Sequence[tuple[Message, ...]] = ()
) -> list[Conversation]:
    """The prompts with the author's answers; what cannot be used is noted. `shown` turns stand before each, in no row.

    `shown` has an entry for each prompt, or none at all.
    """
    first = (seed + 1) * SEEDS_APART  # other numbers than those that the prompts were made with
    before = shown or [()] * len(grown.prompts)
    requests = [
        Request((*turns, *prompt.messages), first + row)
        for row, (turns, prompt) in enumerate(zip(before, grown.prompts, strict=True))
    ]
    found = []
    for prompt, answer in zip(grown.prompts, author.answers(requests, sampling), strict=True):
        if reason := unusable(answer):
            grown.refuse("answer", reason, prompt.source, prompt.messages[-1].content)
        else:
            found.append(Conversation((*prompt.messages, Message("assistant", answer.text.strip())), prompt.source))
    return found


def unusable(answer: Answer) -> str:
    """Why an answer cannot be taken as it is; nothing where it can."""
    if answer.problem:
        return answer.problem
    if not answer.finished:
        return CUT
    return "" if is_text(answer.text) else "empty, or no text"


def _key(batch: Sequence[Request], sampling: SamplingConfig) -> str:
    return sha256_json([[asdict(request) for request in batch], sampling.model_dump()])


def _fields(sampling: SamplingConfig) -> dict[str, Any]:
    """What a request to an endpoint says; what OpenAI's own has no field for, only where it is asked for."""
    options: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
    }  # fmt: skip
    if sampling.stop:
        options["stop"] = list(sampling.stop)
    others = sampling.model_dump(include={"top_k", "min_p", "repetition_penalty"})
    defaults = SamplingConfig().model_dump()
    return options | {name: value for name, value in others.items() if value != defaults[name]}
