"""From one score per response to one advantage per token.

Rows are responses: their tokens are a contiguous prefix of the row, a row may be empty. Everything here is a target:
no gradient flows through it. Masked positions come out as 0 and their inputs never matter.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.kl import kl_k1
from fairlead.algos.masked import upcast


@torch.no_grad()
def shape_rewards(
    scores: Float[Tensor, "B"],
    logprobs: Float[Tensor, "B R"],
    reference_logprobs: Float[Tensor, "B R"],
    response_mask: Bool[Tensor, "B R"],
    *,
    kl_coef: float,
) -> Float[Tensor, "B R"]:
    """Reward of each token: -kl_coef * log(policy / reference), plus the score at the last response token.

    Ziegler et al. 2019, section 2: the sum over a response is score - kl_coef * log(policy / reference). `logprobs`
    are those of the policy that sampled. A response without tokens gets no reward.
    """
    penalty = kl_coef * kl_k1(logprobs, reference_logprobs).masked_fill(~response_mask, 0.0)
    return torch.where(_is_last(response_mask), upcast(scores)[:, None] - penalty, -penalty)


@torch.no_grad()
def gae(
    rewards: Float[Tensor, "B R"],
    values: Float[Tensor, "B R"],
    response_mask: Bool[Tensor, "B R"],
    *,
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "B R"], Float[Tensor, "B R"]]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16): advantages, and returns = advantages + values.

    Symbols: delta_t = r_t + gamma * V_{t+1} - V_t; A_t = sum over l of (gamma * lam)^l * delta_{t+l}. `values[:, t]`
    is the value of the state before token t; the state after the last response token has value 0.
    """
    assert not (response_mask[:, 1:] & ~response_mask[:, :-1]).any(), "response tokens must be a prefix of the row"
    rewards = upcast(rewards).masked_fill(~response_mask, 0.0)
    values = upcast(values).masked_fill(~response_mask, 0.0)
    advantages = torch.zeros_like(values)
    advantage = next_value = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * advantage
        advantages[:, t] = advantage
        next_value = values[:, t]
    return advantages, advantages + values


def _is_last(response_mask: Bool[Tensor, "B R"]) -> Bool[Tensor, "B R"]:
    followed = torch.zeros_like(response_mask)
    followed[:, :-1] = response_mask[:, 1:]
    return response_mask & ~followed
