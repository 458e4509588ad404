"""Texts that repeat themselves."""

import pytest
from hypothesis import given

from fairlead.config.filters import RepetitionConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.repetition import line_share, repetition, run_share
from fairlead.records import Document
from tests.data.filters.rows import CLEAN, RECORDS, ask, chat, judged, pair

CONFIG = RepetitionConfig()
LOOP_EN = "The answer is that the heart beats and beats again. " * 12
LOOP_ZH = "心脏不停地跳动，血液不停地流动。" * 12
LINES = "\n".join(
    ["It is a fine day to walk in the park.", "It is a fine day to walk in the park.", "So we walk there."] * 6
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LOOP_EN, "repeated runs of 5 above 0.45"),
        (LOOP_ZH, "repeated runs of 10 above 0.45"),
        (LINES, "repeated lines above 0.65"),
        ("哈" * 60, "one character more than 50 times in a row"),
        ("Great" + "!" * 60, "one character more than 50 times in a row"),
    ],
)
def test_loops_are_found(text, reason):
    for record in (chat(text), Document(text), ask(text), pair(text, "fine"), judged((text, True))):
        assert repetition(record, CONFIG) == Dropped(reason)
    for record in (pair("fine", text), judged((text, False)), chat("fine", text)):
        assert repetition(record, CONFIG) == Kept(record)


@pytest.mark.parametrize(
    "text",
    [*CLEAN, "ha ha ha", "-" * 200, "1" + "0" * 100, "=" * 80 + "\nA title\n" + "=" * 80, "```\n" + "}\n" * 90 + "```"],
)
def test_what_does_not_repeat_itself_is_kept(text):
    assert repetition(chat(text), CONFIG) == Kept(chat(text))


def test_code_may_repeat_itself():
    code = "    count += 1\n" * 60
    assert repetition(chat(f"Add sixty times:\n```\n{code}```"), CONFIG) == Kept(
        chat(f"Add sixty times:\n```\n{code}```")
    )
    assert isinstance(repetition(chat(code), CONFIG), Dropped)


def test_shares_by_hand():
    assert line_share("a\nb\n a\n\n---\n---") == pytest.approx(1 / 3)
    assert line_share("") == run_share("", 3) == 0
    assert run_share("a b c a b c", 3) == pytest.approx(1 / 4)  # abc bca cab abc
    assert run_share("a b ----- | ----- c", 3) == 0  # rulers are no words
    assert run_share("天天向上天天", 2) == pytest.approx(1 / 5)


def test_each_limit_moves():
    assert isinstance(repetition(chat(LINES), RepetitionConfig(max_line_share=1, max_run_share=1)), Kept)
    assert isinstance(repetition(chat(LOOP_EN), RepetitionConfig(max_run_share=1)), Kept)
    assert isinstance(repetition(chat(LOOP_EN), RepetitionConfig(min_words=500)), Kept)
    assert isinstance(repetition(chat("ha ha ha ha ha"), RepetitionConfig(min_words=5, words=2)), Dropped)
    assert isinstance(repetition(chat("哈" * 60), RepetitionConfig(max_same=60, min_words=100)), Kept)
    assert isinstance(repetition(chat("哈" * 60), RepetitionConfig(max_same=0, min_words=100)), Kept)
    assert isinstance(repetition(chat("哈" * 60), RepetitionConfig(max_same=0)), Dropped)
    half = " ".join(f"w{n}" for n in range(30)) + " " + " ".join(f"w{n}" for n in range(30))
    assert isinstance(repetition(chat(half), RepetitionConfig(max_run_share=0.4)), Dropped)
    assert isinstance(repetition(chat(half), RepetitionConfig(max_run_share=0.4, words=31)), Kept)
    zh = "".join(map(chr, range(0x4E00, 0x4E1E))) * 2
    assert isinstance(repetition(chat(zh), RepetitionConfig(max_run_share=0.4)), Dropped)
    assert isinstance(repetition(chat(zh), RepetitionConfig(max_run_share=0.4, characters=31)), Kept)


@given(RECORDS)
def test_no_text_is_too_odd(record):
    assert isinstance(repetition(record, RepetitionConfig(min_words=1)), Kept | Dropped)
