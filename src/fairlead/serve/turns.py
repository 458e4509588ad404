"""One thread for all models on one base: each in its turn, for an adapter is in use from a forward to its end."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch


class Turns:
    """Calls every member, one after the other, for as long as one of them says that it had something to do."""

    def __init__(self) -> None:
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def start(self, members: Sequence[Callable[[], bool]], weights: AbstractContextManager[None], *, name: str) -> None:
        """Begin the thread; what `weights` lays out is there for as long as it lives."""
        self._thread = threading.Thread(target=self._run, args=(members, weights), name=f"turns of {name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread after its turn."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    @torch.no_grad()
    def _run(self, members: Sequence[Callable[[], bool]], weights: AbstractContextManager[None]) -> None:
        with weights:
            while not self._stopping:
                self._wake.clear()
                worked = [turn() for turn in members]
                if not any(worked):
                    self._wake.wait()
