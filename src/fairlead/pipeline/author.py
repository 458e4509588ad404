"""The author of a stage, a model on this machine or an endpoint, with the answers that it has already given."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fairlead.artifacts.journal import Journal, read
from fairlead.config.common import SamplingConfig
from fairlead.config.grow import GrowConfig
from fairlead.data.examples import task_examples
from fairlead.generate.engine import ROWS_AT_ONCE
from fairlead.generate.policy import load_policy
from fairlead.generate.requests import Response
from fairlead.models.sources import Source
from fairlead.records import Prompt
from fairlead.rollout.sample import sample_responses
from fairlead.runtime.environment import secret
from fairlead.runtime.start import Runtime
from fairlead.synthesize.author import Author, EndpointAsker, Request
from fairlead.synthesize.endpoint import Answer

ANSWERS = "answers.jsonl"


@contextmanager
def open_author(
    config: GrowConfig, source: Source | None, folder: Path, runtime: Runtime, say: Callable[[str], None]
) -> Iterator[Author]:
    """The model of this source, on every rank; or the endpoint where there is none, on the first alone."""
    with ExitStack() as stack:
        # Opening cuts off what a crash left half written, so the first rank opens before any reads.
        journal = stack.enter_context(Journal(folder / ANSWERS)) if runtime.is_main else None
        if source is None:
            asker = EndpointAsker(config.author, secret(config.author.api_key_variable))
            yield Author(asker.ask, rows_at_once=1, known=read(folder / ANSWERS), journal=journal, say=say)
            return
        runtime.ranks.barrier()
        known = read(folder / ANSWERS)
        runtime.ranks.barrier()  # all have read before any writes
        yield Author(_Model(source, runtime).ask, rows_at_once=ROWS_AT_ONCE, known=known, journal=journal, say=say)


class _Model:
    """The model at hand."""

    def __init__(self, source: Source, runtime: Runtime) -> None:
        self._runtime = runtime
        policy = load_policy(source, runtime)
        self._template, self._engine, self._context = policy.template, policy.engine, policy.context_tokens

    def ask(self, batches: Sequence[Sequence[Request]], sampling: SamplingConfig) -> Generator[list[Answer]]:
        """The answers of each batch."""
        for batch in batches:
            yield self._answers(batch, sampling)

    def _answers(self, batch: Sequence[Request], sampling: SamplingConfig) -> list[Answer]:
        """Those that leave no room for an answer in the model's context are not asked."""
        longest = (self._context or 1 << 30) - sampling.max_new_tokens
        encoded = [task_examples([Prompt(request.messages)], self._template, longest) for request in batch]
        places = [place for place, (tasks, _) in enumerate(encoded) if tasks]
        responses = sample_responses(
            self._engine, [encoded[place][0][0].input_ids for place in places], sampling,
            seeds=[batch[place].seed for place in places], runtime=self._runtime,
        ) if places else []  # fmt: skip
        answers = [Answer("", problem="; ".join(one.reason for one in rejections)) for _, rejections in encoded]
        for place, response in zip(places, responses, strict=True):
            answers[place] = self._answer(response, sampling)
        return answers

    def _answer(self, response: Response, sampling: SamplingConfig) -> Answer:
        text = self._template.decode(response.tokens)
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        return Answer(text, response.finished)
