"""Lines for the user, where there is one process alone. No torch: the refinery starts in a moment."""

import sys


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)
