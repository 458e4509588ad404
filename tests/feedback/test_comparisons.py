"""What people see of a comparison, who sees it, and how their rankings are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.errors import UserError
from fairlead.feedback.comparisons import (
    Answer,
    Verdict,
    _dense,
    add_comparison,
    add_ranking,
    next_task,
    task_of,
)
from fairlead.feedback.once import KeyTakenError
from fairlead.records import Message
from tiny_store import answers_in, rankings_in

PROMPT = (Message("system", "Be kind."), Message("user", "q 问"))


def compared(store, people, *, num=2, **options):
    given_answers = [Answer(f"model-{i}", f"answer {i}", {"seed": i}) for i in range(num)]
    return add_comparison(store, people["admin"], PROMPT, given_answers, **options)


def in_order(task, *texts):
    """Ranks that put these texts first, second, ..."""
    return {number: texts.index(text) + 1 for number, text in task.answers}


def test_nobody_sees_a_model(store, people):
    compared(store, people, num=4)
    task = next_task(store, people["ann"])
    assert "model" not in repr(task)
    assert task.prompt == PROMPT
    assert {text for _, text in task.answers} == {f"answer {i}" for i in range(4)}
    assert next_task(store, people["ann"]) == task  # after a reload


def test_the_order_is_ones_own_and_random(store, people):
    for _ in range(40):
        compared(store, people, wanted=2)
    first = {"ann": [], "bob": []}
    for name, seen in first.items():
        while (task := next_task(store, people[name])) is not None:
            seen.append(task.answers[0][1])
            add_ranking(store, people[name], task.comparison, Verdict("skipped", {}, {}), key=str(task.comparison))
    assert first["ann"] != first["bob"]
    for seen in first.values():
        assert 8 <= seen.count("answer 0") <= 32  # 40 fair coins: outside with probability 1e-4


def test_what_interests_most_comes_first_and_everybody_once(store, people):
    dull, bright = compared(store, people, interest=1), compared(store, people, interest=5)
    for name in ("ann", "bob"):
        task = next_task(store, people[name])
        assert task.comparison == (bright if name == "ann" else dull)  # one person was wanted
        add_ranking(
            store, people[name], task.comparison, Verdict("ranked", in_order(task, "answer 1", "answer 0"), {}), key="k"
        )
        if name == "ann":
            assert next_task(store, people["ann"]).comparison == dull
    assert next_task(store, people["ann"]) is None


def test_a_skip_leaves_the_comparison_to_others(store, people):
    number = compared(store, people)
    assert add_ranking(store, people["ann"], number, Verdict("skipped", {}, {}), key="k")
    assert next_task(store, people["ann"]) is None
    assert next_task(store, people["bob"]).comparison == number


def test_a_correction_is_a_new_row_and_counts(store, people):
    number = compared(store, people)
    task = next_task(store, people["ann"])
    for key, order in (("a", ("answer 0", "answer 1")), ("b", ("answer 1", "answer 0"))):
        add_ranking(store, people["ann"], number, Verdict("ranked", in_order(task, *order), {}), key=key)
    assert task_of(store, people["ann"], number) == task
    assert task_of(store, people["bob"], number) is None
    rows = rankings_in(store)
    assert [row["key"] for row in rows] == ["b"]
    assert [row["key"] for row in rankings_in(store, until=rows[0]["id"] - 1)] == ["a"]


def test_a_request_that_is_sent_again_counts_once(store, people):
    number = compared(store, people)
    task = next_task(store, people["ann"])
    verdict = Verdict("ranked", in_order(task, "answer 0", "answer 1"), {}, reason="clear", seconds=3)
    first = add_ranking(store, people["ann"], number, verdict, key="k")
    assert add_ranking(store, people["ann"], number, verdict, key="k") == first
    assert len(rankings_in(store)) == 1
    with pytest.raises(KeyTakenError):
        add_ranking(store, people["ann"], number, Verdict("skipped", {}, {}), key="k")
    assert add_ranking(store, people["bob"], number, verdict, key="k") != first  # keys are one's own


def test_ranks_name_every_answer(store, people):
    number = compared(store, people, num=3)
    one, two, three = (row["id"] for row in answers_in(store, number))
    for ranks in ({}, {one: 1, two: 2}, {one: 1, two: 2, three: 0}, {one: 1, two: 2, three: 3, 999: 4}):
        with pytest.raises(UserError):
            add_ranking(store, people["ann"], number, Verdict("ranked", ranks, {}), key="k")
    with pytest.raises(UserError):
        add_ranking(store, people["ann"], number, Verdict("skipped", {one: 1}, {}), key="k")
    with pytest.raises(UserError):
        add_ranking(store, people["ann"], number, Verdict("ranked", {one: 1, two: 2, three: 3}, {999: 5}), key="k")
    assert rankings_in(store) == []
    assert add_ranking(store, people["ann"], 999, Verdict("skipped", {}, {}), key="k") is None


@pytest.mark.parametrize("num", [0, 1, 17])
def test_two_to_sixteen_answers(store, people, num):
    with pytest.raises(UserError):
        compared(store, people, num=num)


@given(st.dictionaries(st.integers(1, 50), st.integers(1, 9), min_size=1))
def test_ranks_become_dense_and_keep_their_order(ranks):
    dense = _dense(ranks)
    assert sorted(set(dense.values())) == list(range(1, len(set(ranks.values())) + 1))
    for one, other in ((a, b) for a in ranks for b in ranks):
        assert (ranks[one] < ranks[other]) == (dense[one] < dense[other])
