"""Chats are trees, belong to somebody, and forget nothing; a label counts once."""

import pytest

from fairlead.feedback.chats import (
    add_edit,
    add_message,
    add_opinion,
    chats_of,
    delete_chat,
    dialogue_to,
    messages_of,
    new_chat,
    rename_chat,
)
from fairlead.feedback.once import KeyTakenError
from fairlead.records import Message


@pytest.fixture
def chat(store, people):
    """Two questions by ann, the first answered twice."""
    ann, number = people["ann"], new_chat(store, people["ann"], "greetings 你好")
    asked = add_message(store, ann, number, parent=None, role="user", content="hi 你好 \U0001f600")
    told = [
        add_message(store, ann, number, parent=asked, role="assistant", content=text, model="m", details={"seed": 1})
        for text in ("hello", "good day")
    ]
    more = add_message(store, ann, number, parent=told[1], role="user", content="and?")
    return number, asked, told, more


def test_a_branch_is_read_from_its_end(store, people, chat):
    number, asked, told, more = chat
    rows = messages_of(store, people["ann"], number)
    assert [row["id"] for row in rows] == [asked, *told, more]
    assert dialogue_to(rows, more) == (
        Message("user", "hi 你好 \U0001f600"), Message("assistant", "good day"), Message("user", "and?"),
    )  # fmt: skip
    assert dialogue_to(rows, told[0])[-1] == Message("assistant", "hello")
    assert rows[1]["details"] == {"seed": 1}


def test_another_persons_chat_is_not_there(store, people, chat):
    number, asked, told, _ = chat
    for other in (people["bob"], people["admin"]):
        assert chats_of(store, other) == []
        assert messages_of(store, other, number) is None
        assert add_message(store, other, number, parent=asked, role="user", content="x") is None
        assert not rename_chat(store, other, number, "x")
        assert not delete_chat(store, other, number)
        assert add_opinion(store, other, told[0], thumb=1, reasons=(), comment="", key="k") is None
        assert add_edit(store, other, told[0], content="x", key="k") is None
    assert chats_of(store, people["ann"])[0]["title"] == "greetings 你好"


def test_a_parent_is_of_the_same_chat(store, people, chat):
    other = new_chat(store, people["ann"], "other")
    assert add_message(store, people["ann"], other, parent=chat[1], role="user", content="x") is None
    assert add_message(store, people["ann"], other, parent=10**6, role="user", content="x") is None


def test_renamed_and_deleted(store, people, chat):
    assert rename_chat(store, people["ann"], chat[0], "t" * 300)
    assert len(chats_of(store, people["ann"])[0]["title"]) == 200
    assert delete_chat(store, people["ann"], chat[0])
    assert chats_of(store, people["ann"]) == []
    assert messages_of(store, people["ann"], chat[0]) is None


def test_a_request_that_is_sent_again_counts_once(store, people, chat):
    said = {"thumb": -1, "reasons": ("wrong",), "comment": "no", "key": "k1"}
    first = add_opinion(store, people["ann"], chat[2][0], **said)
    assert add_opinion(store, people["ann"], chat[2][0], **said) == first
    with pytest.raises(KeyTakenError):
        add_opinion(store, people["ann"], chat[2][0], **(said | {"thumb": 1}))
    assert add_opinion(store, people["ann"], chat[2][0], **(said | {"thumb": 1, "key": "k2"})) != first


def test_only_answers_are_judged(store, people, chat):
    assert add_opinion(store, people["ann"], chat[1], thumb=1, reasons=(), comment="", key="k") is None
    assert add_edit(store, people["ann"], chat[1], content="x", key="k") is None
