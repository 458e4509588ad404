"""Labels become rows to train on, and the readers of those rows find what people said."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from fairlead.data.feedback import feedback_path
from fairlead.data.load import READERS
from fairlead.errors import ExitCode, UserError
from fairlead.feedback.chats import add_edit, add_message, add_opinion, new_chat
from fairlead.feedback.comparisons import Answer, Verdict, add_comparison, add_ranking
from fairlead.feedback.rows import Choice, address_and_choice, agreement, rows_of, state_of
from fairlead.feedback.schema import rankings
from fairlead.records import Message
from tiny_store import answers_in


def ranked(store, person, number, *ranks, key=None):
    numbers = [row["id"] for row in answers_in(store, number)]
    return add_ranking(
        store, person, number, Verdict("ranked", dict(zip(numbers, ranks, strict=True)), {}), key=key or f"of {number}"
    )


@pytest.fixture
def labelled(store, people):
    """Two comparisons, ranked by two people each, and a chat with thumbs and an edit."""
    for question in ("one", "two"):
        texts = [f"{question} good", f"{question} fair", f"{question} poor"]
        add_comparison(
            store, people["admin"], [Message("user", question)], [Answer("m", text, {}) for text in texts], wanted=2
        )
    ranked(store, people["ann"], 1, 1, 2, 3)
    ranked(store, people["bob"], 1, 1, 2, 2)
    ranked(store, people["ann"], 2, 1, 2, 3)
    ranked(store, people["bob"], 2, 3, 2, 1)
    ann, chat = people["ann"], new_chat(store, people["ann"], "t")
    asked = add_message(store, ann, chat, parent=None, role="user", content="hi")
    good = add_message(store, ann, chat, parent=asked, role="assistant", content="hello", model="m")
    bad = add_message(store, ann, chat, parent=asked, role="assistant", content="go away", model="m")
    add_opinion(store, ann, good, thumb=-1, reasons=(), comment="", key="1")
    add_opinion(store, ann, good, thumb=1, reasons=(), comment="", key="2")
    add_opinion(store, ann, bad, thumb=-1, reasons=("rude",), comment="", key="3")
    add_edit(store, ann, bad, content="come in", key="4")
    return store


def test_rankings_and_edits_are_preferences(labelled, address, tmp_path):
    path = feedback_path(f"feedback:{address}", tmp_path, "preferences")
    loaded = READERS["preferences"]([path])
    assert not loaded.rejections
    one, edit = loaded.records
    assert (one.prompt, one.responses) == ((Message("user", "one"),), ("one good", "one fair", "one poor"))
    assert one.grades == (-1.0, -2.0, -2.5)
    assert (edit.chosen, edit.rejected) == ("come in", "go away")  # the second comparison's people cancel out


def test_thumbs_are_judgements(labelled, address, tmp_path):
    found = READERS["judgements"]([feedback_path(f"feedback:{address}", tmp_path, "judgements")]).records
    assert [(one.prompt, one.responses, one.desirable) for one in found] == [
        ((Message("user", "hi"),), ("hello",), (True,)), ((Message("user", "hi"),), ("go away",), (False,)),
    ]  # fmt: skip


def test_edits_are_demonstrations_and_questions_prompts(labelled, address, tmp_path):
    found = READERS["conversations"]([feedback_path(f"feedback:{address}", tmp_path, "conversations")]).records
    assert [one.messages for one in found] == [(Message("user", "hi"), Message("assistant", "come in"))]
    prompts = READERS["prompts"]([feedback_path(f"feedback:{address}", tmp_path, "prompts")]).records
    assert [one.messages for one in prompts] == [(Message("user", "hi"),)]


def preferences(store, **choice):
    return [row["source"] for row in rows_of(store, "preferences", Choice(**choice))]


def test_who_is_chosen(labelled):
    assert preferences(labelled, annotators=("ann",)) == ["comparison 1", "comparison 2", "edit 1"]
    assert preferences(labelled, annotators=("bob",)) == ["comparison 1", "comparison 2"]
    with pytest.raises(UserError, match="nobody has this name"):
        preferences(labelled, annotators=("zoe",))


def test_how_much_they_agree(labelled):
    assert preferences(labelled, min_agreement=0.7) == ["comparison 1", "edit 1"]


def test_when(labelled):
    with labelled.write() as connection:
        connection.execute(update(rankings).where(rankings.c.comparison_id == 1).values(created_at=1000))
    assert preferences(labelled, before=2000) == ["comparison 1"]
    assert preferences(labelled, since=2000, annotators=("ann",)) == ["comparison 2", "edit 1"]


def test_a_later_correction_does_not_undo_what_counted_before(labelled, people):
    """`before` is the store as it was on that day."""
    with labelled.write() as connection:
        connection.execute(update(rankings).values(created_at=1000))
    before, *_ = rows_of(labelled, "preferences", Choice(annotators=("bob",), before=2000))
    ranked(labelled, people["bob"], 1, 3, 2, 1, key="changed my mind")
    after, *_ = rows_of(labelled, "preferences", Choice(annotators=("bob",), before=2000))
    assert before == after
    now, *_ = rows_of(labelled, "preferences", Choice(annotators=("bob",)))
    assert now["scores"] != before["scores"]


def test_a_state_of_the_store_stays(labelled, people, address, tmp_path):
    state = state_of(labelled)
    assert state == (4, 3, 1, 3)
    then = f"feedback:{address}?until={'-'.join(map(str, state))}"
    before = feedback_path(then, tmp_path, "preferences").read_bytes()
    ranked(labelled, people["ann"], 1, 3, 2, 1, key="changed my mind")
    add_edit(labelled, people["ann"], 3, content="please come in", key="5")
    assert feedback_path(then, tmp_path, "preferences").read_bytes() == before
    assert feedback_path(f"feedback:{address}", tmp_path, "preferences").read_bytes() != before


def test_an_address_taken_apart():
    where, choice = address_and_choice(
        "feedback:a/b.db?annotator=ann&annotator=bob&agreement=0.5&since=1970-01-02&until=7-0-1-9"
    )
    assert (where, choice) == ("a/b.db", Choice(("ann", "bob"), 0.5, since=86_400_000, until=(7, 0, 1, 9)))
    assert address_and_choice("feedback:postgresql://u@h/d") == ("postgresql://u@h/d", Choice())


@pytest.mark.parametrize("query", ["annotators=a", "agreement=2", "agreement=x", "since=today", "until=x", "until=7"])
def test_another_query_is_refused(query):
    with pytest.raises(UserError) as caught:
        address_and_choice(f"feedback:a.db?{query}")
    assert caught.value.exit_code == ExitCode.USAGE


def test_no_rows_and_no_kind(store, people, address, tmp_path):
    with pytest.raises(UserError) as caught:
        feedback_path(f"feedback:{address}", tmp_path, "judgements")
    assert caught.value.exit_code == ExitCode.MISSING_INPUT
    with pytest.raises(UserError, match="several kinds"):
        feedback_path(f"feedback:{address}", tmp_path, None)


@given(st.lists(st.lists(st.integers(1, 4), min_size=4, max_size=4), max_size=4))
def test_agreement_by_its_definition(people_ranks):
    ranks = [dict(zip("abcd", one, strict=True)) for one in people_ranks]
    agreed = [
        (one[x] < one[y]) == (other[x] < other[y])
        for one, other in combinations(ranks, 2)
        for x, y in combinations("abcd", 2)
        if one[x] != one[y] and other[x] != other[y]
    ]
    expected = sum(agreed) / len(agreed) if agreed else 1.0 if len(ranks) < 2 else 0.5
    assert agreement(ranks) == expected
