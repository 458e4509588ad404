"""Which writing system a text is in; a language only where the two are the same. No torch here."""

import re

_LETTER = re.compile(r"[^\W\d_]")
_SCRIPTS = {
    "Latin script": r"A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff",
    "Han": r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "Kana": r"\u3040-\u30ff",
    "Korean": r"\u1100-\u11ff\uac00-\ud7af",
    "Cyrillic script": r"\u0400-\u052f",
    "Greek": r"\u0370-\u03ff",
    "Arabic script": r"\u0600-\u06ff\u0750-\u077f",
    "Hebrew script": r"\u0590-\u05ff",
    "Devanagari script": r"\u0900-\u097f",
    "Thai": r"\u0e00-\u0e7f",
}
_OF = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
_ENOUGH = 4000  # characters that decide


def script_of(text: str) -> str:
    """The script of most letters. Han counts threefold: a Chinese text may quote much code or English."""
    text = text[:_ENOUGH]
    letters = len(_LETTER.findall(text))
    if not letters:
        return "no letters"
    counts = {name: len(pattern.findall(text)) for name, pattern in _OF.items()}
    han, kana = counts.pop("Han"), counts.pop("Kana")
    if kana + han >= letters / 3:
        return "Japanese" if kana > han / 10 else "Chinese"
    name = max(counts, key=lambda script: counts[script])
    return name if counts[name] >= letters / 3 else "another script"
