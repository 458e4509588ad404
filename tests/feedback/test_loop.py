"""The loop of rankings: its length rule against a slow one, and a short walk of it on the starter model."""

import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.loop_of_rankings import best_length_rule, liking, longer_wins, ranks_of
from fairlead.data.starter import STARTER_MODELS, missing
from fairlead.feedback.store import open_store
from fairlead.runtime.environment import cache_folder
from tiny_store import answers_in, rankings_in

ROOT = Path(__file__).parents[2]
LENGTHS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(LENGTHS)
def test_the_best_length_rule_is_the_best_of_all_rules(pairs):
    """Every rule that says longer, shorter, or above or below a bound; who cannot tell is right half of the time."""
    bounds = [-0.5 + bound for bound in range(8)]
    values = [lambda n: n, *(lambda n, bound=bound: int(n > bound) for bound in bounds)]
    shares = []
    for value, sign in product(values, (1, -1)):
        right = [sign * (value(better) - value(worse)) for better, worse in pairs]
        shares.append(sum(1 if one > 0 else 0.5 if one == 0 else 0 for one in right) / len(right))
    assert best_length_rule(pairs) == pytest.approx(max(shares))


def test_by_hand():
    assert liking("The cat saw the owl.\nA dog") == 2 / 7
    assert liking("42") == 0
    assert ranks_of([0.1, 0.06, 0.08, 0.2]) == [2, 2, 2, 1]
    assert ranks_of([0.1, 0.0, 0.2]) == [2, 3, 1]
    assert longer_wins([(3, 1), (1, 3), (2, 2), (5, 0)]) == 0.625
    assert best_length_rule([(10, 1), (9, 2), (1, 0), (2, 3)]) == 0.75
    assert best_length_rule([(1, 5), (2, 6)]) == 1.0


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(3600)
def test_a_short_walk_of_the_loop(tmp_path):
    """Every label that came over HTTP is the annotator's, and all figures are there."""
    if missing(cache_folder()):
        pytest.skip(f"{STARTER_MODELS[0]} is not in the cache")
    words = [str(tmp_path), "--rankings", "16", "--held-out", "8"]
    command = [sys.executable, "experiments/loop_of_rankings.py", *words]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "train: 16 rankings over HTTP, 16 of 16 comparisons finished" in said
    assert "held_out: 8 rankings over HTTP" in said
    store = open_store(str(tmp_path / "train.db"))
    rows = rankings_in(store)
    assert len(rows) == 16
    for row in rows:
        texts = {str(answer["id"]): answer["content"] for answer in answers_in(store, row["comparison_id"])}
        assert list(row["ranks"].values()) == ranks_of([liking(texts[number]) for number in row["ranks"]])
    store.close()
    assert re.search(r"difference [+-]\d", said)
