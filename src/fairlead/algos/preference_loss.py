"""Losses that learn from preference pairs without a reward model."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.masked import upcast


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

    The implicit reward of a response is beta * log(policy / reference); the loss is -log sigmoid of the difference.
    Rewards are metrics without gradient. `label_smoothing` is the probability that a label is flipped (conservative
    DPO, Mitchell 2023): it weighs in the loss of the swapped pair; 0 gives the paper's loss.
    """
    chosen_reward = beta * (upcast(policy_chosen) - upcast(reference_chosen))
    rejected_reward = beta * (upcast(policy_rejected) - upcast(reference_rejected))
    margin = chosen_reward - rejected_reward
    loss = -(1.0 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
    return loss, chosen_reward.detach(), rejected_reward.detach()
