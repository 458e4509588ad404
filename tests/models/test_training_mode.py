"""Checkpointing and dropout act while gradients are wanted, and only then."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairlead.models.roles import Roles
from model_setting import in_training, packed, rows_of

BATCH = packed(rows_of([9, 4, 12]))


def perturbed(roles: Roles) -> Roles:
    """A new adapter says nothing; this one does."""
    with torch.no_grad():
        for parameter in roles.trainable("policy").values():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return roles


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_are_recomputed_in_the_backward_pass(
    tiny: Callable[[str], Path], tuning: str, checkpointing: bool
) -> None:
    roles = in_training(tiny("llama"), tuning=tuning, checkpointing=checkpointing)
    calls: list[str] = []
    roles.causal_lm("policy").model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append("forward"))
    for _ in range(2):
        calls.clear()
        roles(BATCH, "policy").logprobs.sum().backward()
        assert len(calls) == (2 if checkpointing else 1)
    calls.clear()
    with torch.no_grad():
        roles(BATCH, "policy")
    assert len(calls) == 1


def test_adapter_dropout_is_for_gradients_only(tiny: Callable[[str], Path]) -> None:
    roles = perturbed(in_training(tiny("llama"), tuning="lora", dropout=0.5))
    drawn = []
    for _ in range(2):
        logprobs = roles(BATCH, "policy").logprobs
        logprobs.sum().backward()
        drawn.append(logprobs.detach())
    with torch.no_grad():
        measured = [roles(BATCH, "policy").logprobs for _ in range(2)]
    assert not torch.equal(*drawn)
    assert torch.equal(*measured)
