"""Token sequences laid end to end as tensors: the only file of this room that knows torch."""

from collections.abc import Sequence

import torch

from fairlead.batches import PackedBatch, PairBatch, RankedBatch
from fairlead.data.examples import Example, PairExample, RankedExample


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


def collate_ranked(rows: Sequence[RankedExample], *, share_prompts: bool) -> RankedBatch:
    """One packed row of the responses of each row, best first, row after row.

    With `share_prompts` what a response has in common with the first of its row is laid out once.
    """
    better: list[int] = []
    worse: list[int] = []
    pair_weights: list[float] = []
    grades: list[float] = []
    response_weights: list[float] = []
    for row in rows:
        first, num_responses, pairs = len(grades), len(row.responses), row.pair_indices
        better += [first + i for i, _ in pairs]
        worse += [first + j for _, j in pairs]
        pair_weights += [1.0 / len(pairs) for _ in pairs]
        grades += row.grades or [0.0] * num_responses
        response_weights += [1.0 / num_responses] * num_responses
    return RankedBatch(
        packed=_sharing(rows) if share_prompts else collate([r for row in rows for r in row.responses]),
        better=torch.tensor(better, dtype=torch.int64),
        worse=torch.tensor(worse, dtype=torch.int64),
        pair_weights=torch.tensor(pair_weights, dtype=torch.float32),
        grades=torch.tensor(grades, dtype=torch.float32),
        response_weights=torch.tensor(response_weights, dtype=torch.float32),
    )


def _sharing(rows: Sequence[RankedExample]) -> PackedBatch:
    """Sequences to be scored at their last tokens: none of their tokens is a target."""
    input_ids: list[int] = []
    position_ids: list[int] = []
    lengths: list[int] = []
    prefixes: list[tuple[int, int]] = []
    for row in rows:
        first = len(input_ids)
        for response, shared in zip(row.responses, row.shared_lengths, strict=True):
            input_ids += response.input_ids[shared:]
            position_ids += range(shared, len(response.input_ids))
            lengths.append(len(response.input_ids) - shared)
            prefixes.append((first, shared))
    return PackedBatch(
        input_ids=torch.tensor(input_ids, dtype=torch.int64),
        position_ids=torch.tensor(position_ids, dtype=torch.int64),
        lengths=tuple(lengths),
        targets=torch.empty(0, dtype=torch.int64),
        weights=torch.empty(0, dtype=torch.float32),
        prefixes=tuple(prefixes),
    )
