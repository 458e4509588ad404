"""Starting a process: rank, device, precision, threads and seed, each decided once with its reason."""

import atexit
import os
import sys
from dataclasses import dataclass

import psutil
import torch
import torch.distributed as dist

from fairlead.config.common import RuntimeConfig
from fairlead.errors import UserError
from fairlead.runtime.machine import reset_peak_memory
from fairlead.runtime.ranks import Ranks


@dataclass(frozen=True)
class Runtime:
    """What every loop may know about the machine."""

    ranks: Ranks
    device: torch.device
    dtype: torch.dtype  # of compute; master weights are float32
    dtype_reason: str
    num_threads: int
    seed: int
    sharded: bool  # FSDP2; otherwise every rank holds a full copy
    fast: bool

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.ranks.rank == 0

    def seed_step(self, step: int) -> None:
        """Make every later draw of this step a function of (seed, step, rank): nothing to save, nothing to restore."""
        torch.manual_seed((self.seed * 1_000_003 + step) * 4_096 + self.ranks.rank)

    def say(self, text: str) -> None:
        """A line for the user, from the first rank only."""
        if self.is_main:
            print(text, file=sys.stderr, flush=True)

    def describe(self) -> str:
        """One line for the user."""
        dtype = str(self.dtype).removeprefix("torch.")
        layout = f", {self.ranks.world_size} ranks ({'FSDP2' if self.sharded else 'replicated'})"
        return f"{self.device.type}, {dtype} ({self.dtype_reason}), {self.num_threads} threads, seed {self.seed}" + (
            layout if self.ranks.world_size > 1 else ""
        )


def start(config: RuntimeConfig) -> Runtime:
    """Join the other ranks when torchrun started us, choose device and precision, seed, limit the threads."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(config.device)
    num_threads = config.num_threads or default_threads(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(num_threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    reset_peak_memory(device)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)  # else its threads may abort a rank that ended well
    dtype, reason = _dtype(config.dtype, device)
    torch.manual_seed(config.seed)
    return Runtime(
        ranks=Ranks(dist.get_rank() if world_size > 1 else 0, world_size, device),
        device=device,
        dtype=dtype,
        dtype_reason=reason,
        num_threads=num_threads,
        seed=config.seed,
        sharded=world_size > 1 and config.distributed == "fsdp",
        fast=config.fast,
    )


def default_threads(num_local_ranks: int) -> int:
    """OMP_NUM_THREADS, or the cores this process may use, shared by the ranks of this machine."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count(False)
    return max(1, (cores or 1) // num_local_ranks)


def _device(asked: str) -> torch.device:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UserError(
            "no CUDA device is visible", where="runtime.device", got="cuda", want="cpu or auto",
            fix="runtime.device=cpu (or auto)",
        )  # fmt: skip
    if asked == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _dtype(asked: str, device: torch.device) -> tuple[torch.dtype, str]:
    if asked != "auto":
        return getattr(torch, asked), "as asked"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return (torch.bfloat16, "native on this GPU") if native else (torch.float32, "this GPU has no native bfloat16")
    features = torch.cpu.get_capabilities()
    for feature, name in (("amx_bf16", "AMX"), ("avx512_bf16", "avx512_bf16")):
        if features.get(feature):
            return torch.bfloat16, f"this CPU has {name}"
    return torch.float32, "this CPU has neither AMX nor avx512_bf16"
