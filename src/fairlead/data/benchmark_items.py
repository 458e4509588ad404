"""The questions of evaluation files, whatever layout those have, to be looked for in training data. No torch here.

Evaluation files nest and name as they like: a question is what any object has under one of `QUESTIONS`, at any depth; a
passage beside it is an item as well. Of a table without such a column the first one holds the questions, the header
line too, as in MMLU's files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.data.sources import expand, read_rows
from fairlead.errors import ExitCode, UserError

QUESTIONS = ("question", "problem", "prompt", "input", "instruction", "turns", "user_prompt", "query")
BESIDE = ("passage", "context")  # an item of its own: a stolen passage is contamination too


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """A question or a passage; `source` is `file:position`."""

    source: str
    text: str


def read_benchmarks(paths: Iterable[Path | str]) -> list[BenchmarkItem]:
    """All questions of the files and folders, in order. Raises UserError for a file without a question."""
    items: list[BenchmarkItem] = []
    for path in expand(paths):
        texts = list(_texts(path))
        if not texts:
            raise UserError(
                "no question was found in this evaluation file", where=str(path),
                want=f"a field {', '.join(QUESTIONS)}", fix="name the files of questions alone",
                exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        items += [BenchmarkItem(f"{path}:{number}", text) for number, text in enumerate(texts, start=1)]
    return items


def _texts(path: Path) -> Iterator[str]:
    table = ".csv" in path.suffixes or ".tsv" in path.suffixes
    for position, (number, row) in enumerate(read_rows(path)):
        if isinstance(row, str):
            raise UserError(f"this row cannot be read: {row}", where=f"{path}:{number}", exit_code=ExitCode.BAD_DATA)
        found = list(_walk(row))
        if not found and table:
            found = [*list(row)[: position == 0], *list(row.values())[:1]]
        yield from (text for text in found if isinstance(text, str) and text.strip())


def _walk(document: Any) -> Iterator[str]:
    """Every question below, each with what stands beside it."""
    if isinstance(document, list):
        for part in document:
            yield from _walk(part)
    if not isinstance(document, dict):
        return
    by_name = {name.lower(): value for name, value in document.items() if isinstance(name, str)}
    name = next((key for key in QUESTIONS if _is_text(by_name.get(key))), None)
    if name is not None:
        yield "\n".join(_as_texts(by_name[name]))
        yield from (by_name[key] for key in BESIDE if isinstance(by_name.get(key), str))
        return
    for value in document.values():
        yield from _walk(value)


def _is_text(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(part, str) for part in value)
    return isinstance(value, str)


def _as_texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
