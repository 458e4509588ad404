"""Learning-rate schedules."""

import math
from typing import Literal


def learning_rate(
    step: int,
    *,
    peak: float,
    schedule: Literal["constant", "linear", "cosine"],
    warmup_steps: int,
    num_steps: int,
) -> float:
    """The rate of optimizer step `step`, counted from 0, of `num_steps` in all.

    It rises linearly over the first `warmup_steps` steps, is `peak` at the step after them, and from there falls to 0
    at `num_steps` (which is no step any more, so every step learns something). Constant stays at the peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    match schedule:
        case "constant":
            return peak
        case "linear":
            return peak * (1.0 - progress)
        case "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
