"""One line of progress with tokens per second and time left; on a terminal it stays one line."""

import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

SHOWN = ("loss", "accuracy", "score_mean", "kl_mean")
SECONDS_BETWEEN_LINES = 20.0  # when the output is not a terminal

_later: ContextVar[float | None] = ContextVar("seconds of a journey's later stages", default=None)


@contextmanager
def followed_by(seconds: float) -> Iterator[None]:
    """What is measured meanwhile is a stage of a journey that goes on for about `seconds` after it."""
    token = _later.set(seconds)
    try:
        yield
    finally:
        _later.reset(token)


class Progress:
    """Measures each step and tells how far the stage is."""

    def __init__(self, name: str, first_step: int, num_steps: int, *, visible: bool) -> None:
        self._name, self._num_steps, self._visible = name, num_steps, visible
        self._first = first_step
        self._start = self._last = time.perf_counter()
        self._tokens = 0
        self._later = _later.get()
        self._shown_at = float("-inf")

    @property
    def seconds(self) -> float:
        """Seconds from the start to the last step."""
        return self._last - self._start

    def advance(self, step: int, tokens: int, metrics: Mapping[str, float]) -> float:
        """Note that `step` is done; returns the seconds since the one before."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        self._tokens += tokens
        last = step >= self._num_steps
        terminal = sys.stderr.isatty()
        if self._visible and (terminal or last or now - self._shown_at > SECONDS_BETWEEN_LINES):
            self._shown_at = now
            line = self._line(step, metrics)
            if terminal:  # a line that wraps could not be written over
                line = "\r\033[K" + line[: shutil.get_terminal_size().columns - 1]
            print(line, end="\n" if last or not terminal else "", file=sys.stderr, flush=True)
        return max(seconds, 1e-9)

    def _line(self, step: int, metrics: Mapping[str, float]) -> str:
        done = step - self._first
        elapsed = max(self.seconds, 1e-9)
        left = elapsed / done * (self._num_steps - step) if done else 0.0
        numbers = "  ".join(f"{key} {metrics[key]:.3f}" for key in SHOWN if key in metrics)
        journey = "" if self._later is None else f", {minutes(left + self._later)} in all"
        return (
            f"{self._name}  step {step}/{self._num_steps}  {numbers}  {self._tokens / elapsed:,.0f} tokens/s  "
            f"{minutes(left)} left{journey}"
        )


def minutes(seconds: float) -> str:
    """Minutes and seconds, as a clock shows them."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
