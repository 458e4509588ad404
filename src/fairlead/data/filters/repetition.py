"""Texts that repeat themselves."""

import re
from functools import lru_cache

import numpy as np

from fairlead.config.filters import RepetitionConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import main_texts, prose, words_of
from fairlead.data.language import is_chinese
from fairlead.data.shingles import hash_shingles
from fairlead.records import Record

_RULERS = r"\s\-=_*#~.·•…—–─━═|+/\\<>^"
_RULER = re.compile(f"[{_RULERS}]{{3,}}")


def repetition(record: Record, config: RepetitionConfig) -> Kept | Dropped:
    """Whether a text says the same thing again and again."""
    for text in map(prose, main_texts(record)):
        if config.max_same and _same(config.max_same).search(text):
            return Dropped(f"one character more than {config.max_same} times in a row")
        if len(words_of(text)) < config.min_words:
            continue
        if line_share(text) > config.max_line_share:
            return Dropped(f"repeated lines above {config.max_line_share:g}")
        width = config.characters if is_chinese(text) else config.words
        if run_share(text, width) > config.max_run_share:
            return Dropped(f"repeated runs of {width} above {config.max_run_share:g}")
    return Kept(record)


def line_share(text: str) -> float:
    """Share of the lines with a letter or digit that stood before."""
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def run_share(text: str, width: int) -> float:
    """Share of the runs of `width` words that stood before."""
    runs = hash_shingles([_RULER.sub(" ", text)], width).values
    return 1 - len(np.unique(runs)) / len(runs) if len(runs) else 0.0


@lru_cache(maxsize=8)
def _same(most: int) -> re.Pattern[str]:
    return re.compile(f"([^0-9{_RULERS}])\\1{{{most},}}")
