"""Which rows an optimizer step sees, as pure functions of seed, epoch and step: resuming needs the step alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> list[int]:
    """The rows of one epoch in random order, each once. The same numbers on every machine, whatever torch does."""
    return permutation(num_rows, (seed, epoch))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Rows of several files laid end to end, and the weight of each file.

    Without weights an epoch is every row once. With weights it has as many rows, of which each file gives its share:
    the next rows of an endless stream of reshuffled passes over the file, so that over the epochs all rows of one file
    come equally often (counts differ by one at most).
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of all files, and of every epoch."""
        return sum(self.sizes)

    @property
    def shares(self) -> list[int]:
        """Rows that each file gives to an epoch: in proportion to the weights, the largest remainders rounded up."""
        if not self.weights:
            return list(self.sizes)
        exact = [self.num_rows * weight / sum(self.weights) for weight in self.weights]
        shares = [int(share) for share in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: (shares[i] - exact[i], i))
        for i in by_remainder[: self.num_rows - sum(shares)]:
            shares[i] += 1
        return shares

    def epoch(self, *, seed: int, epoch: int) -> list[int]:
        """The rows of one epoch in random order."""
        return _epoch_of(self, seed, epoch)


@lru_cache(maxsize=4)  # every step asks for its epoch
def _epoch_of(mixture: Mixture, seed: int, epoch: int) -> list[int]:
    order = epoch_order(mixture.num_rows, seed=seed, epoch=epoch)
    if not mixture.weights:
        return order
    drawn: list[int] = []
    offset = 0
    for file, (size, share) in enumerate(zip(mixture.sizes, mixture.shares, strict=True)):
        passes = _stream(
            # 1 + n: a seed sequence takes no notice of zeros at its end, and (seed, file) is another epoch's key
            lambda n, size=size, file=file: permutation(size, (seed, file, 1 + n)),
            size,
            epoch * share,
            share,
        )
        drawn += [offset + row for row in passes]
        offset += size
    return [drawn[i] for i in order]


def steps_per_epoch(num_rows: int, rows_per_step: int) -> int:
    """Optimizer steps of one epoch; the last may be incomplete."""
    return -(-num_rows // rows_per_step)


def num_steps(num_rows: int, rows_per_step: int, num_epochs: int) -> int:
    """Optimizer steps of all epochs."""
    return num_epochs * steps_per_epoch(num_rows, rows_per_step)


def step_rows(mixture: Mixture, rows_per_step: int, num_epochs: int, seed: int, step: int) -> list[int]:
    """The rows of optimizer step `step` (from 0), over all ranks. The last step of an epoch may be incomplete."""
    total = num_steps(mixture.num_rows, rows_per_step, num_epochs)
    assert 0 <= step < total, f"step {step} of {total}"
    epoch, position = divmod(step, steps_per_epoch(mixture.num_rows, rows_per_step))
    order = mixture.epoch(seed=seed, epoch=epoch)
    return order[position * rows_per_step : (position + 1) * rows_per_step]


def next_rows(mixture: Mixture, count: int, seed: int, iteration: int) -> list[int]:
    """The rows of an iteration that takes `count` from an endless stream of epochs, as all before it did."""
    return stream_rows(mixture, iteration * count, count, seed)


def stream_rows(mixture: Mixture, first: int, count: int, seed: int) -> list[int]:
    """`count` rows of an endless stream of epochs, from its position `first` on."""
    return _stream(lambda epoch: mixture.epoch(seed=seed, epoch=epoch), mixture.num_rows, first, count)


def _stream(pass_of: Callable[[int], Sequence[int]], size: int, first: int, count: int) -> list[int]:
    """Entries `first` and on, `count` of them, of passes 0, 1, 2 ... laid end to end, each of `size` entries."""
    positions = range(first, first + count)
    passes = {number: pass_of(number) for number in {position // size for position in positions}}
    return [passes[position // size][position % size] for position in positions]


def permutation(size: int, key: tuple[int, ...]) -> list[int]:
    """The numbers below `size` in an order that the key decides; zeros at the end of a key make no difference."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
    return generator.permutation(size).tolist()
