"""Micro-batches and recomputed layers fitted to memory: what is foreseen, what is chosen; no result changes."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fairlead.config.common import MicroBatchConfig, ModelConfig
from fairlead.config.stages import SftConfig
from fairlead.models.roles import Roles
from fairlead.runtime.machine import FAST_PASS_TOKENS
from fairlead.train import memory
from fairlead.train.memory import fitted, kept_bytes_per_token
from model_setting import in_training, packed, rows_of, runtime_of
from tiny_stages import TRAINERS
from tiny_stages import rows_of as lines_of

GIB = 2**30
LONGEST = 10  # tokens of a row, where its length does not matter


def allocated(roles: Roles, length: int, count: int) -> int:
    """Bytes that a pass over sequences of one target each allocates and does not free, by torch's own count."""
    batch = packed(rows_of([length] * count), [(False,) * (length - 1) + (True,)] * count)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        result = roles(batch, "policy")
    total = sum(event.self_cpu_memory_usage for event in seen.key_averages())
    result.logprobs.sum().backward()
    return total


def allocated_per_token(roles: Roles, length: int) -> float:
    allocated(roles, length, 1)  # what is made once
    return (allocated(roles, length, 5) - allocated(roles, length, 2)) / (3 * length)


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("length", [24, 200])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_what_a_token_leaves_is_what_the_allocator_holds(tiny, family, length, tuning):
    roles = in_training(tiny(family), tuning=tuning)
    foreseen = kept_bytes_per_token(roles, "policy", length)
    assert all(parameter.grad is None for parameter in roles.parameters())
    assert foreseen == pytest.approx(allocated_per_token(roles, length), rel=0.05)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_recomputed_layers_leave_their_inputs(tiny, tuning):
    roles = in_training(tiny("llama"), tuning=tuning)
    roles.checkpoint_activations()
    assert memory._waiting_bytes(roles, "policy") == pytest.approx(allocated_per_token(roles, 100), rel=0.15)


def test_while_it_is_recomputed_a_layer_is_there_whole(tiny):
    roles = in_training(tiny("llama"), tuning="full")
    plain = kept_bytes_per_token(roles, "policy", 100)
    assert memory._recomputed_bytes(roles, "policy", plain) == memory._waiting_bytes(roles, "policy") + plain / 2


def choice(roles: Roles, monkeypatch, room: float, *, longest: int = LONGEST, **given) -> SftConfig:
    monkeypatch.setattr(memory, "_room", lambda *_: int(room))
    batch = MicroBatchConfig(micro_batch_tokens=given.get("tokens", 0))
    model = ModelConfig(activation_checkpointing=given.get("recompute", "auto"))
    config = SftConfig().model_copy(update={"batch": batch, "model": model})
    return fitted(config, roles, runtime_of(), longest=longest)


@pytest.fixture
def roles(tiny):
    return in_training(tiny("llama"), tuning="full")


@pytest.fixture
def recomputed(monkeypatch):
    asked = []
    real = Roles.checkpoint_activations
    monkeypatch.setattr(Roles, "checkpoint_activations", lambda roles: (asked.append(1), real(roles))[1])
    return asked


def test_with_memory_enough_a_pass_is_as_long_as_is_fast(roles, monkeypatch, recomputed):
    assert choice(roles, monkeypatch, 100 * GIB).batch.micro_batch_tokens == FAST_PASS_TOKENS["cpu"]
    assert not recomputed
    assert not roles.notes


def test_with_less_memory_micro_batches_are_smaller(roles, monkeypatch, recomputed):
    each = kept_bytes_per_token(roles, "policy", LONGEST)
    assert choice(roles, monkeypatch, 700 * each).batch.micro_batch_tokens == 512
    assert not recomputed
    assert "micro-batches of 512 tokens" in roles.notes[0]


def test_layers_are_recomputed_when_the_longest_row_would_not_fit(roles, monkeypatch, recomputed):
    each = kept_bytes_per_token(roles, "policy", 800)
    config = choice(roles, monkeypatch, 700 * each, longest=800)
    assert recomputed == [1]
    assert "recomputed" in roles.notes[0]
    assert config.batch.micro_batch_tokens >= 512


def test_layers_are_recomputed_for_the_micro_batch_that_was_asked_for(roles, monkeypatch, recomputed):
    each = kept_bytes_per_token(roles, "policy", LONGEST)
    assert choice(roles, monkeypatch, 700 * each, tokens=800).batch.micro_batch_tokens == 800
    assert recomputed == [1]


@pytest.mark.parametrize("recompute", [True, False])
def test_what_was_asked_for_stays(roles, monkeypatch, recomputed, recompute):
    assert choice(roles, monkeypatch, 1, tokens=800, recompute=recompute).batch.micro_batch_tokens == 800
    assert not recomputed  # `ready` has done it, where it was asked for
    assert not roles.notes


def test_a_row_that_cannot_fit_is_told(roles, monkeypatch, recomputed):
    config = choice(roles, monkeypatch, -GIB, longest=800)
    assert config.batch.micro_batch_tokens == 1
    assert recomputed
    assert any("warning: a row of 800 tokens" in note and "data.max_length" in note for note in roles.notes)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_room_is_what_weights_and_their_training_leave(tiny, tuning, monkeypatch):
    roles = in_training(tiny("llama"), tuning=tuning)
    monkeypatch.setattr(memory, "memory_bytes", lambda _: 8 * GIB)
    every = sum(parameter.numel() for parameter in roles.parameters())
    trained = sum(parameter.numel() for parameter in roles.parameters() if parameter.requires_grad)
    in_float32 = memory._room(roles, torch.device("cpu"))
    assert in_float32 == int((3 * GIB - 4 * every - 12 * trained) / memory.ON_TOP)  # gradient and two moments
    roles.bfloat16()
    halved = memory._room(roles, torch.device("cpu"))
    assert halved == int((3 * GIB - 2 * every - 18 * trained) / memory.ON_TOP)  # a master and its gradient as well


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_small_memory_changes_no_result(world, tmp_path, trainer, monkeypatch, recomputed):
    words = ("batch.micro_batch_tokens=0",)
    ample = lines_of(world.run(trainer, tmp_path / "ample", *words) / "metrics.jsonl")
    role = "reward" if trainer == "reward" else "policy"
    monkeypatch.setattr(memory, "_room", lambda roles, _: int(100 * kept_bytes_per_token(roles, role, LONGEST)))
    small = lines_of(world.run(trainer, tmp_path / "small", *words) / "metrics.jsonl")
    assert recomputed
    for one, other in zip(ample, small, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
