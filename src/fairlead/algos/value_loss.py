"""The loss of the critic."""

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masked import upcast


def clipped_value_loss(
    values: Float[Tensor, "*S"],  # current critic, carries gradient
    old_values: Float[Tensor, "*S"],  # same critic before the first update, no gradient
    returns: Float[Tensor, "*S"],  # no gradient
    *,
    value_clip: float,
) -> Float[Tensor, "*S"]:
    """Half the larger squared error of the value and of the value held within `value_clip` of the old one, per token.

    From the code of PPO (OpenAI baselines, lm-human-preferences); not in the paper. Masked positions hold arbitrary
    finite values; the caller masks when it aggregates.
    """
    values, old_values, returns = upcast(values), upcast(old_values), upcast(returns)
    clipped = old_values + (values - old_values).clamp(-value_clip, value_clip)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
