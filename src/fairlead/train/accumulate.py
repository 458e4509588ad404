"""Cutting a step into micro-batches so that any cut, on any number of ranks, gives the same gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fairlead.config.common import MicroBatchConfig
from fairlead.data.pack import pack
from fairlead.runtime.start import Runtime
from fairlead.train.optimizer import Optimizer


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass. One that does not count only keeps this rank in step with the others."""

    rows: tuple[int, ...]
    counts: bool


def micro_batches(num_tokens: Sequence[int], batch: MicroBatchConfig, runtime: Runtime) -> list[MicroBatch]:
    """This rank's share of a step whose rows hold `num_tokens` tokens each.

    Every rank plans the whole step, so all agree; each takes every world_size-th micro-batch, and all run equally many.
    """
    world_size = runtime.ranks.world_size
    if runtime.fast:
        bins = pack(num_tokens, batch.micro_batch_tokens, num_bins=batch.num_micro_batches)
    else:
        bins = [[row] for row in range(len(num_tokens))]
    plan = [MicroBatch(tuple(rows), counts=True) for rows in bins]
    idle = -len(plan) % world_size
    plan += [MicroBatch(plan[0].rows, counts=False)] * idle
    return plan[runtime.ranks.rank :: world_size]


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
