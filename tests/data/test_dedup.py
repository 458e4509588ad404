"""Near-duplicates: the curve of the bands, brute force beside it, and nothing removed by an estimate."""

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.data.dedup import BANDS, all_band_keys, band_keys, candidate_probability, clusters, near_duplicates
from fairlead.data.shingles import hash_shingles, jaccard

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pretrain" / "web_near_dups"
WIDTH, THRESHOLD = 5, 0.8
HAN = [chr(0x4E00 + i) for i in range(2000)]


def found_in(texts, *, threshold=THRESHOLD, width=WIDTH):
    keys = all_band_keys(iter(texts), width=width)
    return near_duplicates(keys, lambda indices: [texts[i] for i in indices], threshold=threshold, width=width)


def brute_force(texts, *, threshold=THRESHOLD, width=WIDTH):
    """Each text beside every earlier one that is kept."""
    shingles = hash_shingles(texts, width)
    kept, dropped = [], []
    for index in range(len(texts)):
        if any(jaccard(shingles.of(index), shingles.of(other)) >= threshold for other in kept):
            dropped.append(index)
        else:
            kept.append(index)
    return dropped


def planted(similarity, rng, *, chinese, num_tokens=204):
    """Two texts that share about this Jaccard similarity: one run of tokens of the second is replaced."""
    draw = (lambda: rng.choice(HAN)) if chinese else (lambda: f"w{rng.randrange(10**6)}")
    one = [draw() for _ in range(num_tokens)]
    num_shingles = num_tokens - WIDTH + 1
    lost = round(num_shingles * (1 - similarity) / (1 + similarity))  # (n - x) / (n + x) = s
    replaced = max(lost - WIDTH + 1, 1) if lost else 0
    start = min(num_tokens // 3, num_tokens - replaced)
    other = [*one[:start], *(draw() for _ in range(replaced)), *one[start + replaced :]]
    joint = "" if chinese else " "
    return joint.join(one), joint.join(other)


@pytest.mark.parametrize("chinese", [False, True])
@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_candidates_follow_the_curve(similarity, chinese):
    rng = random.Random(f"{similarity} {chinese}")
    pairs = [planted(similarity, rng, chinese=chinese) for _ in range(400)]
    texts = [text for pair in pairs for text in pair]
    shingles, keys = hash_shingles(texts, WIDTH), band_keys(texts, width=WIDTH)
    true = [jaccard(shingles.of(i), shingles.of(i + 1)) for i in range(0, len(texts), 2)]
    assert np.mean(true) == pytest.approx(similarity, abs=0.03)
    met = (keys[0::2] == keys[1::2]).any(1)
    expected = np.array([candidate_probability(s) for s in true])
    spread = np.sqrt((expected * (1 - expected)).sum()) / len(pairs)
    assert met.mean() == pytest.approx(expected.mean(), abs=5 * spread + 1e-9)


@pytest.mark.parametrize("chinese", [False, True])
def test_recall_and_precision_of_planted_copies(chinese):
    rng = random.Random(chinese)
    shares = [0.0, 0.5, 0.7, 0.75, 0.85, 0.9, 0.95, 1.0]
    pairs = [planted(share, rng, chinese=chinese) for share in shares for _ in range(20)]
    texts = [one for one, _ in pairs] + [other for _, other in pairs]
    dropped = {duplicate.index for duplicate in found_in(texts)}
    expected = set(brute_force(texts))
    assert dropped <= expected  # precision is 1: each was verified
    assert len(dropped) >= 0.99 * len(expected)
    assert len(expected) == pytest.approx(80, abs=2)


@settings(max_examples=40)
@given(st.data())
def test_what_is_dropped_is_like_a_kept_one(data):
    words = st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=12)
    texts = [" ".join(data.draw(words)) for _ in range(data.draw(st.integers(1, 25)))]
    threshold = data.draw(st.sampled_from([0.3, 0.6, 1.0]))
    found = found_in(texts, threshold=threshold, width=2)
    shingles = hash_shingles(texts, 2)
    dropped = {duplicate.index for duplicate in found}
    for duplicate in found:
        assert duplicate.of < duplicate.index
        assert duplicate.of not in dropped
        similarity = jaccard(shingles.of(duplicate.index), shingles.of(duplicate.of))
        assert similarity == duplicate.similarity >= threshold


