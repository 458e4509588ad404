"""How long an epoch-based stage runs."""

from fairlead.config.stages import EpochsConfig
from fairlead.data.sampler import num_steps


def number_of_steps(config: EpochsConfig, num_rows: int) -> int:
    """Optimizer steps of all epochs, or max_steps if that is fewer."""
    steps = num_steps(num_rows, config.batch.rows, config.num_epochs)
    return min(steps, config.max_steps) if config.max_steps else steps
