"""How many requests are worked on, how many may wait, and what the operator sees of them."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fairlead.serve.errors import busy

RETRY_SECONDS = 1
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Gate:
    """At most `max_running` requests are worked on and `max_waiting` wait; more are told to come back."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._places = asyncio.Semaphore(max_running)
        self._max_waiting = max_waiting
        self.running = self.waiting = 0

    @asynccontextmanager
    async def entered(self) -> AsyncGenerator[None]:
        """A place, once one is free. Raises HttpError (429) at once where too many wait for one."""
        if self._places.locked() and self.waiting >= self._max_waiting:
            raise busy(RETRY_SECONDS)
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()


class Metrics:
    """Prometheus' figures, under vLLM's names where they mean the same."""

    def __init__(self, gate: Gate) -> None:
        self._registry = CollectorRegistry()
        label = ["model_name"]
        self.prompt_tokens = Counter("vllm:prompt_tokens", "Tokens read.", label, registry=self._registry)
        self.drawn_tokens = Counter("vllm:generation_tokens", "Tokens drawn.", label, registry=self._registry)
        self.finished = Counter(
            "vllm:request_success", "Finished requests.", [*label, "finished_reason"], registry=self._registry
        )
        self.refused = Counter("fairlead:requests_refused", "Errors.", ["status"], registry=self._registry)
        self.first_token = Histogram(
            "vllm:time_to_first_token_seconds", "From the request to its first text.", label,
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self.whole = Histogram(
            "vllm:e2e_request_latency_seconds", "From the request to its end.", label,
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        for name, text, read in (
            ("vllm:num_requests_running", "Requests that are worked on.", lambda: gate.running),
            ("vllm:num_requests_waiting", "Requests that wait.", lambda: gate.waiting),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def refuse(self, status: int) -> None:
        """A request was answered by an error."""
        self.refused.labels(status).inc()

    def page(self) -> bytes:
        """All figures as text."""
        return generate_latest(self._registry)


class Clock:
    """Times of one request, told once each."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics, self._model, self._began, self._heard = metrics, model, time.monotonic(), False

    def text(self) -> None:
        """Something was said."""
        if not self._heard:
            self._heard = True
            self._metrics.first_token.labels(self._model).observe(time.monotonic() - self._began)

    def end(self, num_prompt: int, num_drawn: int, reasons: list[str]) -> None:
        """The request is over, finished or not."""
        self._metrics.prompt_tokens.labels(self._model).inc(num_prompt)
        self._metrics.drawn_tokens.labels(self._model).inc(num_drawn)
        self._metrics.whole.labels(self._model).observe(time.monotonic() - self._began)
        for reason in reasons or ["abort"]:
            self._metrics.finished.labels(self._model, reason).inc()
