"""A step in few calls says what transformers' layers say, to the last bit, whatever family, precision or adapter."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairlead.config.common import LoraConfig, ModelConfig, RuntimeConfig
from fairlead.models import decode_step
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.kv_cache import SlotCache
from fairlead.models.loading import decoder_of
from fairlead.models.prepacked import Prepacked
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.runtime.start import start
from model_setting import packed, rows_of
from tiny import PACKABLE, WINDOW

Tiny = Callable[[str], Path]
KNOWN = ("llama", "llama-untied", "qwen2", "qwen3", "mistral")
PROMPTS = rows_of([3, 2 * WINDOW, 1, 30])


def roles_of(folder: Path, dtype: str, *, lora: bool) -> Roles:
    roles, runtime = Roles(), start(RuntimeConfig(device="cpu", dtype=dtype, num_threads=1))
    if not lora:
        add_frozen(roles, "policy", resolve(str(folder)), "logprobs", runtime)
        return roles
    model = ModelConfig(lora=LoraConfig(rank=4, alpha=8.0))
    add_trainable(roles, "policy", resolve(str(folder)), "logprobs", model, runtime, dropout=0.0)
    with torch.no_grad():
        for parameter in roles.trainable("policy").values():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return ready(roles, model, runtime)


@torch.no_grad()
def logits_of(roles: Roles, steps: int) -> torch.Tensor:
    cache = SlotCache(len(PROMPTS), torch.device("cpu"))
    cache.enter(tuple(map(len, PROMPTS)), tuple(range(len(PROMPTS))))
    found = [roles(packed(PROMPTS), "policy", cache=cache)]
    for step in range(steps):
        cache.expect_token()
        found.append(roles(packed([(token,) for token in range(step, step + len(PROMPTS))]), "policy", cache=cache))
    return torch.stack(found)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", KNOWN)
def test_the_same_bits(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, family: str, dtype: str, lora: bool) -> None:
    roles, steps, taken = roles_of(tiny(family), dtype, lora=lora), WINDOW + 3, []
    real = decode_step.next_hidden
    monkeypatch.setattr(decode_step, "next_hidden", lambda *given: taken.append(given) or real(*given))
    with Prepacked(roles.backbone(roles.roles["policy"].backbone)).in_use():
        ours = logits_of(roles, steps)
        assert len(taken) == steps
        monkeypatch.setattr(decode_step, "is_known", lambda _: False)
        expected = logits_of(roles, steps)
        assert len(taken) == steps
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("family", PACKABLE)
def test_other_families_run_their_own_layers(tiny: Tiny, family: str) -> None:
    decoder = decoder_of(roles_of(tiny(family), "float32", lora=False).causal_lm("policy"))
    assert decode_step.is_known(decoder) == (family in KNOWN)
    if family in KNOWN:
        layer = decoder.layers[-1]
        layer.__class__ = type("FSDP" + type(layer).__name__, (type(layer),), {})  # what sharding does
        assert not decode_step.is_known(decoder)
