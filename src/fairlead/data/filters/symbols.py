"""Texts that are hardly language: symbols, digits, URLs."""

import re
import unicodedata
from collections import Counter

from fairlead.config.filters import SymbolsConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import FENCE, main_texts, prose
from fairlead.records import Record

_ASCII_SYMBOLS = frozenset("#*@\\^_{}[]/")  # punctuation to Unicode, rare in prose; the others are of category S
_URL = re.compile(r"(?:https?://|www\.)[^\s<>\"'（）【】，。；、]+")


def symbols(record: Record, config: SymbolsConfig) -> Kept | Dropped:
    """Whether a text is mostly letters."""
    for whole in main_texts(record):
        text = prose(whole)
        counts = Counter("".join(text.split()))
        total = counts.total()
        if total < config.min_characters:
            continue
        digits = sum(count for character, count in counts.items() if character.isdigit())
        if digits > config.max_digits * total:
            return Dropped(f"digits above {config.max_digits:g}")
        if sum(map(len, _URL.findall(text))) > config.max_urls * total:
            return Dropped(f"URLs above {config.max_urls:g}")
        strange = sum(count for character, count in counts.items() if _is_symbol(character))
        if FENCE not in whole and strange > config.max_symbols * total:
            return Dropped(f"symbols above {config.max_symbols:g}")
    return Kept(record)


def _is_symbol(character: str) -> bool:
    return character in _ASCII_SYMBOLS or unicodedata.category(character)[0] in "SC"
