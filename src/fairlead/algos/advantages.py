"""From one score per response to one advantage per token.

Rows are responses: their tokens are a contiguous prefix of the row, a row may be empty. Everything here is a target:
no gradient flows through it. Masked positions come out as 0 and their inputs never matter.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.kl import kl_estimate
from fairlead.algos.masked import segment_sum, upcast


@torch.no_grad()
def shape_rewards(
    scores: Float[Tensor, "B"],
    logprobs: Float[Tensor, "B R"],
    reference_logprobs: Float[Tensor, "B R"],
    response_mask: Bool[Tensor, "B R"],
    *,
    kl_coef: float,
    estimator: Literal["k1", "k2", "k3"] = "k1",
) -> Float[Tensor, "B R"]:
    """Reward of each token: -kl_coef * log(policy / reference), plus the score at the last response token.

    Ziegler et al. 2019, section 2: the sum over a response is score - kl_coef * log(policy / reference). `logprobs`
    are those of the policy that sampled. A response without tokens gets no reward. With k2 or k3 for the logarithm
    (k1) the optimum is another one: docs/algorithms/ppo.md.
    """
    estimate = kl_estimate(logprobs, reference_logprobs, estimator)
    penalty = kl_coef * estimate.masked_fill(~response_mask, 0.0)
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


@torch.no_grad()
def group_advantages(scores: Float[Tensor, "B"], group: Int[Tensor, "B"], *, divide_by_std: bool) -> Float[Tensor, "B"]:
    """Score minus the mean of its group, divided by the group's standard deviation if wanted; one number a response.

    GRPO divides (Shao et al. 2024, section 4.1.2), Dr. GRPO does not (Liu et al. 2025). `group` numbers the prompt of
    each response. The deviation is the unbiased one plus 1e-4, as in TRL. A group whose scores are all equal, or that
    has one response, gets exactly 0.
    """
    scores = upcast(scores)
    count, mean = _group_means(scores, group)
    centred = (scores - mean).masked_fill(scores_equal(scores, group), 0.0)
    if not divide_by_std:
        return centred
    num_groups = int(group.max()) + 1
    var = segment_sum(centred.square(), group, num_groups)[group] / (count - 1.0).clamp(min=1.0)
    return centred / (var.sqrt() + 1e-4)


@torch.no_grad()
def leave_one_out_advantages(scores: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Score minus the mean of the other responses to the same prompt (RLOO, Ahmadian et al. 2024, eq. 6).

    K / (K - 1) times the score minus the group's mean. A response that is alone gets 0.
    """
    count, _ = _group_means(upcast(scores), group)
    return group_advantages(scores, group, divide_by_std=False) * count / (count - 1.0).clamp(min=1.0)


@torch.no_grad()
def overlong_penalty(lengths: Int[Tensor, "B"], *, max_response_tokens: int, soft_tokens: int) -> Float[Tensor, "B"]:
    """0 up to max - soft tokens, then linearly down to -1 at max (DAPO, Yu et al. 2025, eq. 13)."""
    beyond = lengths.float() - (max_response_tokens - soft_tokens)
    return -(beyond / soft_tokens).clamp(0.0, 1.0)


def _group_means(scores: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Size and mean score of each response's group."""
    num_groups = int(group.max()) + 1
    count = segment_sum(torch.ones_like(scores), group, num_groups)
    return count[group], segment_sum(scores, group, num_groups)[group] / count[group]


def scores_equal(scores: Float[Tensor, "B"], group: Int[Tensor, "B"]) -> Bool[Tensor, "B"]:
    """Whether all scores of a response's group are the same: it says nothing about better and worse.

    Compared by lowest and highest, because the rounded mean of equal numbers may be another one.
    """
    num_groups = int(group.max()) + 1
    empty = scores.new_zeros(num_groups)
    lowest = empty.scatter_reduce(0, group, scores, "amin", include_self=False)
    highest = empty.scatter_reduce(0, group, scores, "amax", include_self=False)
    return (lowest == highest)[group]


def _is_last(response_mask: Bool[Tensor, "B R"]) -> Bool[Tensor, "B R"]:
    followed = torch.zeros_like(response_mask)
    followed[:, :-1] = response_mask[:, 1:]
    return response_mask & ~followed
