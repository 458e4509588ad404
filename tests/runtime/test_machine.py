"""Counts of work against a count by hand; rates and memory within what is possible."""

import mmap
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairlead.config.common import LoraConfig, RuntimeConfig
from fairlead.models.adapters import add_adapter, fresh_adapter
from fairlead.runtime import machine
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


def test_rate():
    assert 1e7 < matrix_rate(CPU, torch.float32, seconds=0.01) < 1e15


def test_peak_memory_is_that_of_the_stage():
    """It rises with what is held, stays when that is freed, and falls where the next stage starts."""
    runtime = RuntimeConfig(device="cpu", num_threads=1)
    num_bytes = 2**27
    start(runtime)
    before = peak_memory_bytes(CPU)
    with mmap.mmap(-1, num_bytes) as block:  # not malloc's: that may hold as much already, and keeps what is freed
        for page in range(0, num_bytes, mmap.PAGESIZE):
            block[page] = 1
        peak = peak_memory_bytes(CPU)
    assert before + 0.9 * num_bytes < peak < 1e12
    assert peak_memory_bytes(CPU) > peak - num_bytes / 10  # the kernel's counters of each core lag a little
    if sys.platform == "linux":
        start(runtime)
        assert peak_memory_bytes(CPU) < peak - 0.9 * num_bytes


def test_peak_memory_without_linux_files(monkeypatch):
    def absent(*args, **options):
        raise FileNotFoundError

    monkeypatch.setattr(machine.Path, "read_text", absent)
    monkeypatch.setattr(machine.Path, "write_text", absent)
    machine.reset_peak_memory(CPU)
    assert 1e7 < peak_memory_bytes(CPU) < 1e12


def test_every_step_and_rank_draws_its_own_numbers():
    runtime = start(RuntimeConfig(device="cpu", dtype="float32", num_threads=1, seed=3))
    drawn = []
    for step in (0, 1, 2, 0):
        runtime.seed_step(step)
        drawn.append(torch.rand(4))
    assert torch.equal(drawn[0], drawn[3])
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 3
