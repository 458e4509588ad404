"""What the environment variables say. No torch: the light commands read this too."""

import os
from pathlib import Path

from fairlead.errors import UserError


def is_first_rank() -> bool:
    """Whether this process is the one that writes and speaks; torchrun numbers them."""
    return os.environ.get("RANK", "0") == "0"


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/fairlead, or ~/.cache/fairlead. It need not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "fairlead"


def secret(variable: str) -> str:
    """The key that the user keeps in this environment variable; empty without a name, UserError when it is not set."""
    found = os.environ.get(variable, "").strip() if variable else ""
    if variable and not found:
        raise UserError(
            "this environment variable is not set", where=variable, want="the key of the endpoint",
            fix=f"export {variable}=KEY, or name another variable",
        )  # fmt: skip
    return found
