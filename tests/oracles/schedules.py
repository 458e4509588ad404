"""Learning rates by walking: each step from the one before it, not from a closed formula."""

import math


def learning_rates(peak, schedule, warmup_steps, num_steps, count):
    """The first `count` rates: up by equal parts, once at the peak, then down to 0 at `num_steps`."""
    rates = [peak / (warmup_steps + 1)]
    while len(rates) <= warmup_steps:
        rates.append(rates[-1] + peak / (warmup_steps + 1))
    falling = num_steps - warmup_steps
    # cos((k + 1) a) = 2 cos(a) cos(k a) - cos((k - 1) a)
    before, now, turn = math.cos(math.pi / falling), 1.0, 2 * math.cos(math.pi / falling)
    while len(rates) < count:
        before, now = now, turn * now - before
        match schedule:
            case "constant":
                rates.append(peak)
            case "linear":
                rates.append(rates[-1] - peak / falling)
            case "cosine":
                rates.append(peak * (1 + now) / 2)
    return rates[:count]
