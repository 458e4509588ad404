"""Broken encodings: what is mended, and what must stay byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config.filters import RepairConfig
from fairlead.data.filters.encoding import repair
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.views import map_texts
from tests.data.filters.rows import CLEAN, RECORDS, ask, chat, pair

CONFIG = RepairConfig()


def mended(text, config=CONFIG, question="Tell me."):
    kept = repair(chat(text, question), config)
    assert isinstance(kept, Kept)
    return kept.record.messages[-1].content, kept.changed


@pytest.mark.parametrize(
    ("broken", "whole", "changed"),
    [
        ("It doesnâ€™t work", "It doesn’t work", "mojibake"),
        ("a cafÃ© in Paris", "a café in Paris", "mojibake"),
        ("ä½\xa0å¥½ï¼Œä¸–ç•Œ", "你好，世界", "mojibake"),
        ("价格是5元，doesnâ€™t", "价格是5元，doesn’t", "mojibake"),
        ("Tom &amp; Jerry said &quot;hi&quot;", 'Tom & Jerry said "hi"', "HTML entities"),
        ("他说&ldquo;你好&rdquo;&nbsp;吗", "他说“你好”\xa0吗", "HTML entities"),
        ("a\x00b\x07c\ufeffd\x1b[31mred\x1b[0m", "abcdred", "control characters"),
        ("&eacute; Ã©\x00", "é é", "HTML entities, mojibake, control characters"),
    ],
)
def test_what_is_broken_is_mended(broken, whole, changed):
    assert mended(broken) == (whole, changed)


@pytest.mark.parametrize(
    "text",
    [
        *CLEAN,
        "“全角”，。：；！？（）【】％＃ＡＢＣ１２３　全角空格",
        "“curly” ‘quotes’ — ﬁne ligatures…",
        "café naïve Ångström señor über",
        "日本語のテキスト、カタカナ",
        "naïve line\r\nend\ttab\u2028x",
        "AT&T, R&D; if a<b && c>d",
        "`&amp;` stands for an ampersand",
        "Ω≈ç√∫ ∀x∈ℝ 👩‍👩‍👧",
    ],
)
def test_what_is_whole_stays_as_it_is(text):
    assert mended(text) == (text, "")


def test_code_is_left_alone():
    code = "```\nx = '&amp; â€™ \x00'\n```"
    assert mended(f"cafÃ©\n{code}\ncafÃ© `Ã©`") == (f"café\n{code}\ncafé `Ã©`", "mojibake")


def test_entities_stay_where_html_is_the_subject():
    assert mended("Write &lt; for it.", question="How do I escape a bracket in HTML?")[1] == ""
    assert mended("用 &lt; 表示", question="怎么转义小于号？")[1] == ""
    assert mended("Write &lt; for it.")[0] == "Write < for it."


@pytest.mark.parametrize(
    ("option", "text"), [("mojibake", "cafÃ©"), ("html_entities", "a &amp; b"), ("control_characters", "a\x00b")]
)
def test_each_mend_can_be_left_out(option, text):
    assert mended(text)[0] != text
    assert mended(text, RepairConfig(**{option: False})) == (text, "")


def test_records_with_lost_characters_go():
    lost = chat("我们去了北\ufffd\ufffd的故宫")
    assert repair(lost, CONFIG) == Dropped("lost characters (U+FFFD) above 0.005 of the text")
    assert repair(lost, RepairConfig(max_lost=0.5)) == Kept(lost)
    long = chat("\ufffd" + "a" * 300)
    assert repair(long, CONFIG) == Kept(long)
    assert isinstance(repair(long, RepairConfig(max_lost=0)), Dropped)


def test_every_text_of_a_record_is_mended():
    assert repair(pair("Ã©", "Ã¨", "Ãª"), CONFIG).record == pair("é", "è", "ê")
    assert repair(ask("Ã©", "Ã¨"), CONFIG).record == ask("é", "è")


@given(RECORDS)
def test_mending_twice_is_mending_once(record):
    once = repair(record, RepairConfig(max_lost=1))
    if isinstance(once, Dropped):
        return
    assert repair(once.record, RepairConfig(max_lost=1)) == Kept(once.record)


@given(st.text(st.characters(min_codepoint=0x3000, max_codepoint=0x9FFF, exclude_categories=["Cn"])), RECORDS)
def test_chinese_text_stays_byte_for_byte(text, record):
    record = map_texts(record, lambda _: text)
    assert repair(record, CONFIG) == Kept(record)
