"""Replies chosen by their scores, against loops."""

from hypothesis import given
from hypothesis import strategies as st

from fairlead.records import Message, Prompt
from fairlead.synthesize.best_of_n import (
    Reply,
    best_conversation,
    distinct,
    is_text,
    ranked_preference,
    ranking,
)
from oracles import selection as oracle

PROMPT = Prompt((Message("system", "Be kind."), Message("user", "Hello")), "rows.jsonl:3", "Hello!")
LEVELS = [-1.5, 0.0, 0.25, 1.0, 7.0]
SCORES = st.lists(st.sampled_from(LEVELS) | st.floats(-9, 9), max_size=8)


def replies_of(scores):
    return [Reply(f"reply {i}", score) for i, score in enumerate(scores)]


@given(SCORES)
def test_a_ranking_is_the_loops(scores):
    replies = replies_of(scores)
    assert ranking(replies) == [replies[i] for i in oracle.ranking(scores)]


@given(SCORES)
def test_the_best_is_chosen_and_the_worst_rejected(scores):
    pair = ranked_preference(PROMPT, replies_of(scores), whole=False)
    if len(set(scores)) < 2:
        assert pair is None, "equal scores say nothing"
        return
    assert pair.responses == (f"reply {oracle.best(scores)}", f"reply {oracle.worst(scores)}")
    assert (pair.prompt, pair.source) == (PROMPT.messages, "rows.jsonl:3")


@given(SCORES)
def test_a_whole_ranking_holds_every_score_once(scores):
    whole = ranked_preference(PROMPT, replies_of(scores), whole=True)
    assert (whole is None) == (len(set(scores)) < 2)
    if whole is not None:
        assert whole.responses == tuple(f"reply {i}" for i in oracle.ranking(scores))


@given(SCORES, st.none() | st.sampled_from(LEVELS))
def test_the_best_becomes_a_conversation_where_it_scores_enough(scores, min_score):
    conversation = best_conversation(PROMPT, replies_of(scores), min_score=min_score)
    best = oracle.best(scores)
    if best is None or (min_score is not None and scores[best] < min_score):
        assert conversation is None
        return
    assert conversation.messages == (*PROMPT.messages, Message("assistant", f"reply {best}"))
    assert conversation.prompt == PROMPT.messages


@given(st.lists(st.tuples(st.sampled_from(["a", " a", "a\n", "b", "ab"]), st.floats(-1, 1)), max_size=8))
def test_of_replies_that_say_the_same_the_first_stays(drawn):
    replies = [Reply(text, score) for text, score in drawn]
    kept = []
    for reply in replies:
        if not any(reply.text.strip() == other.text.strip() for other in kept):
            kept.append(reply)
    assert distinct(replies) == kept


def test_what_rows_can_hold():
    assert is_text("你好")
    assert not any(map(is_text, ("", " \n", "cut \ufffd", "nul \0 inside")))
