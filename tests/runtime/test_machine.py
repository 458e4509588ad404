"""Counts of work against a count by hand; rates and memory within what is possible."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairlead.config.common import LoraConfig, RuntimeConfig
from fairlead.models.adapters import add_adapter, fresh_adapter
from fairlead.runtime.machine import flops_per_token, matrix_rate, peak_memory_bytes
from fairlead.runtime.start import start
from tiny import tiny_config

CPU = torch.device("cpu")
LAYERS = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)  # q, k and v (two of four heads), o; gate, up, down
HEAD = 320 * 32


@pytest.mark.parametrize("family", ["llama", "llama-untied"])
@pytest.mark.parametrize("adapted", [False, True])
def test_work_of_a_token(family, adapted):
    """The embedding is looked up, not multiplied: it counts only where it is the output matrix too."""
    model = AutoModelForCausalLM.from_config(tiny_config(family))
    if adapted:
        model = add_adapter(model, "policy", fresh_adapter(model, LoraConfig(rank=4))).get_base_model()
    matrices = LAYERS + HEAD
    forward = flops_per_token(model, num_forwards=1, num_backwards=0, trained_fraction=0.0)
    assert forward == 2 * matrices
    trained = flops_per_token(model, num_forwards=1, num_backwards=1, trained_fraction=1.0)
    assert trained == 6 * matrices
    frozen = flops_per_token(model, num_forwards=3, num_backwards=2, trained_fraction=0.5)
    assert frozen == pytest.approx((3 * 2 + 2 * 3) * matrices)


def test_rate_and_memory():
    assert 1e7 < matrix_rate(CPU, torch.float32, seconds=0.01) < 1e15
    before = peak_memory_bytes(CPU)
    block = torch.ones(64, 1024, 1024)
    assert before + block.nbytes / 2 < peak_memory_bytes(CPU) < 1e12


def test_every_step_and_rank_draws_its_own_numbers():
    runtime = start(RuntimeConfig(device="cpu", dtype="float32", num_threads=1, seed=3))
    drawn = []
    for step in (0, 1, 2, 0):
        runtime.seed_step(step)
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[3])
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 3
