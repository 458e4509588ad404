"""ROUGE-L against the definition and published examples, and the search for a text that is like another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.rouge_l import Texts, Tokens, longest_common, rouge_l
from oracles import similarity as oracle

FEW = st.lists(st.sampled_from("abcd"), max_size=80).map(" ".join)
MIXED = st.lists(st.sampled_from(["write", "Write", "a", "7", "poem", "诗", "写", "，", ". ", "x1"]), max_size=20).map(
    " ".join
)


def score(one, other):
    return rouge_l(Tokens.of(one), Tokens.of(other))


@given(FEW, FEW)
def test_the_longest_common_subsequence_is_the_tables(one, other):
    assert longest_common(Tokens.of(one), Tokens.of(other)) == oracle.longest_common(one.split(), other.split())


@given(MIXED, MIXED)
def test_the_measure_is_the_definitions(one, other):
    assert score(one, other) == pytest.approx(oracle.rouge_l(one, other), abs=1e-12)
    assert score(one, other) == score(other, one)


@given(MIXED)
def test_a_text_is_like_itself(text):
    assert score(text, text) == (1.0 if Tokens.of(text).sequence else 0.0)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("police killed the gunman", "police kill the gunman", 3 / 4),  # Lin 2004, section 3.1
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("写一首关于春天的诗", "写一首关于冬天的诗", 8 / 9),
        ("Write a poem.", "WRITE, a  poem", 1.0), ("one two", "three four", 0.0), ("", "", 0.0), ("...", "a", 0.0),
        ("a b c d e f", "a b", 2 * 2 / 8),
    ],
)  # fmt: skip
def test_worked_examples(one, other, wanted):
    assert score(one, other) == pytest.approx(wanted)


@given(st.lists(MIXED, max_size=6), MIXED, st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_the_first_text_that_is_like_another(texts, new, threshold):
    known = Texts()
    for text in texts:
        known.add(text)
    wanted = [text for text in texts if oracle.rouge_l(text, new) >= threshold - 1e-12]
    assert known.like(new, threshold) == (wanted[0] if wanted else None)
