import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.aggregate import token_weights

RESPONSES = st.lists(st.lists(st.floats(-5, 5), max_size=6), min_size=1, max_size=5)
LONGEST = 6


def aggregated(rows, how):
    """By the definitions, on the losses of each response's tokens."""
    count = len(rows)
    if how == "token_mean":
        return sum(map(sum, rows)) / max(1, sum(map(len, rows)))
    if how == "response_mean":
        return sum(sum(row) / len(row) for row in rows if row) / count
    return sum(map(sum, rows)) / (count * LONGEST)


@pytest.mark.parametrize("how", ["token_mean", "response_mean", "constant"])
@given(rows=RESPONSES)
def test_weights_give_the_mean_of_the_definition(how, rows):
    weights = token_weights(torch.tensor([len(row) for row in rows]), how, max_response_tokens=LONGEST)
    weighted = sum(weight * sum(row) for weight, row in zip(weights.tolist(), rows, strict=True))
    assert weighted == pytest.approx(aggregated(rows, how), abs=1e-9)


@given(RESPONSES)
def test_weights_give_the_means_of_torch(rows):
    losses = [torch.tensor(row, dtype=torch.float64) for row in rows if row]
    if not losses:
        return
    lengths = torch.tensor([len(row) for row in rows])
    expected = {
        "token_mean": torch.cat(losses).mean(),
        "response_mean": torch.stack([row.mean() for row in losses]).sum() / len(rows),
        "constant": torch.nn.utils.rnn.pad_sequence([*losses, torch.zeros(LONGEST)]).sum() / (len(rows) * LONGEST),
    }
    for how, want in expected.items():
        weights = token_weights(lengths, how, max_response_tokens=LONGEST).repeat_interleave(lengths)
        assert (weights * torch.cat(losses)).sum().item() == pytest.approx(want.item(), abs=1e-9)


def test_by_hand():
    lengths = torch.tensor([1, 3])
    weights = {
        how: token_weights(lengths, how, max_response_tokens=LONGEST).tolist()
        for how in ("token_mean", "response_mean", "constant")
    }
    assert weights == {
        "token_mean": [1 / 4, 1 / 4], "response_mean": [1 / 2, pytest.approx(1 / 6)],
        "constant": [pytest.approx(1 / 12)] * 2,
    }  # fmt: skip
