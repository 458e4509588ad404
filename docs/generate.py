"""Write the pages that follow from the code, docs/options.md and docs/exit-codes.md; `--check` compares instead."""

import inspect
import re
import sys
from pathlib import Path

from fairlead.config.chat import ChatConfig
from fairlead.config.compare import CompareConfig
from fairlead.config.document import options_page
from fairlead.config.grow import GrowConfig
from fairlead.config.journey import JourneyConfig
from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.refine import RefineConfig
from fairlead.config.replies import RepliesConfig
from fairlead.config.serve import ServeConfig
from fairlead.config.stages import DpoConfig, EvalConfig, KtoConfig, RewardConfig, SftConfig
from fairlead.errors import ExitCode

VERBS = {
    "sft": SftConfig,
    "replies": RepliesConfig,
    "reward": RewardConfig,
    "ppo": PpoConfig,
    "grpo": GrpoConfig,
    "dpo": DpoConfig,
    "kto": KtoConfig,
    "eval": EvalConfig,
    "chat": ChatConfig,
    "serve": ServeConfig,
    "run": JourneyConfig,
    "data refine": RefineConfig,
    "data grow": GrowConfig,
    "feedback compare": CompareConfig,
}


def main() -> None:
    """Write each page, or exit 1 naming those that differ."""
    folder = Path(__file__).parent
    pages = {"options.md": options_page(VERBS), "exit-codes.md": exit_codes_page()}
    if "--check" not in sys.argv:
        for name, text in pages.items():
            (folder / name).write_text(text)
        return
    stale = [
        name for name, text in pages.items() if not (folder / name).is_file() or (folder / name).read_text() != text
    ]
    if stale:
        sys.exit(f"error: docs/{', docs/'.join(stale)} do not follow the code\nfix: make docs")


def exit_codes_page() -> str:
    """A table of the codes with the comments beside them in errors.py."""
    rows = re.findall(r"^    (\w+) = (\d+)(?:  # (.+))?$", inspect.getsource(ExitCode), flags=re.MULTILINE)
    assert len(rows) == len(ExitCode)
    lines = [
        "# Exit codes",
        "",
        "Generated from `src/fairlead/errors.py` by `make docs`. Every failure of the `fairlead` command prints",
        "`error: where: what; got what came; want what was wanted` and `fix: one line` on stderr, and ends with one of",
        "these codes. `--debug` adds the traceback.",
        "",
        "| code | name | meaning |",
        "|---|---|---|",
        *(f"| {code} | {name} | {meaning or 'done'} |" for name, code, meaning in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
