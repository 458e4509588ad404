"""Fenced blocks of the README and the pages: what a reader may copy."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\S+)(?: +(\S+))?\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """(mark, text) of each block; the mark is the word after the language, such as `run`."""
    for found, mark, text in _FENCE.findall(page.read_text()):
        if found == language:
            yield mark, text


def commands(page: Path, *, mark: str | None = None) -> Iterator[list[str]]:
    """Words of each command in `sh` and `console` blocks, comments and prompts taken off, `&&` taken apart."""
    for language in ("sh", "console"):
        for found, text in blocks(page, language):
            if mark is not None and found != mark:
                continue
            joined = text.replace("\\\n", " ")
            lines = [
                line.removeprefix("$ ") for line in joined.splitlines() if language == "sh" or line.startswith("$ ")
            ]
            for line in lines:
                for part in line.split(" && "):
                    if words := shlex.split(part, comments=True):
                        yield words
