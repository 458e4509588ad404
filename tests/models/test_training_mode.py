"""Checkpointing and dropout act while gradients are wanted, and only then."""

import math
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fairlead.models.forward import noisy_embeddings
from fairlead.models.loading import input_embedding
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


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_noise_on_embeddings_is_uniform_scaled_by_length_and_only_in_training(
    tiny: Callable[[str], Path], family: str
) -> None:
    """NEFTune: alpha / sqrt(L D) at most, on a packed and on a padded model, and none without gradients."""
    roles, rows = in_training(tiny(family), tuning="full"), rows_of([30, 5])
    embedding = input_embedding(roles.causal_lm("policy"))
    seen = []
    embedding.register_forward_hook(lambda _module, _inputs, out: seen.append(out.detach()), always_call=True)
    with torch.no_grad():
        before = roles(packed(rows), "policy").logprobs
        roles.noise["policy"] = 5.0
        assert torch.equal(roles(packed(rows), "policy").logprobs, before)
    clean = seen[-1]
    noisy_run = in_training(tiny(family), tuning="full")
    noisy_run.noise["policy"] = 5.0
    found = []
    real = noisy_embeddings

    @contextmanager
    def watched(module, *args, **more):
        with real(module, *args, **more):
            handle = module.register_forward_hook(lambda _module, _inputs, out: found.append(out.detach()))
            yield
            handle.remove()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairlead.models.roles.noisy_embeddings", watched)
        torch.manual_seed(3)
        after = noisy_run(packed(rows), "policy").logprobs
    assert not torch.equal(after, before)
    torch.manual_seed(3)
    uniform = 2.0 * torch.rand(clean.shape) - 1.0
    scale = torch.tensor([[5.0 / math.sqrt(length * 32)] for length in (30, 5)])  # [S, 1]
    if clean.shape[0] == 1:
        scale = torch.cat([scale[:1].expand(30, 1), scale[1:].expand(5, 1)])[None, :, 0]
    torch.testing.assert_close(found[0] - clean, uniform * scale[..., None], rtol=1e-4, atol=1e-6)
    assert uniform.abs().max() > 0.95
