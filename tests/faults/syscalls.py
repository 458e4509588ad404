"""Let the N-th system call of an action fail, or kill the process there."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Every call of `os` by which our code, pathlib and shutil change a disk.
CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "ftruncate", "fchmod")
KILLED = 9


@dataclass
class Fault:
    """What happens at call number `at` (from 0): None only counts, `kill` ends the process, an errno is raised."""

    at: int = -1
    effect: str | int | None = None
    calls: list[str] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    """Call and path, for the calls that order a save (Linux says what a descriptor stands for)."""

    def strike(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        if name in ("fsync", "rename", "unlink"):
            of_descriptor = Path(f"/proc/self/fd/{args[0]}")
            self.log.append((name, str(of_descriptor.resolve() if name == "fsync" else args[0])))
        if number != self.at or self.effect is None:
            return function(*args, **kwargs)
        if name == "write":  # half of it gets through
            function(args[0], bytes(args[1])[: len(args[1]) // 2])
        if self.effect == "kill":
            os._exit(KILLED)
        raise OSError(self.effect, os.strerror(self.effect), "the disk")


def run_with(fault: Fault, action: Callable[[], Any]) -> None:
    """Run an action with the fault in place."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            real = getattr(os, name)
            patch.setattr(os, name, lambda *args, _name=name, _real=real, **kw: fault.strike(_name, _real, args, kw))
        action()


def killed_at(number: int, action: Callable[[], Any]) -> bool:
    """Run an action in a child that dies at call `number`; False when the action has no such call."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            run_with(Fault(number, "kill"), action)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def errors() -> list[Any]:
    """The errors that a disk gives."""
    return [pytest.param(code, id=errno.errorcode[code]) for code in (errno.ENOSPC, errno.EIO, errno.EROFS)]