def test_equal_texts_are_found_whatever_stands_between_them():
    texts = [f"text number {i} about something else entirely, with words enough" for i in range(500)]
    texts += texts[:50]
    assert [(d.index, d.of) for d in found_in(texts, threshold=1.0)] == [(500 + i, i) for i in range(50)]


def test_texts_without_a_token_are_like_none():
    assert found_in(["", "...", "", "!!"]) == []


def test_a_chain_does_not_travel():
    """b is like a and goes; c is like b, not like a, and stays."""
    words = [f"w{i}" for i in range(120)]
    a, b, c = words[:100], words[8:108], words[16:116]
    assert [d.index for d in found_in([" ".join(text) for text in (a, b, c)])] == [1]


def test_other_numbers_are_no_duplicates():
    texts = [f"Compute {i} + {i + 7}." for i in range(200)]
    assert found_in(texts) == []


def test_keys_do_not_depend_on_how_texts_are_batched():
    texts = [planted(0.5, random.Random(i), chinese=i % 2 == 0)[0] for i in range(30)]
    alone = np.concatenate([band_keys([text], width=WIDTH) for text in texts])
    assert (band_keys(texts, width=WIDTH) == alone).all()
    assert alone.shape == (30, BANDS)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not there")
@pytest.mark.parametrize("width", [2, 5])
def test_real_near_duplicates_agree_with_brute_force(width):
    texts = []
    for path in sorted(SHARED.glob("*.jsonl")):
        texts += [str(json.loads(line).get("text", "")) for line in path.read_text(encoding="utf-8").splitlines()]
    texts += [text.replace("the", "a", 2) for text in texts[:40]]
    dropped = [duplicate.index for duplicate in found_in(texts, width=width)]
    assert dropped == brute_force(texts, width=width)
    assert len(dropped) > 35


def test_rows_of_one_template_do_not_take_for_ever():
    """3,000 texts that share half their shingles are linked by their bands, and like none; a copy is still found."""
    rng = random.Random(0)
    template = [f"t{i}" for i in range(60)]
    texts = [" ".join([*template, *(f"w{rng.randrange(10**6)}" for _ in range(25))]) for _ in range(3000)]
    texts[2500] = texts[17] + " more"
    began = time.monotonic()
    assert [(d.index, d.of) for d in found_in(texts)] == [(2500, 17)]
    assert time.monotonic() - began < 60


def test_clusters_are_chains_of_similar_texts():
    """a is like b, b like c, c not like a: one cluster. d is alone."""
    words = [f"w{i}" for i in range(120)]
    texts = [" ".join(text) for text in (words[:100], ["x"], words[16:116], words[8:108])]
    keys = all_band_keys(texts, width=WIDTH)
    linked = clusters(keys, lambda indices: [texts[i] for i in indices], threshold=THRESHOLD, width=WIDTH)
    assert linked.tolist() == [0, 1, 0, 0]


@settings(max_examples=30)
@given(st.data())
def test_texts_of_different_clusters_are_not_similar(data):
    words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9)
    texts = [" ".join(data.draw(words)) for _ in range(data.draw(st.integers(1, 20)))]
    keys, shingles = all_band_keys(texts, width=2), hash_shingles(texts, 2)
    linked = clusters(keys, lambda indices: [texts[i] for i in indices], threshold=0.9, width=2)
    for i in range(len(texts)):
        assert linked[i] <= i
        assert linked[linked[i]] == linked[i]
        for j in range(i):
            assert jaccard(shingles.of(i), shingles.of(j)) < 0.9 or linked[i] == linked[j]
