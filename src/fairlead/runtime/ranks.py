"""Collectives by name: sums, gathers and sharding. With one process each of them is the identity."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


@dataclass(frozen=True)
class Ranks:
    """This process among the others."""

    rank: int
    world_size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over all ranks."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def sum_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Sum the gradients over all ranks in place, as one flat buffer."""
        if self.world_size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(piece.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def least(self, value: int) -> int:
        """The smallest of all ranks."""
        if self.world_size == 1:
            return value
        found = torch.tensor(value, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MIN)
        return int(found)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()

    def gather_rows(self, rows: Sequence[Tensor]) -> list[list[Tensor]]:
        """The 1-D tensors of every rank, on every rank, in rank order; each rank may bring any number of any length."""
        if self.world_size == 1:
            return [list(rows)]
        dtype = rows[0].dtype if rows else torch.float32
        lengths = self._gather_flat(torch.tensor([len(row) for row in rows], dtype=torch.int64, device=self.device))
        flats = self._gather_flat(torch.cat([*rows, torch.empty(0, dtype=dtype, device=self.device)]))
        return [
            list(flat.split(sizes.tolist())) if len(sizes) else []
            for flat, sizes in zip(flats, lengths, strict=True)
        ]  # fmt: skip

    def _gather_flat(self, flat: Tensor) -> list[Tensor]:
        size = torch.tensor([flat.numel()], dtype=torch.int64, device=self.device)
        sizes = [torch.empty_like(size) for _ in range(self.world_size)]
        dist.all_gather(sizes, size)
        longest = max(int(s) for s in sizes)
        padded = torch.zeros(longest, dtype=flat.dtype, device=self.device)
        padded[: flat.numel()] = flat
        pieces = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(pieces, padded)
        return [piece[: int(s)] for piece, s in zip(pieces, sizes, strict=True)]


def shard(root: nn.Module, units: Iterable[nn.Module], heads: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Shard by FSDP2 (ZeRO-3): each unit and head alone, the rest with the root. Compute in `dtype`, reduce in fp32.

    Heads are units of their own and compute in fp32: a head owned by the root shows unsharded parameters after a
    forward without gradients, and clipping would miss it.
    """
    mesh = init_device_mesh(next(root.parameters()).device.type, (dist.get_world_size(),))
    compute = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=compute)
    for head in heads:
        fully_shard(head, mesh=mesh, mp_policy=exact)
    fully_shard(root, mesh=mesh, mp_policy=compute, reshard_after_forward=True)


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def reshard(root: nn.Module) -> None:
    """Give back what a forward without a backward left gathered."""
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered when it is sharded (then every rank must call)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_into(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            source = distribute_tensor(source.to(target.device), target.device_mesh, target.placements)
        target.copy_(source)
