"""The classifier of good and bad texts."""

import random

import numpy as np
import orjson
import pytest
from hypothesis import given, settings

from fairlead.config.filters import FiltersConfig, QualityConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.quality import Quality, quality, trained
from fairlead.data.filters.steps import steps_of
from fairlead.errors import UserError
from fairlead.records import Document
from tests.data.filters.rows import RECORDS, ask, chat, pair

GOOD_WORDS = ("心脏", "血液", "because", "therefore", "the", "organs", "氧气", "lungs", "所以", "for example")
BAD_WORDS = ("点击", "免费", "click", "buy now", "the", "cheap", "加微信", "!!!", "所以", "best price")


def texts(words, count, seed):
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=12)) for _ in range(count)]


GOOD, BAD = texts(GOOD_WORDS, 100, 1), texts(BAD_WORDS, 100, 2)
MODEL = trained(GOOD, BAD, 0)
STEP = Quality(MODEL, 0.5)


def test_good_and_bad_are_told_apart():
    assert MODEL.accuracy == 1.0
    assert 20 <= MODEL.num_held_out <= 60
    assert min(map(MODEL.score, texts(GOOD_WORDS, 20, 3))) > 0.5 > max(map(MODEL.score, texts(BAD_WORDS, 20, 4)))
    good, bad = "心脏 because the lungs", "加微信 best price, buy now"
    for record in (chat(good, bad), Document(good), ask(good), pair(good, bad)):
        assert STEP(record) == Kept(record)
    for record in (chat(bad), Document(bad), ask(bad), pair(bad, good)):
        assert STEP(record) == Dropped("quality below 0.5")
    assert isinstance(Quality(MODEL, 0.0)(chat(bad)), Kept)
    assert isinstance(Quality(MODEL, MODEL.score(bad))(chat(bad)), Kept), "the limit itself is good enough"
    assert isinstance(Quality(MODEL, 1.0)(chat(good)), Dropped)


def test_the_order_of_examples_does_not_matter():
    again = trained(GOOD, BAD, 0)
    assert np.array_equal(again.weights, MODEL.weights)
    turned = trained(GOOD[::-1], BAD[::-1], 0)
    assert np.allclose(turned.weights, MODEL.weights, atol=1e-6)
    assert turned.accuracy == MODEL.accuracy
    assert not np.allclose(trained(GOOD, BAD, 1).weights, MODEL.weights, atol=1e-6)


def test_good_and_bad_count_the_same_however_many_there_are():
    assert trained(texts(GOOD_WORDS, 600, 5), BAD, 0).accuracy > 0.95
    mixed = texts(GOOD_WORDS + BAD_WORDS, 720, 5)
    for model in (trained(mixed[:600], mixed[600:700], 0), trained(mixed[600:700], mixed[:600], 0)):
        assert 0.3 < np.mean(list(map(model.score, mixed[700:]))) < 0.7


def test_labels_without_meaning_are_found_out():
    mixed = texts(GOOD_WORDS + BAD_WORDS, 400, 6)
    assert 0.3 < trained(mixed[:200], mixed[200:], 0).accuracy < 0.7


def files(folder, good=GOOD, bad=BAD):
    rows = [{"instruction": "q", "output": text} for text in bad]
    (folder / "good.txt").write_text("\n".join(good), "utf-8")
    (folder / "bad.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return {"good": (str(folder / "good.txt"),), "bad": (str(folder / "bad.jsonl"),)}


def test_from_files_and_off_without_them(tmp_path):
    given = files(tmp_path)
    step = steps_of(FiltersConfig(quality=QualityConfig(**given)))["quality"]
    assert step.model.accuracy == 1.0
    assert np.allclose(
        step.model.weights, trained(list(dict.fromkeys(GOOD)), list(dict.fromkeys(BAD)), 0).weights, atol=1e-6
    )
    assert quality(QualityConfig(**given, min_score=0.9)).min_score == 0.9
    assert not np.array_equal(quality(QualityConfig(**given, seed=3)).model.weights, step.model.weights)
    assert "quality" not in steps_of(FiltersConfig())


def test_a_classifier_that_is_no_good_drops_nothing(tmp_path):
    mixed = texts(GOOD_WORDS + BAD_WORDS, 400, 6)
    given = files(tmp_path, mixed[:200], mixed[200:])
    with pytest.raises(UserError, match=r"cannot tell good from bad.*accuracy 0"):
        quality(QualityConfig(**given))
    assert quality(QualityConfig(**given, min_accuracy=0.0)).model.accuracy < 0.7


def test_too_few_examples_and_files_that_hold_none(tmp_path):
    with pytest.raises(UserError, match="too few bad examples"):
        trained(GOOD, BAD[:10], 0)
    given = files(tmp_path)
    (tmp_path / "none.jsonl").write_bytes(b"{oops")
    for bad, says in (("none.jsonl", "no row can be used"), ("missing.txt", "cannot be read")):
        with pytest.raises(UserError, match=says):
            quality(QualityConfig(good=given["good"], bad=(str(tmp_path / bad),)))
    with pytest.raises(ValueError, match=r"quality\.good goes with quality\.bad"):
        QualityConfig(good=given["good"])


@settings(max_examples=50)
@given(RECORDS)
def test_no_text_is_too_odd(record):
    assert isinstance(STEP(record), Kept | Dropped)
