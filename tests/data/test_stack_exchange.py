from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.load import read_preferences, read_prompts, read_records
from fairlead.data.stack_exchange import grade
from fairlead.records import Message, Preference, Rejection


@pytest.mark.parametrize(
    ("votes", "accepted", "expected"),
    [
        (0, False, 0),
        (0, True, 1),
        (1, False, 1),
        (2, False, 2),
        (3, True, 3),
        (10, False, 3),
        (-1, False, -1),
        (-9, True, -1),
    ],
)
def test_grades(votes, accepted, expected):
    assert grade(votes, accepted=accepted) == expected


@given(st.integers(-100, 10_000), st.integers(-100, 10_000), st.booleans())
def test_more_votes_are_never_a_lower_grade(a, b, accepted):
    low, high = sorted((a, b))
    assert grade(low, accepted=accepted) <= grade(high, accepted=accepted)


def posts(path, *rows):
    lines = [" ".join(f"{key}={quoteattr(str(value))}" for key, value in row.items()) for row in rows]
    path.write_text(
        "\n".join(["\ufeff<?xml version='1.0'?>", "<posts>", *(f"<row {line}/>" for line in lines), "</posts>"])
    )
    return path


def question(number, **more):
    return {"Id": number, "PostTypeId": 1, "Title": f"T{number}", "Body": f"<p>q{number}</p>", **more}


def answer(number, parent, score, body=""):
    return {"Id": number, "PostTypeId": 2, "ParentId": parent, "Score": score, "Body": body or f"<p>a{number}</p>"}


def asked(number):
    return (Message("user", f"T{number}\n\nq{number}"),)


def test_questions_with_their_answers(tmp_path):
    path = posts(
        tmp_path / "Posts.xml",
        answer(5, 1, 2), question(1, AcceptedAnswerId=4), answer(3, 1, 0, "<p>use:</p><pre>x</pre>"), answer(4, 1, 1),
        answer(9, 1, 7, "<img src='x'>"), answer(6, 1, -2),
        question(10), answer(11, 10, 1), answer(12, 10, 1),
        question(20), answer(21, 20, 5), question(30), answer(41, 40, 3), {"Id": 50, "PostTypeId": 5, "Body": "tag"},
    )  # fmt: skip
    loaded = read_preferences([path])
    assert loaded.records == (
        Preference(asked(1), ("a5", "a4", "use:\n\n```\nx\n```", "a6"), f"{path}:4", (2.0, 2.0, 0.0, -1.0)),
    )
    assert loaded.left_out == {
        "a question whose answers all have the same score": 1, "a question with fewer than two answers": 2,
        "an answer to a question that is not in the file": 1,
    }  # fmt: skip
    assert (loaded.num_rows, loaded.layouts) == (1, {str(path): "stack-exchange"})
    assert [prompt.messages for prompt in read_prompts([path]).records] == [asked(n) for n in (1, 10, 20, 30)]


def test_at_most_ten_answers_of_all_grades(tmp_path):
    path = posts(tmp_path / "Posts.xml", question(1), *(answer(n, 1, n) for n in range(2, 40)))
    (record,) = read_preferences([path]).records
    assert record.responses == tuple(f"a{n}" for n in (39, 38, 37, 21, 20, 19, 10, 9, 4, 3))
    assert record.grades == (5, 5, 5, 4, 4, 4, 3, 3, 2, 2)


def test_posts_that_cannot_be_used(tmp_path):
    path = posts(
        tmp_path / "Posts.xml", question(1), answer(2, 1, 3), answer(3, 1, 0), question(1), question("x"),
        answer("9" * 30, 1, 1), {"Id": 7, "PostTypeId": 2, "Body": "no parent"}, answer(8, 1, "many"),
    )  # fmt: skip
    outcomes = list(read_records(path))
    assert [(one.line, one.reason) for one in outcomes if isinstance(one, Rejection)] == [
        (6, "two posts have the same `Id`"),
        (7, "`Id` should be a whole number and is 'x'"),
        (8, f"`Id` should be a whole number and is '{'9' * 30}'"),
        (9, "the field `ParentId` is missing"),
        (10, "`Score` should be a whole number and is 'many'"),
    ]
    assert [one.responses for one in outcomes if isinstance(one, Preference)] == [("a2", "a3")]
