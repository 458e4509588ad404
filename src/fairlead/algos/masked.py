"""Sums, means and variances over the selected entries of a tensor, and whitening.

What stands under a False mask never matters: it may be any number, infinity and nan included, in values and gradients.
Results are at least float32, whatever came in.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def upcast(values: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """The values in float32, or in float64 if they came so: 16-bit numbers are for products, not for sums and logs."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def masked_sum(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Sum of the selected values; 0 when nothing is selected."""
    return upcast(values).masked_fill(~mask, 0.0).sum()


def masked_mean(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Mean of the selected values; nan when nothing is selected."""
    return masked_sum(values, mask) / mask.sum()


def masked_var(values: Float[Tensor, "*S"], mask: Bool[Tensor, "*S"]) -> Float[Tensor, ""]:
    """Population variance (divided by the count, not by count - 1) of the selected values; nan when there are none."""
    values = upcast(values).masked_fill(~mask, 0.0)  # before the square: its gradient at infinity would be nan
    return masked_mean((values - masked_mean(values, mask)).square(), mask)


def whiten(
    values: Float[Tensor, "*S"],
    mask: Bool[Tensor, "*S"],
    *,
    shift_mean: bool,
    mean: Float[Tensor, ""] | None = None,
    var: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*S"]:
    """Scale the selected values to variance 1 and, with `shift_mean`, shift them to mean 0; 0 where not selected.

    `mean` and `var` default to the moments of these values. Ranks that share one rollout pass the moments over all of
    them. Follows lm-human-preferences (Ziegler et al. 2019): population variance, 1e-8 added to it inside the root.
    """
    values = upcast(values).masked_fill(~mask, 0.0)
    mean = masked_mean(values, mask) if mean is None else mean
    var = masked_var(values, mask) if var is None else var
    whitened = (values - mean) * torch.rsqrt(var + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return whitened.masked_fill(~mask, 0.0)


def segment_sum(values: Float[Tensor, "M"], segment: Int[Tensor, "M"], num_segments: int) -> Float[Tensor, "S"]:
    """Sum of the values of each segment; 0 for a segment without values. `segment` holds indices below num_segments."""
    values = upcast(values)
    return values.new_zeros(num_segments).index_add(0, segment, values)
