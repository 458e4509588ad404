"""Which texts are looked at, and changes that settle."""

import time

import pytest
from hypothesis import given

from fairlead.config.filters import FiltersConfig
from fairlead.config.parse import load
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.steps import steps_of
from fairlead.data.filters.texts import main_texts, map_answers, outside_code, prose, settled, taught_texts
from fairlead.records import Conversation, Document, Message
from tests.data.filters.rows import CODE, TEXTS, ask, chat, judged, pair

TURNS = Conversation((Message("system", "s"), Message("user", "q"), Message("assistant", "a"), Message("user", "r")))


def test_what_a_model_learns_to_say():
    assert taught_texts(TURNS) == ("a",)
    assert taught_texts(pair("good", "bad")) == ("good",)
    assert taught_texts(judged(("x", True), ("y", False), ("z", True))) == ("x", "z")
    assert taught_texts(Document("d")) == main_texts(Document("d")) == ("d",)
    assert (taught_texts(ask("q", "a")), main_texts(ask("q", "a"))) == ((), ("q",))


def test_answers_alone_are_changed():
    assert [m.content for m in map_answers(TURNS, str.upper).messages] == ["s", "q", "A", "r"]
    assert map_answers(pair("good", "bad"), str.upper) == pair("GOOD", "BAD")
    assert map_answers(judged(("x", False)), str.upper) == judged(("X", False))
    assert map_answers(Document("d"), str.upper) == Document("D")
    assert map_answers(ask("q", "a"), str.upper) == ask("q", "a")


def test_code_is_told_from_prose():
    assert prose("a `b` c ```d\n``` e ```f") == "a   c   e  "
    assert outside_code("a `b` c ```d\n``` e ```f", str.upper) == "A `b` C ```d\n``` E ```f"
    assert "print(" not in prose(CODE)


@given(TEXTS)
def test_no_change_outside_code_is_no_change(text):
    assert outside_code(text, str) == text


def test_changes_settle_or_are_not_made():
    halve = {"halved": lambda text: text.replace("aa", "a")}
    assert settled(chat("aaaaaaa", "b"), halve) == Kept(chat("a", "b"), "halved")
    assert settled(chat("b"), halve) == Kept(chat("b"))
    assert settled(chat("a"), {"longer": lambda text: text + "a"}) == Kept(chat("a"))
    both = {"one": lambda text: text.replace("a", "b"), "other": lambda text: text.replace("b", "c")}
    assert settled(chat("a"), both) == Kept(chat("c"), "one, other")


def test_a_record_that_a_change_would_spoil_goes():
    gone = {"no x": lambda text: text.replace("x", "")}
    assert settled(chat("x"), gone) == Dropped("nothing else than this in a text: no x")
    assert settled(chat("a", " x"), gone) == Dropped("nothing else than this in a text: no x")
    assert settled(pair("ax", "a"), gone) == Dropped("no other difference between responses: no x")
    assert settled(pair("ax", "b"), gone) == Kept(pair("a", "b"), "no x")
    assert settled(ask("a", "x"), gone) == Kept(ask("a"), "no x")


PIECES = [
    "a", "1 ", "1.", "+1 ", "138 ", "a@", "a.b", "@", "-----BEGIN PRIVATE KEY-----", "北京市", "```", "`", "\n", "&",
    "Ã", "sk-", "I ", "as an ai ", "作为", "抱歉", "我", "https://", "1:", "0-", "- ", "sorry, ", "secretkey=", "\x1b[",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_no_text_takes_more_than_linear_time(piece):
    options = [
        "pii.address=mask",
        "toxicity.built_in=true",
        "language.keep=en",
        "length.enabled=false",
        "repair.max_lost=1",
    ]
    steps = steps_of(load(FiltersConfig, None, options))
    record, start = Document(piece * (200_000 // len(piece))), time.process_time()
    for step in steps.values():
        step(record)
    assert time.process_time() - start < 20  # about 1 second; the square would take hours
