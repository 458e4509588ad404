"""A reward model that scores dialogues as it learnt to, pass by pass in the thread of its base."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from fairlead.config.common import ForwardConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Example
from fairlead.models.build import add_frozen
from fairlead.models.loading import context_length, tokenizer_in
from fairlead.models.outputs import forward_batches, per_sequence
from fairlead.models.roles import Roles
from fairlead.models.sources import Source
from fairlead.records import Message
from fairlead.runtime.start import Runtime
from fairlead.serve.engine import LONGEST


class RewardModel:
    """A reward stage, which scores where it learnt to (`score_at`), or a sequence classifier, at a text's last token.

    Whoever stops waiting for `score` ends its work with the pass that runs.
    """

    def __init__(
        self, name: str, roles: Roles, role: str, source: Source, runtime: Runtime, wake: Callable[[], object]
    ) -> None:
        folder = source.base.folder
        self.name = name
        self.context_tokens = context_length(folder) or LONGEST
        self._template, self._roles, self._role = ChatTemplate(tokenizer_in(folder)), roles, role
        self._score_at = source.manifest.facts["score_at"] if source.manifest else ""
        self._runtime, self._wake = runtime, wake
        self._waiting: deque[tuple[list[Example], Future[list[float]]]] = deque()
        add_frozen(roles, role, source, "scores", runtime)

    def encode(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of a dialogue that ends with an answer."""
        if not self._score_at:
            return self._template.encode(messages).input_ids
        prompt, response = self._template.encode_response(
            messages[:-1], messages[-1].content, end_token=self._score_at == "end_token"
        )
        return prompt + response

    async def score(self, rows: Sequence[tuple[int, ...]]) -> list[float]:
        """The score of each row of tokens."""
        examples = [Example(row, (False,) * len(row)) for row in rows]
        found: dict[int, float] = {}
        for indices in forward_batches(examples, ForwardConfig(), self._runtime):
            scores: Future[list[float]] = Future()
            self._waiting.append(([examples[i] for i in indices], scores))
            self._wake()
            found |= zip(indices, await asyncio.wrap_future(scores), strict=True)
        return [found[i] for i in range(len(examples))]

    def turn(self) -> bool:
        """One pass, in the engine's thread; whether there was one."""
        if not self._waiting:
            return False
        examples, scores = self._waiting.popleft()
        if scores.set_running_or_notify_cancel():
            try:
                scores.set_result(self._scored(examples))
            except Exception as error:  # noqa: BLE001 - told to whoever waits
                scores.set_exception(error)
        return True

    def _scored(self, examples: Sequence[Example]) -> list[float]:
        one_pass = [range(len(examples))]
        rows = per_sequence(self._roles, self._role, examples, ForwardConfig(), self._runtime, passes=one_pass)
        return [float(row) for row in rows]
