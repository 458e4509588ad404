from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.config.common import ForwardConfig, ModelConfig
from fairlead.data.examples import Example
from fairlead.models.build import add_trainable
from fairlead.models.head import normalise_head
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from model_setting import rows_of, runtime_of

Tiny = Callable[[str], Path]


def scores(roles: Roles, responses: Sequence[Example], batch: ForwardConfig) -> torch.Tensor:
    return torch.cat(per_sequence(roles, "reward", responses, batch, runtime_of()))


@pytest.mark.parametrize("tuning", ["lora", "full"])
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 30), min_size=3, max_size=12, unique=True), seed=st.integers(0, 9))
def test_scores_have_mean_0_and_variance_1(tiny: Tiny, tuning: str, lengths: list[int], seed: int) -> None:
    """And are the old ones with the part along the mean hidden state taken out: in that they differ by a factor."""
    roles, batch, runtime = Roles(), ForwardConfig(micro_batch_tokens=40), runtime_of()
    torch.manual_seed(seed)
    add_trainable(
        roles, "reward", resolve(str(tiny("llama"))), "scores", ModelConfig(tuning=tuning), runtime, dropout=0.5
    )
    responses = [Example(row, (True,) * len(row)) for row in rows_of(lengths, seed)]
    head = roles.head("reward").weight
    before = head.detach().clone()
    normalise_head(roles, "reward", responses, batch, runtime)
    found = scores(roles, responses, batch).double()
    assert found.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert found.std(correction=0).item() == pytest.approx(1.0, rel=1e-4)
    after = head.detach().clone()
    hidden = []
    for i in range(head.shape[1]):  # a head of one unit vector after the other reads the states
        with torch.no_grad():
            head.copy_(torch.nn.functional.one_hot(torch.tensor([i]), head.shape[1]).float())
        hidden.append(scores(roles, responses, batch))
    mean = torch.stack(hidden).mean(1)
    apart = before - (before @ mean)[:, None] / (mean @ mean) * mean
    assert torch.nn.functional.cosine_similarity(after, apart).item() == pytest.approx(1.0, abs=1e-5)
    assert (after @ mean).abs().item() < 1e-4 * float(mean.norm())
