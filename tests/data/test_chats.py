"""Prompts from chats: which turns, what is masked, what is refused."""

import pytest

from fairlead.config.filters import PiiConfig
from fairlead.config.grow import ChatsConfig
from fairlead.data.chats import prompts_of_chats, user_turns
from fairlead.records import Message, Prompt

SYSTEM = Message("system", "Be kind to every one of them.")
RIVERS, BREAD, MAIL = (
    "Tell me about the rivers of Asia",
    "And now how bread is baked",
    "Please write to me@home.org soon",
)


def chat(*texts, source="a:1", system=()):
    """Turns of user and assistant in turn."""
    turns = [Message("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]
    return Prompt((*system, *turns), source, answer="an answer")


def said(prompts):
    return [prompt.messages[-1].content for prompt in prompts]


def collect(*chats, min_words=4, **options):
    return prompts_of_chats(chats, ChatsConfig(**options), min_words=min_words)


def test_first_and_every_turn():
    one = chat(RIVERS, "Sure.", BREAD, system=(SYSTEM,))
    first, every = list(user_turns(one, every=False)), list(user_turns(one, every=True))
    assert [prompt.messages for prompt in first] == [one.messages[:2]]
    assert [prompt.messages for prompt in every] == [one.messages[:2], one.messages]
    assert {(prompt.source, prompt.answer) for prompt in every} == {("a:1", "")}
    assert collect(one)[0] == first
    assert collect(one, turns="every")[0] == every


def test_short_turns_are_refused():
    kept, refused = collect(chat("Go on please"), chat(RIVERS, source="a:2"), chat("写首诗", source="a:3"))
    assert said(kept) == [RIVERS]
    assert [(one["step"], one["reason"], one["source"], one["text"]) for one in refused] == [
        ("chats", "fewer than 4 words", "a:1", "Go on please"), ("chats", "fewer than 4 words", "a:3", "写首诗"),
    ]  # fmt: skip
    assert said(collect(chat("Go on please"), min_words=3)[0]) == ["Go on please"]


def test_personal_data_is_masked_also_where_a_turn_is_refused():
    chats = (chat(MAIL), chat("me@home.org", source="a:2"), chat(MAIL, "No.", BREAD, source="a:3"))
    kept, refused = collect(*chats, turns="every", max_overlap=0)
    assert said(kept) == ["Please write to [EMAIL] soon"] * 2 + [BREAD]
    assert kept[2].messages[0].content == "Please write to [EMAIL] soon", "the dialogue before it too"
    assert [one["text"] for one in refused] == ["[EMAIL]"]
    assert said(collect(chat(MAIL), pii=PiiConfig(enabled=False))[0]) == [MAIL]


def test_a_turn_with_what_shall_not_be_there_is_refused_whole():
    kept, refused = collect(chat(MAIL), chat(RIVERS, source="a:2"), pii=PiiConfig(email="drop"))
    assert said(kept) == [RIVERS]
    assert [(one["reason"], one["text"]) for one in refused] == [("holds email", "Please write to [EMAIL] soon")]


@pytest.mark.parametrize("again", [RIVERS, RIVERS.upper() + "!", "Tell me about the  rivers of Asia?"])
def test_what_was_said_before_goes(again):
    kept, refused = collect(chat(RIVERS), chat(BREAD, source="a:2"), chat(again, source="a:3"))
    assert said(kept) == [RIVERS, BREAD]
    assert [(one["reason"], one["source"], one["like"]) for one in refused] == [("like an earlier turn", "a:3", "a:1")]
    assert said(collect(chat(RIVERS), chat(again), max_overlap=0)[0]) == [RIVERS, again]


def test_turns_are_like_by_what_is_said_in_them_alone():
    kept, _ = collect(chat(RIVERS, "Sure. " * 40, BREAD), turns="every")
    assert said(kept) == [RIVERS, BREAD], "the dialogue before the second is nearly all of it"
    kept, _ = collect(chat(RIVERS, "Sure.", BREAD), chat("What is the time now", "Late.", BREAD), turns="every")
    assert said(kept) == [RIVERS, BREAD, "What is the time now"]


def test_how_like_decides():
    longer = RIVERS + " and of Europe"
    assert said(collect(chat(RIVERS), chat(longer))[0]) == [RIVERS, longer]
    assert said(collect(chat(RIVERS), chat(longer), max_overlap=0.4)[0]) == [RIVERS]
