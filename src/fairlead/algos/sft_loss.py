"""The loss of supervised fine-tuning."""

from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masked import upcast


def sft_loss(logprobs: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Cross-entropy of each trained token in nats: minus its log-probability (Ouyang et al. 2022, step 1).

    The caller takes the mean over all trained tokens of a step, so a long answer weighs more than a short one.
    """
    return -upcast(logprobs)


def smoothed_sft_loss(
    logprobs: Float[Tensor, "M"],
    mean_logprobs: Float[Tensor, "M"],  # of all tokens of the vocabulary, at each target
    log_normalisers: Float[Tensor, "M"],
    *,
    label_smoothing: float,
    z_coef: float,
) -> Float[Tensor, "M"]:
    """Cross-entropy against a target mixed with the uniform distribution, plus the z-loss; one number per token.

    `label_smoothing` is the weight of the uniform one (Szegedy et al. 2016, section 7), `z_coef` that of the square of
    the log of the softmax normaliser, which keeps logits from drifting (PaLM, Chowdhery et al. 2022, section 5).
    """
    smoothed = (1.0 - label_smoothing) * upcast(logprobs) + label_smoothing * upcast(mean_logprobs)
    return z_coef * upcast(log_normalisers).square() - smoothed
