"""What this machine can do and what the process used: matrix rate, peak memory, floating-point work."""

import os
import re
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel

FAST_PASS_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Tokens of a forward pass beyond which a device gains nothing; the CPU's is measured (docs/scaling.svg)."""


def pass_tokens(asked: int, device: torch.device) -> int:
    """Tokens of one forward pass: as asked, or with 0 what is fast on the device."""
    return asked or FAST_PASS_TOKENS[device.type]


def matrix_rate(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.1) -> float:
    """Floating-point operations per second of a [1024, 576] x [576, 1536] product, a small model's layer."""
    left = torch.randn(1024, 576, device=device, dtype=dtype)
    right = torch.randn(1536, 576, device=device, dtype=dtype)
    for _ in range(3):
        linear(left, right)
    synchronise(device)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        linear(left, right)
        synchronise(device)
        count += 1
    return 2.0 * left.shape[0] * left.shape[1] * right.shape[0] * count / (time.perf_counter() - start)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work, so that a clock may be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Count the peak from here on, so that a stage is not told the peak of an earlier one; off Linux it only rises."""
    if device.type == "cuda":
        torch.cuda.init()  # it has no counters before
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # see proc(5)


def free_memory_bytes() -> int:
    """What the machine could still give to a process, in bytes; a container's own limit is not seen."""
    return psutil.virtual_memory().available


def memory_bytes(device: torch.device) -> int:
    """All memory that this process may count on: the GPU's, or its share of the machine's, or of a container's limit.

    It is the same every time, whatever other programs hold just now.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # "max" where there is no limit
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def peak_memory_bytes(device: torch.device) -> int:
    """Highest memory since `reset_peak_memory`: resident set of the process, or what CUDA allocated."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def flops_per_token(
    model: PreTrainedModel, *, num_forwards: int, num_backwards: int, trained_fraction: float
) -> float:  # fmt: skip
    """Work of one token: 2 N each forward, each backward 2 N for activations and 2 N for the trained share of weights.

    N counts every matrix the token passes, the output embedding included (Kaplan et al. 2020, section 2.1, without the
    attention scores, which are small at these lengths, and without adapters).
    """
    embeddings = (model.get_output_embeddings(), model.get_input_embeddings())
    output, looked_up = (getattr(layer, "weight", None) for layer in embeddings)
    weights = {
        id(p): p.numel()
        for name, p in model.named_parameters()
        if p.ndim == 2 and "lora_" not in name and (p is not looked_up or p is output)
    }
    return 2.0 * sum(weights.values()) * (num_forwards + num_backwards * (1.0 + trained_fraction))
