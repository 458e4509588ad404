"""Cutting a step into micro-batches so that any cut, on any number of ranks, gives the same gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from fairlead.config.common import MicroBatchConfig
from fairlead.data.examples import Example
from fairlead.data.pack import pack, pack_by_prompt
from fairlead.runtime.machine import pass_tokens
from fairlead.runtime.start import Runtime
from fairlead.train.optimizer import Optimizer


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass. One that does not count only keeps this rank in step with the others."""

    rows: tuple[int, ...]
    counts: bool


def micro_batches(
    num_tokens: Sequence[int], batch: MicroBatchConfig, runtime: Runtime,
    *, prompts: Sequence[tuple[int, ...]] | None = None,
) -> list[MicroBatch]:  # fmt: skip
    """This rank's share of a step whose rows hold `num_tokens` tokens each.

    Every rank plans the whole step, so all agree; each takes every world_size-th micro-batch, and all run equally many.
    `prompts` are those that the rows begin with, where a forward pass reads a prompt of several rows once.
    """
    world_size = runtime.ranks.world_size
    bins_of = pack if prompts is None else partial(pack_by_prompt, prompts=prompts)
    if runtime.fast:
        capacity = pass_tokens(batch.micro_batch_tokens, runtime.device)
        bins = bins_of(num_tokens, capacity=capacity, num_bins=batch.num_micro_batches)
    else:
        bins = [[row] for row in range(len(num_tokens))]
    plan = [MicroBatch(tuple(rows), counts=True) for rows in bins]
    idle = -len(plan) % world_size
    plan += [MicroBatch(plan[0].rows, counts=False)] * idle
    return plan[runtime.ranks.rank :: world_size]


def micro_batches_by_prompt(
    rows: Sequence[Sequence[Example]], batch: MicroBatchConfig, runtime: Runtime, *, share_prompts: bool
) -> list[MicroBatch]:
    """This rank's share of a step of rows of one or several sequences, laid out by `collate` with `share_prompts`."""
    lengths = [num_tokens_passed(row, share_prompts=share_prompts) for row in rows]
    prompts = [row[0].prompt for row in rows] if share_prompts else None
    return micro_batches(lengths, batch, runtime, prompts=prompts)


def num_tokens_passed(sequences: Sequence[Example], *, share_prompts: bool) -> int:
    """Tokens that pass the model, a prompt once that several of the sequences have in front."""
    total = sum(len(sequence.input_ids) for sequence in sequences)
    if not share_prompts:
        return total
    prompts = [sequence.prompt for sequence in sequences]
    return total - sum(map(len, prompts)) + sum(map(len, set(prompts)))


def accumulate(
    shares: Sequence[MicroBatch], loss_of: Callable[[MicroBatch], Tensor], optimizer: Optimizer, runtime: Runtime
) -> Tensor:
    """Backward through every micro-batch; returns the sum of the losses over all ranks.

    `loss_of` gives this micro-batch's part of the step's loss, already divided by the global denominator. FSDP2
    averages gradients over ranks where a sum is wanted, hence the factor.
    """
    scale = runtime.ranks.world_size if runtime.sharded else 1
    total: Tensor | None = None
    for share in shares:
        loss = loss_of(share)
        (loss * scale).backward()
        optimizer.collect()
        total = loss.detach() if total is None else total + loss.detach()
    assert total is not None
    return runtime.ranks.sum(total)
