"""A model on the project's engine, answering many at once: a thread makes its turns, the loop hears of them."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from fairlead.generate.policy import Policy
from fairlead.generate.requests import Request, uniforms_of
from fairlead.records import Message
from fairlead.serve.models import Ask, Drawn

LONGEST = 1 << 20  # tokens, of a model without positions of its own
_END = None  # what a listener finds behind its last token


class EngineModel:
    """One policy, whose `turn` a thread calls whenever `wake` asks for it (turns.py).

    `generate` may be called by any number of coroutines of one loop. Its requests share the engine's batch; closing the
    iterator cancels its request, which then takes no further turn.
    """

    def __init__(self, name: str, policy: Policy, wake: Callable[[], object]) -> None:
        self.name, self.notes = name, policy.notes
        self.context_tokens = policy.context_tokens or LONGEST
        self._template, self._engine, self._wake = policy.template, policy.engine, wake
        self._ends = frozenset(policy.template.end_token_ids)
        self._arrived: deque[Request] = deque()
        self._batch = self._engine.batch()
        self._tell: dict[int, Callable[[Drawn | BaseException | None], object]] = {}  # by the identity of a request

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """By the model's own chat template; special tokens inside a message stay text."""
        return self._template.encode_prompt(messages)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Plain text, with what the tokenizer puts before one."""
        return self._template.encode_text(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        return self._template.decode(tokens)

    def token_bytes(self, token: int) -> bytes:
        """By the tokenizer's vocabulary."""
        return self._template.token_bytes(token)

    async def generate(self, ask: Ask) -> AsyncGenerator[Drawn]:
        """The response's tokens, as soon as each turn is over."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Drawn | BaseException | None]()

        limit = ask.sampling.max_new_tokens
        uniforms = uniforms_of(ask.seed, limit)
        request = Request(0, ask.prompt, ask.sampling, uniforms, limit, ask.penalties, ask.num_top, self._heard)
        self._tell[id(request)] = lambda drawn: loop.call_soon_threadsafe(queue.put_nowait, drawn)
        self._arrived.append(request)
        self._wake()
        try:
            while (drawn := await queue.get()) is not _END:
                if isinstance(drawn, BaseException):
                    raise RuntimeError("the engine has failed") from drawn  # noqa: TRY004
                yield drawn
        finally:
            request.cancelled = True
            del self._tell[id(request)]
            self._wake()

    def turn(self) -> bool:
        """A token for every running request, in the engine's thread; whether there was one."""
        while self._arrived:
            self._batch.add(self._arrived.popleft())
        if not self._batch.busy:
            return False
        try:
            self._batch.turn()
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next ones find a new batch
            for tell in list(self._tell.values()):
                tell(error)
            self._batch = self._engine.batch()
        return True

    def _heard(self, request: Request) -> None:
        tell = self._tell.get(id(request))
        if tell is None:
            return  # nobody listens any more
        token = request.tokens[-1]
        tell(Drawn(token, request.logprobs[-1], request.top[-1] if request.top else (), token in self._ends))
        if not request.running:
            tell(_END)
