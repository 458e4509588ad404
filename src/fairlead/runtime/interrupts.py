"""Ctrl-C and SIGTERM: the first finishes the step and saves, the second ends the process at once."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from fairlead.errors import ExitCode


class Interrupts:
    """While active, remembers the first signal instead of dying of it."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> ExitCode:
        """130 after SIGINT, 143 after SIGTERM."""
        return ExitCode.TERMINATED if self.received == signal.SIGTERM else ExitCode.INTERRUPTED

    def __enter__(self) -> Self:
        """Take over both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the handler's signature
        if self.received is not None:
            os._exit(128 + number)
        self.received = signal.Signals(number)


@contextmanager
def exit_at_once() -> Generator[None]:
    """While active both signals end this process by SystemExit, for a wait whose work others do and save."""
    before = {number: signal.signal(number, _exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_ctrl_c() -> None:
    """A terminal sends it to every process; the one that started this one will end it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's signature
    raise SystemExit(ExitCode.TERMINATED if number == signal.SIGTERM else ExitCode.INTERRUPTED)
