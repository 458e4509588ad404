"""Answers that say nothing, and answers that break off."""

import re
import unicodedata

from fairlead.config.filters import TruncatedConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import FENCE, taught_texts
from fairlead.data.views import answer_texts
from fairlead.records import Document, Record

_COMMA = re.compile(r"[,，、]\Z")
_EMPTY_ITEM = re.compile(r"\n[ \t]*(?:[-*•]|\d{1,3}[.)、．])\Z")
_CLOSING = re.compile(r"\b(?:regards|sincerely|yours|truly|faithfully|wishes|love|cheers|thanks|thank you)\W*\Z", re.I)
_ITEM = re.compile(r"[ \t]*(?:[-*•#>|]|\(?\w{1,3}[.)、．:：）])")
_MIN_LAST_LINE = 60  # columns; titles, signatures and items of tables are shorter


def empty(record: Record) -> Kept | Dropped:
    """Whether every answer, or the document, says something."""
    for text in answer_texts(record):
        if all(unicodedata.category(character)[0] in "ZPC" for character in text):
            return Dropped("an answer is empty" if not isinstance(record, Document) else "the document is empty")
    return Kept(record)


def truncated(record: Record, config: TruncatedConfig) -> Kept | Dropped:
    """Whether the answers are finished. A document may be a part of one, so it passes."""
    texts = () if isinstance(record, Document) else taught_texts(record)
    for text in map(str.rstrip, texts):
        if config.unclosed_code and text.count(FENCE) % 2:
            return Dropped("a code block is not closed")
        if config.dangling and _is_dangling(text):
            return Dropped("ends with a comma or an empty list item")
        if config.unfinished_characters and len(text) >= config.unfinished_characters and is_unfinished(text):
            return Dropped("ends in the middle of a sentence")
    return Kept(record)


def _is_dangling(text: str) -> bool:
    if _COMMA.search(text):
        return not _CLOSING.search(text)  # a letter without a name below
    return bool(_EMPTY_ITEM.search(text))


def is_unfinished(text: str) -> bool:
    """Whether the last line is a long one of prose, ends with a letter and has no end of a sentence to follow."""
    line = text.rpartition("\n")[2]
    if not line or _ITEM.match(line) or FENCE in line:
        return False
    columns = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)
    return columns >= _MIN_LAST_LINE and line[-1].isalpha() and "://" not in line.split()[-1]
