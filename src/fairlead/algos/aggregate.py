"""From one loss per token to the loss of a step: one weight per token, known before the first forward.

The loss of a step is the sum of weight * loss over all its tokens, so any cut into micro-batches and ranks adds up to
the same. Which weights is a choice that peers make in silence; it decides what a long response counts.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Aggregation = Literal["token_mean", "response_mean", "constant"]


def token_weights(lengths: Int[Tensor, "B"], how: Aggregation, *, max_response_tokens: int) -> Float[Tensor, "B"]:
    """The weight of each token of each response in the loss of one step over these responses (fp64).

    token_mean: 1 / all tokens, so long responses count more (DAPO, Yu et al. 2025, eq. 8).
    response_mean: 1 / (B * length), so every response counts the same (GRPO, Shao et al. 2024, eq. 3).
    constant: 1 / (B * max_response_tokens), so a token counts the same in every step (Dr. GRPO, Liu et al. 2025).
    A response without tokens weighs nothing, but is still one of the B.
    """
    lengths = lengths.double()
    match how:
        case "token_mean":
            return torch.ones_like(lengths) / lengths.sum().clamp(min=1.0)
        case "response_mean":
            return 1.0 / (len(lengths) * lengths.clamp(min=1.0))
        case "constant":
            return torch.full_like(lengths, 1.0 / (len(lengths) * max_response_tokens))
