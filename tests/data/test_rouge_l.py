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

COMMON, RARE = list("abc"), [f"w{number}" for number in range(30)]
SENTENCE = st.lists(st.sampled_from(COMMON * 6 + RARE), min_size=1, max_size=12)


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


@given(st.lists(FEW | MIXED, max_size=9), FEW | MIXED, st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]))
def test_the_first_text_that_is_like_another(texts, new, threshold):
    known = Texts()
    for text in texts:
        known.add(text)
    wanted = [text for text in texts if oracle.rouge_l(text, new) >= threshold - 1e-12]
    assert known.like(new, threshold) == (wanted[0] if wanted else None)


@given(st.lists(SENTENCE, min_size=1, max_size=8), st.data())
def test_a_text_that_was_changed_a_little_is_found_among_others(texts, data):
    """The search sets common words aside; what is like another by the definition is found all the same."""
    known = Texts()
    for text in texts:
        known.add(" ".join(text))
    new = list(data.draw(st.sampled_from(texts)))
    for place in data.draw(st.lists(st.integers(0, 11), max_size=5)):
        new[place % len(new)] = data.draw(st.sampled_from(COMMON + RARE))
    wanted = [" ".join(text) for text in texts if oracle.rouge_l(" ".join(text), " ".join(new)) >= 0.5 - 1e-12]
    assert known.like(" ".join(new), 0.5) == (wanted[0] if wanted else None)
