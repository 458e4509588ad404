"""Estimators of KL(policy || reference) from sampled tokens, and the coefficient that weighs it (nats).

Each estimator is one number per token, for tokens sampled from the policy (Schulman 2020, "Approximating KL
Divergence", names them k1, k2, k3). k1 and k3 average to the exact KL; k2 has a small bias and a low variance.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masked import upcast


def kl_k1(logprobs: Float[Tensor, "*S"], reference_logprobs: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """log(policy / reference): unbiased, of either sign."""
    return upcast(logprobs) - upcast(reference_logprobs)


def kl_k2(logprobs: Float[Tensor, "*S"], reference_logprobs: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Half the squared log-ratio: never negative; the gradient of its mean is the gradient of the exact KL."""
    return 0.5 * kl_k1(logprobs, reference_logprobs).square()


def kl_k3(logprobs: Float[Tensor, "*S"], reference_logprobs: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """r - 1 - log r with r = reference / policy: unbiased and never negative. Infinite where r is above e^88."""
    log_ratio = kl_k1(logprobs, reference_logprobs)
    return torch.expm1(-log_ratio) + log_ratio


def kl_estimate(
    logprobs: Float[Tensor, "*S"], reference_logprobs: Float[Tensor, "*S"], estimator: Literal["k1", "k2", "k3"]
) -> Float[Tensor, "*S"]:
    """The estimator of that name."""
    match estimator:
        case "k1":
            return kl_k1(logprobs, reference_logprobs)
        case "k2":
            return kl_k2(logprobs, reference_logprobs)
        case "k3":
            return kl_k3(logprobs, reference_logprobs)


def best_of_n_kl(num_responses: int) -> float:
    """log n - (n - 1) / n: how far, in nats, the best of n responses can lie from the policy that drew them.

    Exact where no two responses score the same and each is rare (Stiennon et al. 2020, appendix G.3), else an upper
    bound (Beirami et al. 2024).
    """
    return math.log(num_responses) - (num_responses - 1) / num_responses


def next_kl_coef(coef: float, measured_kl: float, num_episodes: int, *, target: float, horizon: float) -> float:
    """The KL coefficient after `num_episodes` more episodes (Ziegler et al. 2019, section 2.2).

    `measured_kl` and `target` are nats per response. The relative error counts at most 0.2 either way, so the
    coefficient moves by at most 0.2 * num_episodes / horizon of itself.
    """
    error = min(max((measured_kl - target) / target, -0.2), 0.2)
    return coef * (1.0 + error * num_episodes / horizon)
