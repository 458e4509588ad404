"""Texts that are hardly language."""

import pytest
from hypothesis import given

from fairlead.config.filters import SymbolsConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.symbols import symbols
from fairlead.records import Document
from tests.data.filters.rows import CLEAN, RECORDS, ask, chat, pair

CONFIG = SymbolsConfig()
NOISE = "★☆◆■ >>> ### 点击 *** $$$ ||| " * 10
DIGITS = "1999 2000 3141 5926 5358 " * 8 + "some of them"
SUM = (
    "21336 * 5012 = 21336 * 5000 + 21336 * 10 + 21336 * 2 = 106680000 + 213360 + 42672 = 106893360 + 42672 = 106936032"
)
LINKS = "\n".join(f"https://www.shop.example/item/{n}?ref=home" for n in range(8)) + "\n快来看"


@pytest.mark.parametrize(
    ("text", "reason"), [(NOISE, "symbols above 0.4"), (DIGITS, "digits above 0.8"), (LINKS, "URLs above 0.8")]
)
def test_what_is_hardly_language_goes(text, reason):
    for record in (chat(text), Document(text), ask(text), pair(text, "fine")):
        assert symbols(record, CONFIG) == Dropped(reason)
    for record in (pair("fine", text), chat("fine", text)):
        assert symbols(record, CONFIG) == Kept(record)


@pytest.mark.parametrize(
    "text",
    [
        *CLEAN,
        "42",
        SUM,
        f"数字：\n```\n{DIGITS * 5}\n```" + "这是一些数字。" * 20,
        f"链接：\n```\n{LINKS * 5}\n```" + "这是一些链接。" * 20,
        f"```\nx\n```\n{NOISE}",
        "3.14159265358979",
        "***",
        "See https://docs.python.org/3/library/re.html for all of it: the page explains each pattern with an example.",
        "代码如下：\n```c\n" + "#define X(a) {*(a)|=~0;}\n" * 20 + "```",
        "| 年份 | 人口（万） |\n|---|---|\n"
        + "\n".join(f"| {year} | 一千二百{year % 10}十 |" for year in range(2000, 2010)),
    ],
)
def test_language_code_and_short_answers_are_kept(text):
    assert symbols(chat(text), CONFIG) == Kept(chat(text))


@pytest.mark.parametrize(("option", "text"), [("max_symbols", NOISE), ("max_digits", DIGITS), ("max_urls", LINKS)])
def test_each_limit_moves(option, text):
    assert symbols(chat(text), SymbolsConfig(**{option: 1})) == Kept(chat(text))
    assert symbols(chat(text), SymbolsConfig(min_characters=1000)) == Kept(chat(text))
    assert isinstance(symbols(chat("a # 1 www.a.b"), SymbolsConfig(min_characters=5, **{option: 0.05})), Dropped)


def test_vowel_signs_are_no_symbols():
    hindi = "यह हिंदी में लिखा हुआ एक वाक्य है जिसमें बहुत सारे मात्रा चिह्न हैं और यह कोई प्रतीक नहीं है। " * 3
    assert symbols(chat(hindi), SymbolsConfig(max_symbols=0)) == Kept(chat(hindi))


@given(RECORDS)
def test_no_text_is_too_odd(record):
    assert isinstance(symbols(record, SymbolsConfig(min_characters=1)), Kept | Dropped)
