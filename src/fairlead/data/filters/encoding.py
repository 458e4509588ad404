"""Broken encodings: mended where that is safe, and dropped where too much is lost."""

import re
from collections.abc import Callable
from functools import partial

import ftfy
from ftfy import fixes

from fairlead.config.filters import RepairConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import outside_code, settled
from fairlead.data.views import whole_text
from fairlead.records import Record

LOST = "\ufffd"
_SUSPECT = re.compile(r"[\u0080-\u1fff\ud800-\udfff]")  # begins UTF-8 that was read as a single-byte encoding
_SPEAKS_OF_HTML = re.compile(r"html|xml|xss|entit|escap|markup|<\w|实体|转义|标签|標籤", re.IGNORECASE)
# Only what was read in the wrong encoding: full-width forms, curly quotes, ligatures and line ends are no mistakes
_MOJIBAKE = ftfy.TextFixerConfig(
    unescape_html=False,
    remove_terminal_escapes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    fix_line_breaks=False,
    remove_control_chars=False,
    normalization=None,
    explain=False,
)


def repair(record: Record, config: RepairConfig) -> Kept | Dropped:
    """Mend the texts outside code; drop the record where characters are lost for good."""
    whole = whole_text(record)
    mends: dict[str, Callable[[str], str]] = {}
    if config.html_entities and not _SPEAKS_OF_HTML.search(whole):
        mends["HTML entities"] = fixes.unescape_html
    if config.mojibake:
        mends["mojibake"] = _without_mojibake
    if config.control_characters:
        mends["control characters"] = _without_controls
    kept = settled(record, {name: partial(outside_code, change=mend) for name, mend in mends.items()})
    if isinstance(kept, Dropped):
        return kept
    whole = whole_text(kept.record)
    if whole.count(LOST) > config.max_lost * len(whole):
        return Dropped(f"lost characters (U+FFFD) above {config.max_lost:g} of the text")
    return kept


def _without_mojibake(text: str) -> str:
    return ftfy.fix_text(text, _MOJIBAKE) if _SUSPECT.search(text) else text


def _without_controls(text: str) -> str:
    return fixes.remove_control_chars(fixes.remove_terminal_escapes(text))
