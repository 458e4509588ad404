import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.intervals import wilson
from fairlead.evaluate.probes import distinct_n, end_token_rate, longest_repeat, mean_length, measure

tokens = st.lists(st.integers(0, 3), max_size=24)
rows = st.lists(tokens, min_size=1, max_size=6)


def slow_longest_repeat(row):
    """Every pair of starts, extended token by token while the two spans do not touch."""
    best = 0
    for first in range(len(row)):
        for second in range(first + 1, len(row)):
            length = 0
            while (
                second + length < len(row) and first + length < second and row[first + length] == row[second + length]
            ):
                length += 1
            best = max(best, length)
    return best


def slow_distinct(rows, n):
    seen, total = [], 0
    for row in rows:
        for start in range(len(row) - n + 1):
            total += 1
            if row[start : start + n] not in seen:
                seen.append(row[start : start + n])
    return len(seen) / total if total else 0.0


@given(tokens)
def test_longest_repeat_is_that_of_the_slow_search(row):
    assert longest_repeat(row) == slow_longest_repeat(row)


def test_longest_repeat_by_hand():
    assert longest_repeat([]) == 0
    assert longest_repeat([1, 2, 3]) == 0
    assert longest_repeat([1, 2, 3, 9, 1, 2, 3]) == 3
    assert longest_repeat([7, 7, 7]) == 1  # two sevens twice would overlap
    assert longest_repeat([7, 7, 7, 7]) == 2


def test_longest_repeat_is_quick_on_a_looping_response():
    assert longest_repeat([1, 2] * 256) == 256


@given(rows, st.integers(1, 3))
def test_distinct_n_is_that_of_the_slow_count(rows, n):
    assert distinct_n(rows, n) == pytest.approx(slow_distinct(rows, n))


def test_distinct_n_counts_over_all_responses():
    assert distinct_n([(1, 2, 3), (1, 2, 4)], 2) == pytest.approx(3 / 4)
    assert distinct_n([(1,)], 2) == 0.0
    with pytest.raises(ValueError, match="n=0"):
        distinct_n([(1, 2)], 0)


def test_rates_and_lengths():
    assert mean_length([(1, 2), (3,), ()]) == 1.0
    rate, low, high = end_token_rate([True, True, False, True])
    assert (rate, low, high) == (0.75, *wilson(3, 4))
    assert low < rate < high


def test_measure_collects_every_probe():
    probes = measure([(1, 2, 1, 2), (5, 6)], [True, False])
    assert probes.num_responses == 2
    assert probes.distinct_1 == pytest.approx(4 / 6)
    assert probes.distinct_2 == pytest.approx(3 / 4)
    assert (probes.longest_repeat, probes.longest_repeat_max) == (1.0, 2)
    assert (probes.mean_length, probes.end_token_rate) == (3.0, 0.5)


@pytest.mark.parametrize("call", [lambda: mean_length([]), lambda: end_token_rate([]), lambda: measure([(1,)], [])])
def test_nothing_to_measure_is_refused(call):
    with pytest.raises(ValueError, match=r"no responses|finished flags"):
        call()
