"""How long an iteration spends at what."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fairlead.runtime.machine import synchronise


class Phases:
    """A stopwatch for the parts of an iteration, which may each come several times."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what is done inside as this phase."""
        synchronise(self._device)
        start = time.perf_counter()
        yield
        synchronise(self._device)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def taken(self) -> dict[str, float]:
        """`NAME_seconds` of each phase since the last call."""
        taken = {f"{name}_seconds": seconds for name, seconds in self._seconds.items()}
        self._seconds.clear()
        return taken
