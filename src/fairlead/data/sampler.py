"""Which rows an optimizer step sees, as pure functions of seed, epoch and step: resuming needs the step alone."""

import numpy as np


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> list[int]:
    """The rows of one epoch in random order, each once. The same numbers on every machine, whatever torch does."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
    return generator.permutation(num_rows).tolist()


def steps_per_epoch(num_rows: int, rows_per_step: int) -> int:
    """Optimizer steps of one epoch; the last may be incomplete."""
    return -(-num_rows // rows_per_step)


def num_steps(num_rows: int, rows_per_step: int, num_epochs: int) -> int:
    """Optimizer steps of all epochs."""
    return num_epochs * steps_per_epoch(num_rows, rows_per_step)


def step_rows(num_rows: int, rows_per_step: int, num_epochs: int, seed: int, step: int) -> list[int]:
    """The rows of optimizer step `step` (from 0), over all ranks. The last step of an epoch may be incomplete."""
    total = num_steps(num_rows, rows_per_step, num_epochs)
    assert 0 <= step < total, f"step {step} of {total}"
    epoch, position = divmod(step, steps_per_epoch(num_rows, rows_per_step))
    order = epoch_order(num_rows, seed=seed, epoch=epoch)
    return order[position * rows_per_step : (position + 1) * rows_per_step]
