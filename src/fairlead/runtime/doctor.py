"""What this machine offers a run, said in one table's worth of findings; nothing is changed."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from fairlead.config.common import RuntimeConfig
from fairlead.errors import ExitCode
from fairlead.runtime.machine import matrix_rate
from fairlead.runtime.start import start

DEMO_DISK_BYTES = 2e9  # the demo's stages with their checkpoints, the starter files, the converted model
DEMO_MEMORY_BYTES = 6e9  # measured: its ppo stage peaks at 4.4 GiB


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. `problem` says what is wrong, `fix` mends it; the exit code tells where nothing works."""

    name: str
    value: str
    problem: str = ""
    fix: str = ""
    exit_code: ExitCode = ExitCode.OK


def examine(cache: Path, work: Path) -> Iterator[Finding]:
    """Findings about the interpreter, processor, memory, disk and folders; takes about a second."""
    yield Finding("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    runtime = start(RuntimeConfig())
    usable = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else psutil.cpu_count()
    yield Finding("torch", f"{torch.__version__}, {runtime.num_threads} threads")
    yield Finding("processor", f"{_processor()}, {usable} of {psutil.cpu_count()} cores usable")
    yield _memory()
    yield Finding("device", runtime.device.type + (f" ({_gpu()})" if runtime.device.type == "cuda" else ""))
    yield Finding("precision", f"{str(runtime.dtype).removeprefix('torch.')}: {runtime.dtype_reason}")
    rates = {dtype: matrix_rate(runtime.device, dtype, seconds=0.3) for dtype in (torch.float32, torch.bfloat16)}
    yield Finding(
        "matrix rate", ", ".join(f"{str(d).removeprefix('torch.')} {r / 1e9:,.0f} GFLOP/s" for d, r in rates.items())
    )
    for name, folder in (("this folder", work), ("cache", cache)):
        yield _folder(name, folder)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    value = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    if memory.available < DEMO_MEMORY_BYTES:
        fix = "close other programs; a smaller batch.micro_batch_tokens needs less"
        return Finding("memory", value, f"the demo wants {DEMO_MEMORY_BYTES / 2**30:.0f} GiB", fix)
    return Finding("memory", value)


def _folder(name: str, folder: Path) -> Finding:
    """Whether files can be written, and how much room there is, in a folder or the nearest one above it that exists."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    value = f"{folder}, {shutil.disk_usage(there).free / 2**30:.1f} GiB free"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"fairlead")
    except OSError as error:
        problem = f"cannot be written ({os.strerror(error.errno or 0).lower()})"
        fix = "change its permissions, or set XDG_CACHE_HOME" if name == "cache" else "work in a folder of your own"
        return Finding(name, value, problem, fix, ExitCode.IO)
    if shutil.disk_usage(there).free < DEMO_DISK_BYTES:
        return Finding(
            name, value, f"the demo wants {DEMO_DISK_BYTES / 2**30:.1f} GiB", "fairlead clean, or free space"
        )
    return Finding(name, value)


def _processor() -> str:
    """The model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    features = [
        name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if torch.cpu.get_capabilities().get(name)
    ]
    return f"{names[0] if names else platform.machine()} ({features[0] if features else 'no AVX2'})"


def _gpu() -> str:
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {torch.cuda.device_count()} in all"
