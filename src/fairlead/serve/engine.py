"""A model on the project's engine, answering many at once: one thread makes its turns, the loop hears of them."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

import torch

from fairlead.generate.policy import load_policy
from fairlead.generate.requests import Request, uniforms_of
from fairlead.models.sources import Source
from fairlead.records import Message
from fairlead.runtime.start import Runtime
from fairlead.serve.models import Ask, Drawn

LONGEST = 1 << 20  # tokens, of a model without positions of its own
_END = None  # what a listener finds behind its last token


class EngineModel:
    """One policy of a stage, folder, hub id or starter name.

    `generate` may be called by any number of coroutines of one loop. Its requests share the engine's batch; closing the
    iterator cancels its request, which then takes no further turn.
    """

    def __init__(self, source: Source, runtime: Runtime, *, name: str) -> None:
        policy = load_policy(source, runtime)
        self.name, self.notes = name, policy.notes
        self.context_tokens = policy.context_tokens or LONGEST
        self._template, self._engine = policy.template, policy.engine
        self._ends = frozenset(policy.template.end_token_ids)
        self._arrived: deque[Request] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._tell: dict[int, Callable[[Drawn | BaseException | None], object]] = {}  # by the identity of a request
        self._thread = threading.Thread(target=self._turns, name=f"engine of {name}", daemon=True)
        self._thread.start()

    def encode_chat(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """By the model's own chat template; special tokens inside a message stay text."""
        return self._template.encode_prompt(messages)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Plain text, with what the tokenizer puts before one."""
        return self._template.encode_text(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        return self._template.decode(tokens)

    async def generate(self, ask: Ask) -> AsyncGenerator[Drawn]:
        """The response's tokens, as soon as each turn is over."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Drawn | BaseException | None]()

        limit = ask.sampling.max_new_tokens
        uniforms = uniforms_of(ask.seed, limit)
        request = Request(0, ask.prompt, ask.sampling, uniforms, limit, ask.penalties, ask.num_top, self._heard)
        self._tell[id(request)] = lambda drawn: loop.call_soon_threadsafe(queue.put_nowait, drawn)
        self._arrived.append(request)
        self._wake.set()
        try:
            while (drawn := await queue.get()) is not _END:
                if isinstance(drawn, BaseException):
                    raise RuntimeError("the engine has failed") from drawn  # noqa: TRY004
                yield drawn
        finally:
            request.cancelled = True
            del self._tell[id(request)]
            self._wake.set()

    def _heard(self, request: Request) -> None:
        """In the engine's thread."""
        tell = self._tell.get(id(request))
        if tell is None:
            return  # nobody listens any more
        token = request.tokens[-1]
        tell(Drawn(token, request.logprobs[-1], request.top[-1] if request.top else (), token in self._ends))
        if not request.running:
            tell(_END)

    def close(self) -> None:
        """End the thread after its turn."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    @torch.no_grad()
    def _turns(self) -> None:
        batch = self._engine.batch()
        with self._engine.weights():
            while not self._stopping:
                if not batch.busy and not self._arrived:
                    self._wake.wait()
                    self._wake.clear()
                while self._arrived:
                    batch.add(self._arrived.popleft())
                try:
                    batch.turn()
                except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next ones find a new batch
                    for tell in list(self._tell.values()):
                        tell(error)
                    batch = self._engine.batch()
