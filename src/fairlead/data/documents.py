"""What each layout of documents means: plain texts, and books of chapters and poems. No torch here."""

from collections.abc import Iterator
from typing import Any

from fairlead.data.drafts import BadRowError, Draft, LeftOutError
from fairlead.data.fields import as_text, text

_TITLES = ("title", "chapter", "rhythmic")  # a Song poem is called by its tune


def document(row: dict[str, Any]) -> Draft:
    """A row with `text`, whatever stands beside it; a web response that is no page is left out."""
    if row.get("not_a_page") is not None:
        raise LeftOutError(f"a response that is no web page ({row['not_a_page']})")
    return Draft((), text=text(row, "text"))


def chapters(row: dict[str, Any]) -> list[Draft]:
    """Every object with `paragraphs`, at any depth, is a document: its title, its author, its paragraphs, a line each.

    The layout of chinese-poetry: a poem or chapter per row, or one object for a whole book, whose `abstract` is a
    document too.
    """
    return [Draft((), text=found) for found in _chapters(row)]


def _chapters(part: dict[str, Any]) -> Iterator[str]:
    title = [as_text(part[key], f"`{key}`") for key in (*_TITLES, "author") if part.get(key) is not None]
    for key in ("abstract", "paragraphs"):
        lines = part.get(key)
        if lines is not None:
            if not isinstance(lines, list):
                raise BadRowError(f"`{key}` should be a list and is a {type(lines).__name__}")
            yield "\n".join([*title, *(as_text(line, f"a text in `{key}`") for line in lines)])
    content = part.get("content")
    for inner in content if isinstance(content, list) else ():
        if isinstance(inner, dict):
            yield from _chapters(inner)
