"""The state of a training stage: tensors as safetensors, numbers as JSON, by the save protocol of artifacts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairlead.artifacts.checkpoints import differences, latest_checkpoint, save_checkpoint
from fairlead.runtime.start import Runtime

TENSORS = "state.safetensors"
NUMBERS = "state.json"


@dataclass(frozen=True)
class TrainingState:
    """What a stage goes on from: the step it had finished, its tensors and its numbers."""

    step: int
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    journals: dict[str, int]  # bytes of each journal at that step
    warnings: tuple[str, ...]


def save_state(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
    journals: Mapping[str, int],
    *,
    keep: int,
    runtime: Runtime,
) -> None:
    """Write the checkpoint of `step` (rank 0 writes, all wait). `tensors` are whole, on the CPU."""
    if runtime.is_main:

        def write(target: Path) -> None:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / TENSORS)
            (target / NUMBERS).write_bytes(orjson.dumps(dict(numbers), option=orjson.OPT_SORT_KEYS))

        save_checkpoint(folder, step, write, facts=_machine(runtime) | {"journals": dict(journals)}, keep=keep)
    runtime.ranks.barrier()


def load_state(folder: Path, runtime: Runtime) -> TrainingState | None:
    """The newest whole checkpoint; `warnings` say what was skipped and what will not be bit-exact."""
    found = latest_checkpoint(folder)
    if found is None:
        return None
    warnings = [f"skipped {path.name}: {reason}" for path, reason in found.skipped]
    changed = differences(found.facts, _machine(runtime))
    if changed:
        warnings.append(f"resuming is not bit-exact: {', '.join(changed)}")
    return TrainingState(
        step=found.step,
        tensors=load_file(found.path / TENSORS),
        numbers=orjson.loads((found.path / NUMBERS).read_bytes()),
        journals=found.facts["journals"],
        warnings=tuple(warnings),
    )


def _machine(runtime: Runtime) -> dict[str, Any]:
    """What must be equal for a bit-exact resume."""
    return {
        "num_threads": runtime.num_threads,
        "world_size": runtime.ranks.world_size,
        "distributed": "fsdp" if runtime.sharded else "replicated",
        "device": runtime.device.type,
        "dtype": str(runtime.dtype).removeprefix("torch."),
    }


StateOf = Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]
