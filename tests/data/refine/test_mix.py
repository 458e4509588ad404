"""Shares of groups: as asked for, as many rows as they allow, none twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config.refine import MixConfig
from fairlead.data.refine.mix import quotas_of, rows_to_keep
from fairlead.errors import UserError

COUNTS = st.lists(st.integers(0, 200), min_size=1, max_size=5)


@given(COUNTS, st.data())
def test_quotas_follow_the_shares_and_no_group_gives_more_than_it_has(counts, data):
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=len(counts), max_size=len(counts)))
    rows, by_weight = data.draw(st.integers(0, 300)), data.draw(st.booleans())
    temperature = 1.0 if by_weight else data.draw(st.floats(0.5, 5))
    config = MixConfig(temperature=temperature, rows=rows, weights=("a=1",) if by_weight else ())
    quotas = quotas_of(np.array(counts), weights, config)
    shares = [
        (w if by_weight else n ** (1 / temperature)) if n else 0.0 for w, n in zip(weights, counts, strict=True)
    ]  # fmt: skip
    total = min((n * sum(shares) / s for n, s in zip(counts, shares, strict=True) if s), default=0.0)
    total = min(total, rows) if rows else total
    for quota, count, share in zip(quotas, counts, shares, strict=True):
        assert quota <= count
        assert abs(quota - (total * share / sum(shares) if sum(shares) else 0)) <= 1


def test_a_mix_by_weight_takes_all_that_the_scarcest_group_allows():
    weighted = MixConfig(weights=("a=1",))
    assert quotas_of(np.array([100, 10]), [1.0, 1.0], weighted) == [10, 10]
    assert quotas_of(np.array([100, 100]), [1.0, 3.0], weighted) == [33, 100]


def test_a_high_temperature_evens_groups_out():
    shares = [quotas_of(np.array([1000, 10]), [1.0, 1.0], MixConfig(temperature=t)) for t in (1.0, 3.0, 1e9)]
    assert shares[0] == [1000, 10]
    assert shares[0][0] > shares[1][0] > shares[2][0] == 10


def test_the_first_rows_of_the_order_stay():
    kept = np.array([True] * 6 + [False])
    group = np.array([0, 0, 0, 1, 1, 1, 1], dtype=np.int32)
    order = np.array([3, 1, 2, 9, 8, 7, 0], dtype=np.uint64)
    stays = rows_to_keep(kept, group, ["a", "b"], order, MixConfig(weights=("a=2", "b=1")))
    assert stays.tolist() == [True, True, True, False, False, True, False]


def test_an_unknown_group_is_named():
    with pytest.raises(UserError, match="no such group") as caught:
        rows_to_keep(
            np.array([True]), np.zeros(1, dtype=np.int32), ["en"], np.zeros(1, dtype=np.uint64),
            MixConfig(weights=("zh=1",)),
        )  # fmt: skip
    assert "zh" in caught.value.got
