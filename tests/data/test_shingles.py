"""Hashed shingles beside a slow loop over characters, and what folding and cutting must tell apart."""

import random
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data import shingles
from fairlead.data.shingles import folded, hash_shingles, hash_tokens, jaccard

HAN = "数据清洗去重的模型训练"
TEXTS = st.lists(st.text(alphabet="aB1 é,中文+-\nｆＦ①า\U00020000", max_size=30), min_size=1, max_size=6)


def slow_tokens(text: str) -> list[str]:
    """The definition, one character at a time."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found, word = [], ""
    for character in text:
        category, point = unicodedata.category(character), ord(character)
        unspaced = any(
            low <= point <= high
            for low, high in ((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF),
                              (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
        )  # fmt: skip
        if category[0] in "LNM" and not unspaced:
            word += character
            continue
        if word:
            found.append(word)
        word = ""
        if category[0] in "LNM" or category[0] == "S" or character in "*/%&#@\\-":
            found.append(character)
    return [*found, word] if word else found


def slow_shingles(text: str, width: int) -> list[tuple[str, ...]]:
    tokens = slow_tokens(text)
    if len(tokens) < width:
        return [tuple(tokens)] if tokens else []
    return [tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)]


def same_partition(hashes: list[int], things: list[object]) -> bool:
    """Equal hashes exactly where the things are equal."""
    return len(set(zip(hashes, things, strict=True))) == len(set(hashes)) == len(set(things))


@given(TEXTS)
def test_tokens_are_those_of_the_definition(texts):
    found = hash_tokens(texts)
    slow = [slow_tokens(text) for text in texts]
    assert np.diff(found.offsets).tolist() == [len(tokens) for tokens in slow]
    assert same_partition(found.values.tolist(), [token for tokens in slow for token in tokens])


@given(TEXTS, st.integers(1, 6))
def test_shingles_are_those_of_the_definition(texts, width):
    found = hash_shingles(texts, width)
    slow = [slow_shingles(text, width) for text in texts]
    assert np.diff(found.offsets).tolist() == [len(shingles) for shingles in slow]
    assert same_partition(found.values.tolist(), [shingle for shingles in slow for shingle in shingles])


@given(TEXTS, st.integers(1, 4))
def test_a_text_has_the_same_hashes_wherever_it_stands(texts, width):
    together = hash_shingles(texts, width)
    for index, text in enumerate(texts):
        alone = hash_shingles([text], width)
        assert together.of(index).tolist() == alone.values.tolist()


@given(TEXTS, st.integers(12, 40), st.integers(1, 4))
def test_memory_is_bounded_without_a_trace(texts, limit, width):
    long = ["".join(texts), *texts]
    longest_word = max((len(word) for text in long for word in folded(text).split()), default=0)
    whole = hash_shingles(long, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairlead.data.shingles.CHARACTERS_AT_ONCE", limit)
        cut = hash_shingles(long, width)
        assert all(len(piece) <= limit for text in long for piece in shingles._cut(folded(text)))
    if longest_word < limit:
        assert cut.values.tolist() == whole.values.tolist()
        assert cut.offsets.tolist() == whole.offsets.tolist()


@given(st.lists(st.integers(0, 50)), st.integers(1, 60), st.integers(1, 5))
def test_some_at_a_time_are_all_and_bounded(sizes, characters, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairlead.data.shingles.CHARACTERS_AT_ONCE", characters)
        patch.setattr("fairlead.data.shingles.TEXTS_AT_ONCE", most)
        batches = list(shingles.some_at_a_time(sizes, int))
    assert [size for batch in batches for size in batch] == sizes
    assert all(0 < len(batch) <= most and (sum(batch) <= characters or len(batch) == 1) for batch in batches)
    for one, following in pairwise(batches):  # none is smaller than it has to be
        assert len(one) == most or sum(one) + following[0] > characters


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_jaccard_is_that_of_the_sets(one, other):
    expected = len(one & other) / len(one | other) if one | other else 0.0
    repeated = [*one, *one]
    assert jaccard(np.array(repeated, dtype=np.uint64), np.array([*other], dtype=np.uint64)) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ｆｕｌｌ　Ｗｉｄｔｈ １２", "full width 12"),
        ("What is it?", "what -- is, IT"[:5] + "is, IT"),
        ("数据，清洗。", "数据清洗"),
        ("Straße", "STRASSE"),
        ("a\n\nb", "a b"),
    ],
)
def test_spelling_that_makes_no_difference(one, other):
    assert hash_tokens([one]).values.tolist() == hash_tokens([other]).values.tolist()


@pytest.mark.parametrize(("one", "other"), [("3 + 4", "3 * 4"), ("12", "13"), ("1 2", "12"), ("a < b", "a > b")])
def test_numbers_and_signs_make_a_difference(one, other):
    assert hash_tokens([one]).values.tolist() != hash_tokens([other]).values.tolist()


def test_a_lone_surrogate_is_no_reason_to_stop():
    assert len(hash_tokens(["a \ud800 b"]).values) == 2


def test_no_hash_collides_among_many_tokens():
    rng = random.Random(0)
    words = {"".join(rng.choices("abcdefghij", k=rng.randint(1, 9))) for _ in range(60_000)}
    words |= {one + other for one in HAN for other in HAN}
    found = hash_tokens([" ".join(word for word in sorted(words) if word[0] not in HAN)])
    assert len(set(found.values.tolist())) == len(found.values)
