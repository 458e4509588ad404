"""What is worth a person's time: by hand, against loops from the definitions, and by its laws."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.selection import disagreement, most_first, round_robin, shuffled, uncertainty

scored = st.integers(2, 6).flatmap(
    lambda k: st.lists(
        st.lists(st.integers(-9, 9).map(lambda n: n / 3), min_size=k, max_size=k), min_size=1, max_size=4
    )
)
seeds = st.integers(0, 1000)


@given(scored)
def test_uncertainty_equals_the_loop(rewards):
    k, total, num = len(rewards[0]), 0.0, 0
    for i in range(k):
        for j in range(k):
            if i != j:
                p = sum(math.exp(r[i]) / (math.exp(r[i]) + math.exp(r[j])) for r in rewards) / len(rewards)
                total, num = total + 2 * min(p, 1 - p), num + 1
    assert uncertainty(rewards) == pytest.approx(total / num, abs=1e-12)


@given(scored)
def test_disagreement_equals_the_loop(scores):
    k, total, num = len(scores[0]), 0.0, 0
    for i in range(k):
        for j in range(i):
            votes = Counter()
            for one in scores:
                votes["first"] += (one[i] > one[j]) + 0.5 * (one[i] == one[j])
                votes["second"] += (one[i] < one[j]) + 0.5 * (one[i] == one[j])
            shares = [count / len(scores) for count in votes.values()]
            total += sum(share * math.log2(1 / share) for share in shares if share)
            num += 1
    assert disagreement(scores) == pytest.approx(total / num, abs=1e-12)


@given(scored)
def test_two_numbers_are_those_of_torch(scores):
    values = torch.tensor(scores, dtype=torch.float64)
    i, j = torch.triu_indices(len(scores[0]), len(scores[0]), offset=1)
    gaps = values[:, i] - values[:, j]
    sure = (2 * torch.sigmoid(gaps).mean(dim=0) - 1).abs()
    assert uncertainty(scores) == pytest.approx((1 - sure).mean().item(), abs=1e-12)
    votes = torch.distributions.Bernoulli(probs=((1 + gaps.sign()) / 2).mean(dim=0))
    assert disagreement(scores) == pytest.approx(votes.entropy().mean().item() / math.log(2), abs=1e-12)


def test_by_hand():
    assert uncertainty([[1.0, 1.0]]) == 1.0
    assert uncertainty([[math.log(3), 0.0]]) == pytest.approx(0.5)  # 3 to 1
    assert uncertainty([[50.0, -50.0]]) == pytest.approx(0.0, abs=1e-9)
    assert uncertainty([[2.0, 0.0], [0.0, 2.0]]) == pytest.approx(1.0)  # two sure models that differ
    assert disagreement([[2.0, 1.0], [3.0, 0.0]]) == 0.0
    assert disagreement([[2.0, 1.0], [0.0, 9.0]]) == 1.0
    assert disagreement([[1.0, 1.0]]) == 1.0  # a tie is half a vote for each
    assert disagreement([[2, 1], [2, 1], [1, 2]]) == pytest.approx(0.918, abs=5e-4)  # the entropy of 1/3


@given(scored, st.floats(-5, 5))
def test_laws(scores, shift):
    assert 0 <= uncertainty(scores) <= 1 + 1e-12
    assert 0 <= disagreement(scores) <= 1 + 1e-12
    assert uncertainty([[s + shift for s in one] for one in scores]) == pytest.approx(uncertainty(scores), abs=1e-9)
    assert uncertainty([one[::-1] for one in scores]) == pytest.approx(uncertainty(scores))
    assert disagreement([[math.exp(s) for s in one] for one in scores]) == pytest.approx(disagreement(scores))
    assert disagreement([one[::-1] for one in scores[::-1]]) == pytest.approx(disagreement(scores))


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=20), seeds)
def test_the_largest_come_first(values, seed):
    order = most_first(values, seed=seed)
    assert sorted(shuffled(len(values), seed=seed)) == list(range(len(values)))
    assert sorted(order) == list(range(len(values)))
    assert [values[i] for i in order] == sorted(values, reverse=True)
    assert most_first(values, seed=seed) == order


@given(st.lists(st.integers(0, 4), max_size=20), seeds)
def test_any_first_ones_lie_in_as_many_clusters_as_they_can(clusters, seed):
    order = round_robin(clusters, seed=seed)
    assert sorted(order) == list(range(len(clusters)))
    assert round_robin(clusters, seed=seed) == order
    left = Counter(clusters)
    taken = Counter()
    for index in order:  # the slow rule: of the clusters that are not empty one that was asked least
        least = min(taken[cluster] for cluster, count in left.items() if count)
        assert taken[clusters[index]] == least
        taken[clusters[index]] += 1
        left[clusters[index]] -= 1


def test_equal_values_clusters_and_numbers_come_in_any_order():
    for order_by in (lambda s: shuffled(3, seed=s), lambda s: most_first([1, 1, 1], seed=s),
                     lambda s: round_robin([0, 1, 2], seed=s), lambda s: round_robin([0, 0, 0], seed=s)):  # fmt: skip
        counts = Counter(tuple(order_by(seed)) for seed in range(600))
        assert len(counts) == 6
        assert all(60 <= count <= 145 for count in counts.values())  # 100 each; 5 standard deviations of 9.1
