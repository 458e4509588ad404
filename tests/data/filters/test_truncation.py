"""Answers that say nothing, and answers that break off."""

import pytest
from hypothesis import given

from fairlead.config.filters import TruncatedConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.truncation import empty, truncated
from fairlead.records import Conversation, Document, Message
from tests.data.filters.rows import CHINESE, CLEAN, ENGLISH, RECORDS, ask, chat, judged, pair

CONFIG = TruncatedConfig()
BROKEN_EN = ENGLISH * 3 + " And when we sleep, it beats more slowly, because then the organs of the body need"
BROKEN_ZH = (
    CHINESE * 6 + "另外，睡觉的时候心脏跳得比较慢，因为这时候身体的各个器官所需要的氧气都比白天活动的时候少很多而且"
)


@pytest.mark.parametrize("text", ["", "  \n", "...", "。", "？！", "-\n-", "\u200b"])
def test_answers_that_say_nothing(text):
    for record in (chat(text), pair("fine", text), judged((text, False))):
        assert empty(record) == Dropped("an answer is empty")
    assert empty(Document(text)) == Dropped("the document is empty")
    assert empty(chat("fine", text)) == Kept(chat("fine", text))
    assert empty(ask("a", text)) == Kept(ask("a", text))


@pytest.mark.parametrize("text", ["是", "7", "B", "+", "😀", "$5", "ا", *CLEAN])
def test_short_answers_say_something(text):
    assert empty(chat(text)) == Kept(chat(text))
    assert empty(Document(text)) == Kept(Document(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Here it is:\n```python\nprint(1)", "a code block is not closed"),
        ("代码如下：```js\nlet a = 1", "a code block is not closed"),
        ("You need eggs, flour,", "ends with a comma or an empty list item"),
        ("需要鸡蛋、面粉、", "ends with a comma or an empty list item"),
        ("首先打开文件，\n", "ends with a comma or an empty list item"),
        ("Three ways:\n1. Walk\n2. Run\n3.", "ends with a comma or an empty list item"),
        ("方法：\n- 走路\n- ", "ends with a comma or an empty list item"),
        ("步骤：\n1、打开\n2、", "ends with a comma or an empty list item"),
        (BROKEN_EN, "ends in the middle of a sentence"),
        (BROKEN_ZH, "ends in the middle of a sentence"),
        (
            CHINESE * 6 + "\n" + "另外，睡觉的时候心脏跳得比较慢，因为身体的各个器官所需要的氧气",
            "ends in the middle of a sentence",
        ),
    ],
)
def test_answers_that_break_off(text, reason):
    first = Conversation(
        (Message("user", "a"), Message("assistant", text), Message("user", "b"), Message("assistant", "c"))
    )
    for record in (chat(text), first, pair(text, "fine"), judged((text, True))):
        assert truncated(record, CONFIG) == Dropped(reason)
    for record in (pair("fine", text), judged((text, False)), Document(text), ask(text), chat("fine", text)):
        assert truncated(record, CONFIG) == Kept(record)


@pytest.mark.parametrize(
    "text",
    [
        *CLEAN,
        *(text * 3 for text in CLEAN),
        "Paris",
        "是的",
        "42.",
        "1.",
        "Dear Ann,\nthank you for all.\n\nBest regards,",
        ENGLISH * 3 + "\n\n- take a walk every day in the park or in the forest near your house",
        ENGLISH * 3 + "\n\nYours truly\nAnn",
        ENGLISH * 3 + "\n\nRead more of the heart and its two circuits at https://www.example.org/heart",
        CHINESE * 6 + "\n\n希望这对你有帮助",
    ],
)
def test_finished_answers_are_kept(text):
    assert truncated(chat(text), CONFIG) == Kept(chat(text))


def test_each_sign_can_be_left_out():
    for option, text in (
        ({"unclosed_code": False}, "```\nx"),
        ({"dangling": False}, "a,"),
        ({"unfinished_characters": 0}, BROKEN_EN),
        ({"unfinished_characters": 100_000}, BROKEN_ZH),
    ):
        assert truncated(chat(text), TruncatedConfig(**option)) == Kept(chat(text))
    short = "And when we sleep, it beats more slowly, because then the organs of the body need"
    assert truncated(chat(short), CONFIG) == Kept(chat(short))
    assert isinstance(truncated(chat(short), TruncatedConfig(unfinished_characters=20)), Dropped)


@given(RECORDS)
def test_no_text_is_too_odd(record):
    assert isinstance(empty(record), Kept | Dropped)
    assert isinstance(truncated(record, TruncatedConfig(unfinished_characters=1)), Kept | Dropped)
