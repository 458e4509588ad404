"""One side of a comparison: a process that does a round of work whenever `compare.py` says go.

Copied into no environment: a peer's own Python runs it from here, so it imports the standard library only.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

DEVICE = os.environ.get("BENCH_DEVICE", "cpu")


class Turn:
    """The talk with `compare.py` over standard input and output: a line of JSON each way.

    A side builds its model, calls `begin`, works, calls `end` with what it did, works again, and so on: `begin` and
    `end` return when the next round may start, and end the process after the last one. A real trainer calls `end` from
    its own callback between two steps. Libraries that print do so on standard error.
    """

    def __init__(self) -> None:
        self._lines = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._imported = 0
        self._start = 0.0

    def imported(self) -> None:
        """All is imported and nothing is loaded: memory counts from here."""
        self._imported = resident_bytes() if DEVICE == "cpu" else 0

    def begin(self, **facts: object) -> None:
        """The first round may start; `facts` are settings that go into the result."""
        self._say({"ready": facts, "imported_bytes": self._imported})
        self._wait()

    def end(self, *, seconds_before: float = 0.0, **measured: object) -> None:
        """A round is over. `measured` holds `units` (what the rate counts) and whatever both sides must agree on.

        `seconds` among them takes the place of this clock's.

        `seconds_before` is work of this round that was done and timed before the first one.
        """
        synchronise()
        seconds = time.perf_counter() - self._start + seconds_before
        self._say({"seconds": seconds, **measured, "peak_bytes": peak_bytes() - self._imported})
        self._wait()

    def _wait(self) -> None:
        if sys.stdin.readline().strip() != "go":
            self._lines.close()
            os._exit(0)  # a trainer in mid-run has threads and files of its own; nothing of them is wanted
        self._start = time.perf_counter()

    def _say(self, line: dict[str, Any]) -> None:
        self._lines.write(json.dumps(line) + "\n")


def facts(model: Any, *packages: Any, **more: object) -> dict[str, object]:
    """What a peer says of itself: versions of its packages, torch first, and how its model runs."""
    return {
        "packages": {package.__name__: package.__version__ for package in packages},
        "weights": str(next(model.parameters()).dtype), "attention": model.config._attn_implementation,
        "threads": packages[0].get_num_threads(), **more,
    }  # fmt: skip


def resident_bytes() -> int:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def synchronise() -> None:
    """Wait until the device has done its work."""
    if DEVICE == "cuda":
        import torch

        torch.cuda.synchronize()


def peak_bytes() -> int:
    """The highest memory so far, in bytes: resident, or what CUDA's allocator held in use."""
    if DEVICE == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
