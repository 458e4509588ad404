from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.rewards.verifiers import answer_format, answer_in, exact_match, last_number, maths_answer

PATTERN = r"(?i)answer:\s*(.+)"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("it is 7.", 7), ("1,234,567 apples", 1234567), ("-3", -3), ("−3", -3), ("0.50", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)), ("3 / 4", Fraction(3, 4)), ("一共 １２ 个", 12), ("first 3, then 5", 5), ("1/0", 1),
        ("$18", 18), ("x = .5", Fraction(1, 2)), ("so 5,", 5),
    ],
)  # fmt: skip
def test_numbers_by_value(text, value):
    assert last_number(text) == value


@pytest.mark.parametrize("text", ["", "none", "∞", "a/b", "."])
def test_no_number(text):
    assert last_number(text) is None


@given(st.integers(-(10**12), 10**12))
def test_every_integer_is_read_with_and_without_commas(number):
    assert last_number(f"so {number}") == last_number(f"so {number:,}") == number


@pytest.mark.parametrize(
    ("response", "answer", "score"),
    [
        ("2 + 2\nAnswer: 4", "#### 4", 1.0), ("Answer: 4.0", "4", 1.0), ("Answer: 3\nno, answer: 4", "4", 1.0),
        ("Answer: 5", "4", 0.0), ("4", "4", 0.0), ("Answer: four", "4", 0.0), ("Answer: 4", "no number", 0.0),
    ],
)  # fmt: skip
def test_maths_answer(response, answer, score):
    assert maths_answer(response, answer, pattern=PATTERN) == score


def test_without_a_pattern_the_last_number_is_the_answer():
    assert maths_answer("2 and 2 make 4", "4", pattern="") == 1.0
    assert maths_answer("4 is 2 and 2", "4", pattern="") == 0.0


def test_exact_match_forgives_case_width_and_space_alone():
    assert exact_match("Answer:  Paris ", "paris", pattern=PATTERN) == 1.0
    assert exact_match("Answer: ＰＡＲＩＳ", "Paris", pattern=PATTERN) == 1.0
    assert exact_match("Answer: Paris, France", "Paris", pattern=PATTERN) == 0.0
    assert exact_match("Paris", "Paris", pattern="") == 1.0


def test_format_is_a_match_of_the_pattern():
    assert answer_format("Answer: x", pattern=PATTERN) == 1.0
    assert answer_format("the answer is x", pattern=PATTERN) == 0.0
    assert answer_in("done: yes", "done") == "done", "a pattern without a group matches as a whole"
