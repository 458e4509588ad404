"""Losses that learn from preferences without a reward model. One number per pair, or per response.

The implicit reward of a response is beta * log(policy / reference); chosen and rejected rewards are metrics without
gradient. "Log-probability" means that of the whole response (a sum over its tokens), "mean log-probability" that sum
divided by its length; each function says which one it takes.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.masked import upcast

LN_2 = math.log(2.0)


def dpo_loss(
    policy_chosen: Float[Tensor, "P"],  # log-probability of the whole response, carries gradient
    policy_rejected: Float[Tensor, "P"],
    reference_chosen: Float[Tensor, "P"],  # the same under the frozen reference, no gradient
    reference_rejected: Float[Tensor, "P"],
    *,
    beta: float,
    label_smoothing: float,
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"], Float[Tensor, "P"]]:
    """DPO loss, chosen reward and rejected reward of each pair (Rafailov et al. 2023, eq. 7; rewards: eq. 5).

    The loss is -log sigmoid of the difference of the implicit rewards. `label_smoothing` is the probability that a
    label is flipped (conservative DPO, Mitchell 2023): it weighs in the loss of the swapped pair; 0 gives the paper's
    loss.
    """
    chosen_reward = beta * (upcast(policy_chosen) - upcast(reference_chosen))
    rejected_reward = beta * (upcast(policy_rejected) - upcast(reference_rejected))
    margin = chosen_reward - rejected_reward
    loss = -(1.0 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    return loss, chosen_reward.detach(), rejected_reward.detach()


def robust_dpo_loss(margin: Float[Tensor, "P"], *, label_smoothing: float) -> Float[Tensor, "P"]:
    """Unbiased under labels flipped with probability `label_smoothing` < 0.5 (Chowdhury et al. 2024, eq. 12).

    `margin` is the difference of the implicit rewards. The loss may be negative: its mean over noisy labels is DPO's
    over clean ones.
    """
    kept, flipped = 1.0 - label_smoothing, label_smoothing
    margin = upcast(margin)
    return (flipped * logsigmoid(-margin) - kept * logsigmoid(margin)) / (1.0 - 2.0 * label_smoothing)


def ipo_loss(margin: Float[Tensor, "P"], *, beta: float) -> Float[Tensor, "P"]:
    """(h - 1 / (2 beta))^2 with h = margin / beta, a difference of log-ratios (Azar et al. 2023, eq. 17; beta is tau).

    `margin` is that of the implicit rewards. TRL takes mean log-probabilities here; the paper does not.
    """
    return (upcast(margin) / beta - 0.5 / beta).square()


def hinge_loss(margin: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """max(0, 1 - margin) on the difference of the implicit rewards (SLiC, Zhao et al. 2023; this form: RSO, eq. 9)."""
    return torch.relu(1.0 - upcast(margin))


def simpo_loss(
    chosen: Float[Tensor, "P"],  # mean log-probability of the response, carries gradient
    rejected: Float[Tensor, "P"],
    *,
    beta: float,
    gamma: float,
) -> Float[Tensor, "P"]:
    """-log sigmoid(beta * (chosen - rejected) - gamma), no reference (Meng et al. 2024, eq. 6)."""
    return -logsigmoid(beta * (upcast(chosen) - upcast(rejected)) - gamma)


def odds_ratio_loss(
    chosen: Float[Tensor, "P"],  # mean log-probability of the response, below 0, carries gradient
    rejected: Float[Tensor, "P"],
) -> Float[Tensor, "P"]:
    """-log sigmoid of the logarithm of the odds ratio (ORPO, Hong et al. 2024, eq. 7), no reference.

    odds = p / (1 - p) with p = exp(mean log-probability). ORPO as a whole is the SFT loss of the chosen response plus
    lambda times this; the caller adds the two (eq. 6).
    """
    return -logsigmoid(_log_odds(upcast(chosen)) - _log_odds(upcast(rejected)))


def kto_loss(
    policy: Float[Tensor, "S"],  # log-probability of the whole response, carries gradient
    reference: Float[Tensor, "S"],  # the same under the frozen reference, no gradient
    desirable: Bool[Tensor, "S"],
    kl: Float[Tensor, ""],  # estimate of KL(policy || reference), no gradient
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
    """KTO loss and implicit reward of each response (Ethayarajh et al. 2024, eqs. 7 and 8).

    weight * (1 - sigmoid(+-(reward - z))), plus for a desirable response, minus for an undesirable one. The reference
    point z is beta * max(0, kl) (the paper writes the beta inside the sigmoid).
    """
    reward = beta * (upcast(policy) - upcast(reference))
    above = reward - beta * upcast(kl).detach().clamp(min=0.0)
    loss = torch.where(desirable, desirable_weight * torch.sigmoid(-above), undesirable_weight * torch.sigmoid(above))
    return loss, reward.detach()


def _log_odds(logprob: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """log(p / (1 - p)) from log p < 0, without rounding 1 - p to 0 or p to 1."""
    # log(1 - e^x) as log(-expm1(x)) near 0 and log1p(-e^x) far from it (Maechler 2012).
    near, far = logprob.clamp(min=-LN_2), logprob.clamp(max=-LN_2)
    complement = torch.where(logprob > -LN_2, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))
    return logprob - complement
