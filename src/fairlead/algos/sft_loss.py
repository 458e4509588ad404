"""The loss of supervised fine-tuning."""

from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masked import upcast


def sft_loss(logprobs: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Cross-entropy of each trained token in nats: minus its log-probability (Ouyang et al. 2022, step 1).

    The caller takes the mean over all trained tokens of a step, so a long answer weighs more than a short one.
    """
    return -upcast(logprobs)
