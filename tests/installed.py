"""The installed command in a process of its own, and how a failure of it must look."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = Path(sys.executable).with_name("fairlead")


def fairlead(*words, cwd=None, before=(), **environment):
    """Run the command; `before` is what starts it, such as unshare with its options."""
    return subprocess.run(
        [*map(str, before), str(COMMAND), *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=120,
        check=False,
    )


def failure(result, code):
    """The lines of stderr of a command that failed as it should: one message, then how to mend it."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert lines[-1].startswith("fix: ")
    return lines[start:]
