"""The clipped policy objective of PPO and what to watch about it."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.kl import kl_k1, kl_k3
from fairlead.algos.masked import upcast

LARGEST_LOG_RATIO = 60.0
"""Log-ratios are clamped to plus or minus this: e^60 is still finite in float32, and no sane update gets near it."""


def clipped_policy_loss(
    logprobs: Float[Tensor, "*S"],  # current policy, carries gradient
    old_logprobs: Float[Tensor, "*S"],  # same policy before the first update, no gradient
    advantages: Float[Tensor, "*S"],  # no gradient
    *,
    clip_eps_low: float,
    clip_eps_high: float,
    dual_clip: float = 0.0,
) -> Float[Tensor, "*S"]:
    """Negative PPO clipped objective for each response token (Schulman et al. 2017, eq. 7).

    Symbols: ratio = exp(logprobs - old_logprobs) is r_t; advantages is A_t. Logprobs in nats.
    Masked positions hold arbitrary finite values; the caller masks when it aggregates.
    Departures from the paper: separate low and high clip widths (DAPO, 2025), equal widths give the paper's loss; the
    log-ratio is clamped to LARGEST_LOG_RATIO, so that a masked position cannot turn gradients into nan. `dual_clip`
    above 1 holds the loss of a token with negative advantage at dual_clip * |advantage| (Ye et al. 2020, eq. 5),
    however common the token has become; 0 leaves it.
    """
    ratio = _ratio(logprobs, old_logprobs)
    clipped = ratio.clamp(1.0 - clip_eps_low, 1.0 + clip_eps_high)
    advantages = upcast(advantages)
    loss = torch.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip:
        assert dual_clip > 1.0, "a dual clip at or below 1 would hold the unclipped ratio"
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual_clip), loss)
    return loss


@torch.no_grad()
def importance_weights(
    old_logprobs: Float[Tensor, "*S"], sampler_logprobs: Float[Tensor, "*S"], *, cap: float
) -> Float[Tensor, "*S"]:
    """min(cap, trainer's probability / sampler's), a factor of each token's loss (Ionides 2008; Yao et al. 2025).

    Corrects for a sampler that is not quite the policy before its first update: other kernels, another precision.
    """
    return _ratio(old_logprobs, sampler_logprobs).clamp(max=cap)


class PolicyStatistics(NamedTuple):
    """One number per token, without gradient; the caller masks and reduces (mean, or max for the ratio)."""

    clipped: Bool[Tensor, "*S"]  # the clip takes this token's gradient away; the mean is the clip fraction
    ratio: Float[Tensor, "*S"]  # new probability / old probability
    kl_k1: Float[Tensor, "*S"]  # KL(old || new), estimated on tokens of the old policy, nats
    kl_k3: Float[Tensor, "*S"]  # the same, never negative


@torch.no_grad()
def policy_statistics(
    logprobs: Float[Tensor, "*S"],
    old_logprobs: Float[Tensor, "*S"],
    advantages: Float[Tensor, "*S"],
    *,
    clip_eps_low: float,
    clip_eps_high: float,
) -> PolicyStatistics:
    """How far each token has moved from the policy that sampled it; arguments as in `clipped_policy_loss`."""
    ratio = _ratio(logprobs, old_logprobs)
    too_high = (ratio > 1.0 + clip_eps_high) & (advantages > 0)
    too_low = (ratio < 1.0 - clip_eps_low) & (advantages < 0)
    return PolicyStatistics(
        clipped=too_high | too_low,
        ratio=ratio,
        kl_k1=kl_k1(old_logprobs, logprobs),
        kl_k3=kl_k3(old_logprobs, logprobs),
    )


def _ratio(logprobs: Float[Tensor, "*S"], old_logprobs: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    log_ratio = upcast(logprobs) - upcast(old_logprobs)
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
