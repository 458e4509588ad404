"""The loss of a reward model on preference pairs (Bradley & Terry 1952; Ouyang et al. 2022, eq. 1)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.masked import upcast


def pairwise_log_sig(chosen: Float[Tensor, "P"], rejected: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """-log sigmoid(chosen - rejected) of two scores: ln 2 when they are equal. Finite at any finite difference."""
    return -logsigmoid(upcast(chosen) - upcast(rejected))


def pairwise_log_exp(chosen: Float[Tensor, "P"], rejected: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """log(1 + exp(rejected - chosen)): equal to `pairwise_log_sig`, in the form some recipes name. Never overflows."""
    difference = upcast(rejected) - upcast(chosen)
    return torch.logaddexp(torch.zeros_like(difference), difference)


def head_init_std(width: int) -> float:
    """Standard deviation of a new score head on hidden states of `width`: 1/sqrt(width + 1) (Stiennon et al. 2020)."""
    return 1.0 / math.sqrt(width + 1)
