"""What a role says of whole examples, without gradients: log-probabilities, values or scores."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fairlead.batches import PackedBatch
from fairlead.config.common import ForwardConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.data.pack import pack_by_prompt
from fairlead.models.roles import Roles
from fairlead.runtime.machine import pass_tokens
from fairlead.runtime.ranks import reshard
from fairlead.runtime.start import Runtime


def forward_batches(examples: Sequence[Example], batch: ForwardConfig, runtime: Runtime) -> list[list[int]]:
    """Row indices of this rank's forward passes; every rank runs equally many (`per_sequence` drops repeated ones)."""
    lengths, prompts = zip(*((len(example.input_ids), example.prompt) for example in examples), strict=True)
    one_each = [[i] for i in range(len(examples))]
    capacity = pass_tokens(batch.micro_batch_tokens, runtime.device)
    bins = pack_by_prompt(lengths, prompts, capacity) if runtime.fast else one_each
    bins += [bins[0]] * (-len(bins) % runtime.ranks.world_size)
    return bins[runtime.ranks.rank :: runtime.ranks.world_size]


@torch.no_grad()
def per_sequence(
    roles: Roles,
    role: str,
    examples: Sequence[Example],
    batch: ForwardConfig,
    runtime: Runtime,
    *,
    temperature: float = 1.0,
    passes: Sequence[Sequence[int]] | None = None,
) -> list[Tensor]:
    """What the role says of each example, on the CPU, in the order of the examples, on every rank.

    Log-probabilities or values of the example's targets [M_i], or its score [1]. `passes` are the examples of each of
    this rank's forward passes, where it matters which are read together; every rank has equally many.
    """
    if not examples:
        return []
    rows: list[Tensor] = []
    indices: list[int] = []
    if passes is None:
        passes = forward_batches(examples, batch, runtime)
    for index in passes:
        packed = collate([examples[i] for i in index], share_prompts=roles.packs(role)).to(runtime.device)
        out = roles(packed, role, temperature=temperature)
        out = out if isinstance(out, Tensor) else out.logprobs
        rows += list(out.float().split(1)) if roles.roles[role].output == "scores" else _by_sequence(out, packed)
        indices += index
    if runtime.sharded:
        reshard(roles)
    order = runtime.ranks.gather_rows([torch.tensor([float(i)], device=runtime.device) for i in indices])
    found = dict(
        zip(
            (int(i) for part in order for i in part),
            (r for p in runtime.ranks.gather_rows(rows) for r in p),
            strict=True,
        )
    )
    return [found[i].cpu() for i in range(len(examples))]


def _by_sequence(per_target: Tensor, packed: PackedBatch) -> list[Tensor]:
    counts = torch.bincount(packed.sequence_of_target, minlength=len(packed.lengths))
    return list(per_target.float().split(counts.tolist()))
