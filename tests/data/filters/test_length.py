"""Too short, too long, and how words are counted."""

import pytest
from hypothesis import given

from fairlead.config.filters import ExtentConfig, LengthConfig
from fairlead.data.filters.length import length
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import words_of
from fairlead.records import Document
from tests.data.filters.rows import CLEAN, RECORDS, ask, chat, pair


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("two words", 2),
        ("三个字", 3),
        ("用Python写3行code", 6),
        ("don't", 2),
        ("カタカナ", 4),
        ("--- !", 0),
        ("한국어 글", 2),
    ],
)
def test_words(text, count):
    assert len(words_of(text)) == count


@pytest.mark.parametrize(
    ("extent", "text", "reason"),
    [
        ({"min_characters": 5}, "four", "fewer than 5 characters"),
        ({"min_characters": 5}, "fives", ""),
        ({"max_characters": 4}, "fives", "more than 4 characters"),
        ({"max_characters": 5}, "fives", ""),
        ({"min_words": 3}, "two words", "fewer than 3 words"),
        ({"min_words": 3}, "三个字", ""),
        ({"max_words": 2}, "三个字", "more than 2 words"),
        ({"max_words": 3}, "三个字。", ""),
    ],
)
def test_limits_are_inclusive_and_apply_to_their_part_alone(extent, text, reason):
    extent, none = ExtentConfig(**extent), ExtentConfig()
    for part, record in (("prompt", chat("x", text)), ("answer", chat(text, "x")), ("document", Document(text))):
        config = LengthConfig(**({"prompt": none, "answer": none, "document": none} | {part: extent}))
        assert length(record, config) == (Dropped(f"{part} has {reason}") if reason else Kept(record))
    assert length(ask(text), LengthConfig(prompt=extent)) == (
        Dropped(f"prompt has {reason}") if reason else Kept(ask(text))
    )
    assert isinstance(length(pair("x y z", text), LengthConfig(answer=extent)), Dropped) == bool(reason)


def test_defaults_keep_short_answers_and_stop_what_fits_no_model():
    assert length(chat("是"), LengthConfig()) == Kept(chat("是"))
    assert length(chat("字" * 20_001), LengthConfig()) == Dropped("answer has more than 20000 words")
    assert length(chat("x", "word " * 20_001), LengthConfig()) == Dropped("prompt has more than 20000 words")
    assert length(Document("Home | About"), LengthConfig()) == Dropped("document has fewer than 5 words")
    for text in CLEAN:
        assert length(chat(text), LengthConfig()) == Kept(chat(text))


def test_limits_that_contradict_each_other():
    with pytest.raises(ValueError, match="min_words=3 is more than max_words=2"):
        ExtentConfig(min_words=3, max_words=2)


@given(RECORDS)
def test_no_text_is_too_odd(record):
    assert isinstance(length(record, LengthConfig(answer=ExtentConfig(min_words=3))), Kept | Dropped)
