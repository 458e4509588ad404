"""What a micro-batch takes while it passes, beside what `fairlead.train.memory` foresees.

    python bench/fitting.py           # --output FOLDER; writes bench/results/DATE-fitting.json

Each row is a process of its own that passes one micro-batch forward and backward: the highest resident memory less what
was resident before, with and without recomputed layers. Foreseen are the activations alone; what comes on top are
the gradients of full training, logits of a chunk and those kept, and what a product needs while it runs.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from compare import BENCH, environment

LENGTH = 256  # tokens of each sequence
CASES = [
    (tuning, recomputed, tokens)
    for tuning in ("full", "lora")
    for recomputed in (False, True)
    for tokens in (1024, 4096)
]


def main() -> None:
    """Measure all cases, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=BENCH / "results")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measured(*CASES[arguments.case])))
        return
    rows = [json.loads(_child(case)) for case in range(len(CASES))]
    result = {"work": "fitting", "rows": rows, "environment": environment()}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / f"{result['environment']['date']}-fitting.json").write_text(json.dumps(result, indent=1) + "\n")


def _child(case: int) -> str:
    argv = [sys.executable, str(BENCH / "fitting.py"), "--case", str(case)]
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(out, end="", flush=True)
    return out


def measured(tuning: str, recomputed: bool, tokens: int) -> dict[str, object]:
    """One micro-batch of so many tokens, all trained."""
    import torch
    from side import resident_bytes

    from fairlead.config.common import ModelConfig, RuntimeConfig
    from fairlead.data.collate import collate
    from fairlead.data.examples import Example
    from fairlead.models.build import add_trainable, ready
    from fairlead.models.roles import Roles
    from fairlead.models.sources import resolve
    from fairlead.runtime.machine import peak_memory_bytes, reset_peak_memory
    from fairlead.runtime.start import start
    from fairlead.train import memory

    model = ModelConfig(tuning=tuning, activation_checkpointing=recomputed)
    runtime, roles = start(RuntimeConfig(dtype="bfloat16", device="cpu")), Roles()
    add_trainable(roles, "policy", resolve(model.name), "logprobs", model, runtime, dropout=0.0)
    ready(roles, model, runtime)
    generator = torch.Generator().manual_seed(0)
    rows = [
        Example(tuple(torch.randint(0, 49152, (LENGTH,), generator=generator).tolist()), (True,) * LENGTH)
        for _ in range(tokens // LENGTH)
    ]
    before = resident_bytes()
    reset_peak_memory(runtime.device)
    roles(collate(rows), "policy").logprobs.sum().backward()
    peak = peak_memory_bytes(runtime.device) - before
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in roles.parameters() if p.grad is not None)
    if recomputed:  # what a layer leaves is seen where none is recomputed
        roles = Roles()
        add_trainable(roles, "policy", resolve(model.name), "logprobs", model, runtime, dropout=0.0)
        ready(roles, model.model_copy(update={"activation_checkpointing": False}), runtime)
    each = memory.kept_bytes_per_token(roles, "policy", LENGTH)
    each = memory._recomputed_bytes(roles, "policy", each) if recomputed else each
    return {
        "tuning": tuning, "recomputed": recomputed, "tokens": tokens, "peak_mib": round(peak / 2**20),
        "gradients_mib": round(gradients / 2**20), "foreseen_mib": round(each * tokens / 2**20),
    }  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
