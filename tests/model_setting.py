"""What the tests of models share: a float32 runtime, roles on a folder, rows of ids, plain transformers beside them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from fairlead.batches import PackedBatch
from fairlead.config.common import LoraConfig, ModelConfig, RuntimeConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.runtime.start import Runtime, start

TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}  # float32: some dozens of roundings on numbers of size 1 to 10


def runtime_of(*, fast: bool = True) -> Runtime:
    return start(RuntimeConfig(device="cpu", dtype="float32", num_threads=1, fast=fast))


def frozen(folder: Path, *, fast: bool = True) -> Roles:
    """One role, `policy`, that only judges."""
    roles = Roles()
    add_frozen(roles, "policy", resolve(str(folder)), "logprobs", runtime_of(fast=fast))
    return roles


def in_training(folder: Path, *, tuning: str, checkpointing: bool = False, dropout: float = 0.0) -> Roles:
    """One role, `policy`, in full or LoRA training."""
    roles, runtime = Roles(), runtime_of()
    model = ModelConfig(tuning=tuning, lora=LoraConfig(rank=4, alpha=8.0), activation_checkpointing=checkpointing)
    add_trainable(roles, "policy", resolve(str(folder)), "logprobs", model, runtime, dropout=dropout)
    return ready(roles, model, runtime)


def rows_of(lengths: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    """Random token ids, special ones among them."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(0, 320, (length,), generator=generator).tolist()) for length in lengths]


def packed(rows: Sequence[tuple[int, ...]], trained: Sequence[tuple[bool, ...]] | None = None) -> PackedBatch:
    masks = trained or [(True,) * len(row) for row in rows]
    return collate([Example(row, mask) for row, mask in zip(rows, masks, strict=True)])


def plain(folder: Path) -> PreTrainedModel:
    """The model as transformers loads it, in float32, with its own attention and without dropout."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def plain_logprobs(model: PreTrainedModel, rows: Sequence[tuple[int, ...]], *, temperature: float = 1.0) -> Tensor:
    """Log-probability of every token but the first of each row, each row alone."""
    found = []
    for row in rows:
        ids = torch.tensor([row])
        distribution = torch.log_softmax(model(ids).logits[0, :-1] / temperature, dim=-1)
        found.append(distribution.gather(-1, ids[0, 1:, None])[:, 0])
    return torch.cat(found)
