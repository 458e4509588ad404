"""Token sequences laid end to end as tensors: the only file of this room that knows torch."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fairlead.batches import PackedBatch, PairBatch, RankedBatch
from fairlead.data.examples import Example, PairExample, RankedExample


def collate(examples: Sequence[Example], *, share_prompts: bool = False) -> PackedBatch:
    """One packed row of the sequences in the given order, on the CPU. Every trained token is a target of weight 1.

    The first token of a sequence is never a target: nothing stands before it that could predict it. With
    `share_prompts` a prompt that several sequences have in front is laid out once, with the first of them.
    """
    assert examples, "a batch has at least one sequence"
    prefixes = [(0, 0)] * len(examples)
    if share_prompts:
        owners: dict[tuple[int, ...], int] = {}
        for index, example in enumerate(examples):
            owner = owners.setdefault(example.prompt, index)
            shared = len(example.prompt) if owner != index and example.num_trained else 0
            prefixes[index] = (owner, shared) if shared else (0, 0)
    return _laid_out(examples, prefixes)


def _laid_out(examples: Sequence[Example], prefixes: Sequence[tuple[int, int]]) -> PackedBatch:
    """The sequences end to end; each leaves out the tokens that it shares with an earlier one: its index, how many."""
    input_ids: list[int] = []
    position_ids: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    starts: list[int] = []
    for example, (_, shared) in zip(examples, prefixes, strict=True):
        starts.append(len(input_ids))
        first = len(input_ids) - shared
        own = range(shared, len(example.input_ids))
        targets += [first + i for i in own if example.trained[i] and i > 0]
        input_ids += example.input_ids[shared:]
        position_ids += own
        lengths.append(len(own))
    return PackedBatch(
        input_ids=torch.tensor(input_ids, dtype=torch.int64),
        position_ids=torch.tensor(position_ids, dtype=torch.int64),
        lengths=tuple(lengths),
        targets=torch.tensor(targets, dtype=torch.int64),
        weights=torch.ones(len(targets), dtype=torch.float32),
        prefixes=_prefixes(prefixes, starts),
    )


def _prefixes(shared: Sequence[tuple[int, int]], starts: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Where each sequence's prefix begins and how long it is; nothing where none has one."""
    return tuple((starts[owner], count) for owner, count in shared) if any(count for _, count in shared) else ()


def collate_pairs(pairs: Sequence[PairExample], *, share_prompts: bool = False) -> PairBatch:
    """One packed row of the pairs in the given order: chosen, rejected, chosen, rejected, and so on."""
    sides = [example for pair in pairs for example in (pair.chosen, pair.rejected)]
    packed = collate(sides, share_prompts=share_prompts)
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
    prefixes: list[tuple[int, int]] = []
    for row in rows:
        first = len(prefixes)
        prefixes += [(first, shared) for shared in row.shared_lengths]
    packed = _laid_out([response for row in rows for response in row.responses], prefixes)
    return replace(packed, targets=packed.targets[:0], weights=packed.weights[:0])
