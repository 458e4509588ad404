"""Token sequences laid end to end as tensors: the only file of this room that knows torch."""

from collections.abc import Sequence

import torch

from fairlead.batches import PackedBatch, PairBatch
from fairlead.data.examples import Example, PairExample


def collate(examples: Sequence[Example]) -> PackedBatch:
    """One packed row of the sequences in the given order, on the CPU. Every trained token is a target of weight 1.

    The first token of a sequence is never a target: nothing stands before it that could predict it.
    """
    assert examples, "a batch has at least one sequence"
    input_ids: list[int] = []
    position_ids: list[int] = []
    targets: list[int] = []
    for example in examples:
        start = len(input_ids)
        targets += [start + i for i, trained in enumerate(example.trained) if trained and i > 0]
        input_ids += example.input_ids
        position_ids += range(len(example.input_ids))
    return PackedBatch(
        input_ids=torch.tensor(input_ids, dtype=torch.int64),
        position_ids=torch.tensor(position_ids, dtype=torch.int64),
        lengths=tuple(len(example.input_ids) for example in examples),
        targets=torch.tensor(targets, dtype=torch.int64),
        weights=torch.ones(len(targets), dtype=torch.float32),
    )


def collate_pairs(pairs: Sequence[PairExample]) -> PairBatch:
    """One packed row of the pairs in the given order: chosen, rejected, chosen, rejected, and so on."""
    packed = collate([example for pair in pairs for example in (pair.chosen, pair.rejected)])
    return PairBatch(packed, torch.tensor([pair.weight for pair in pairs], dtype=torch.float32))
