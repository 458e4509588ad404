import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.pack import pack, pack_by_prompt

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


def totals(lengths, bins):
    return [sum(lengths[i] for i in group) for group in bins]


@given(LENGTHS, st.integers(1, 50))
def test_every_row_once_and_no_bin_overfull(lengths, capacity):
    bins = pack(lengths, capacity)
    assert sorted(i for group in bins for i in group) == list(range(len(lengths)))
    for group, total in zip(bins, totals(lengths, bins), strict=True):
        assert total <= capacity or len(group) == 1
    assert bins == pack(lengths, capacity)


@given(LENGTHS, st.integers(1, 50))
def test_best_fit_never_leaves_two_bins_that_would_fit_in_one(lengths, capacity):
    """Any-fit bins: no bin's smallest row fits into the room of another; so fewer than twice the least possible."""
    bins = pack(lengths, capacity)
    tokens = totals(lengths, bins)
    small = [t for t in tokens if t <= capacity]
    assert all(a + b > capacity for i, a in enumerate(small) for b in small[i + 1 :])


@given(LENGTHS, st.integers(1, 50), st.integers(1, 10))
def test_a_number_of_bins_is_met_and_none_is_empty(lengths, capacity, num_bins):
    bins = pack(lengths, capacity, num_bins=num_bins)
    assert len(bins) == min(num_bins, len(lengths))
    assert all(bins)
    assert sorted(i for group in bins for i in group) == list(range(len(lengths)))
    if len(lengths) >= num_bins:
        tokens = totals(lengths, bins)
        # Longest first into the emptiest bin: no two bins differ by more than the longest row
        assert max(tokens) - min(tokens) <= max(lengths)


@pytest.mark.parametrize(
    ("lengths", "num_bins", "expected"),
    [
        ([5, 3, 9, 2, 2, 30], 0, [[0, 1, 3], [2], [4], [5]]),
        ([4, 4, 4, 4], 2, [[0, 2], [1, 3]]),
        ([], 3, []),
    ],
)
def test_by_hand(lengths, num_bins, expected):
    assert pack(lengths, 10, num_bins=num_bins) == expected


PROMPTS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 20)), max_size=30)  # number of a prompt, own tokens


def by_prompt(rows):
    """Prompt k has k tokens; number 0 is no prompt."""
    prompts = [(k,) * k for k, _ in rows]
    return [k + own for k, own in rows], prompts


@given(PROMPTS, st.integers(1, 50))
def test_a_prompt_counts_once_in_a_bin_and_no_bin_is_overfull(rows, capacity):
    lengths, prompts = by_prompt(rows)
    bins = pack_by_prompt(lengths, prompts, capacity)
    assert sorted(i for group in bins for i in group) == list(range(len(rows)))
    assert bins == sorted(map(sorted, bins))
    for group in bins:
        tokens = sum(rows[i][1] for i in group) + sum(map(len, {prompts[i] for i in group}))
        assert tokens <= capacity or len(group) == 1


@given(PROMPTS, st.integers(1, 50), st.integers(0, 5))
def test_different_prompts_are_packed_as_if_there_were_none(rows, capacity, num_bins):
    lengths = [k + own for k, own in rows]
    prompts = [(i, *[0] * (k - 1)) if k else () for i, (k, _) in enumerate(rows)]
    assert pack_by_prompt(lengths, prompts, capacity, num_bins=num_bins) == pack(lengths, capacity, num_bins=num_bins)


def test_rows_of_a_prompt_keep_together_as_far_as_the_capacity_reaches():
    lengths, prompts = by_prompt([(4, 3), (2, 3), (4, 3), (4, 3), (2, 3)])
    assert pack_by_prompt(lengths, prompts, 10) == [[0, 2], [1, 4], [3]]
    assert pack_by_prompt(lengths, prompts, 1, num_bins=1) == [[0, 1, 2, 3, 4]]
