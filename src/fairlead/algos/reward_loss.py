"""The losses of a reward model (Bradley & Terry 1952; Ouyang et al. 2022, eq. 1): one number per pair or response."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.masked import upcast


def pairwise_log_sig(
    chosen: Float[Tensor, "P"], rejected: Float[Tensor, "P"], margin: Float[Tensor, "P"] | float = 0.0
) -> Float[Tensor, "P"]:
    """-log sigmoid(chosen - rejected - margin) of two scores: ln 2 when they differ by the margin.

    The margin (Touvron et al. 2023, eq. 2) asks for more difference where people were more certain; 0 leaves it out.
    Finite at any finite difference.
    """
    return -logsigmoid(upcast(chosen) - upcast(rejected) - margin)


def pairwise_log_exp(
    chosen: Float[Tensor, "P"], rejected: Float[Tensor, "P"], margin: Float[Tensor, "P"] | float = 0.0
) -> Float[Tensor, "P"]:
    """log(1 + exp(rejected - chosen + margin)): equal to `pairwise_log_sig`, in the form some recipes name."""
    difference = upcast(rejected) - upcast(chosen) + margin
    return torch.logaddexp(torch.zeros_like(difference), difference)


def centring_loss(chosen: Float[Tensor, "P"], rejected: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """(chosen + rejected)^2, which draws the mean score to 0 (Eisenstein et al. 2023, eq. 2).

    A preference fixes differences alone; without it the scores of two runs differ by a constant.
    """
    return (upcast(chosen) + upcast(rejected)).square()


def regression_loss(scores: Float[Tensor, "S"], grades: Float[Tensor, "S"]) -> Float[Tensor, "S"]:
    """(score - grade)^2 of graded responses, as for HelpSteer (Wang et al. 2023); grades of mean 0 and variance 1."""
    return (upcast(scores) - grades).square()


def head_init_std(width: int) -> float:
    """Standard deviation of a new score head on hidden states of `width`: 1/sqrt(width + 1) (Stiennon et al. 2020)."""
    return 1.0 / math.sqrt(width + 1)
