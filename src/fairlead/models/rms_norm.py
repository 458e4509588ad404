"""Root-mean-square norms that keep what they were given, and one number per token, for the backward pass.

transformers' RMSNorm (Zhang & Sennrich 2019, eq. 4) is written out in operations that each keep a float32 copy of the
hidden states: six bytes a number, 61 norms in a model of 30 layers. Here it is one step for autograd, the same bits.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _RmsNorm(torch.autograd.Function):
    """weight * (x / sqrt(mean(x^2) + eps)), normalised in float32, rounded before the weight as transformers does."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = states.float()
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(states, weight, scale)
        return weight * _scaled(exact, scale, states.dtype).to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        (gradient,) = gradients
        states, weight, scale = ctx.saved_tensors
        normalised = _scaled(states.float(), scale, states.dtype)
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normalised.to(states.dtype)).flatten(0, -2).sum(0)
        of_normalised = (gradient * weight).float()
        along = (of_normalised * normalised).mean(-1, keepdim=True)
        of_states = torch.addcmul(of_normalised, normalised, along, value=-1.0).mul_(scale)
        return of_states.to(states.dtype), of_weight, None


def _scaled(exact: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """In place where the float32 numbers are a copy: fresh memory costs more than the product."""
    return exact * scale if dtype == torch.float32 else exact.mul_(scale)


def rms_norm(states: Float[Tensor, "*S D"], weight: Float[Tensor, "D"], *, eps: float) -> Float[Tensor, "*S D"]:
    """The norm of each row of D numbers."""
    if not torch.is_grad_enabled():  # torch's own takes fewer calls: a decode step is made of calls
        return weight * torch.rms_norm(states, weight.shape, None, eps)
    return _RmsNorm.apply(states, weight, eps)


def replace_rms_norms(model: nn.Module) -> None:
    """Run the model's norms by `rms_norm`, each that says the same to the last bit."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and _says_the_same(module):
            module.forward = partial(_forward, module)


def _forward(module: nn.Module, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, module.weight, eps=module.variance_epsilon)  # pyrefly: ignore[bad-argument-type]


@torch.no_grad()
def _says_the_same(module: nn.Module) -> bool:
    """Whether it is the norm that it is called: others scale by 1 + weight, or round elsewhere."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not hasattr(module, "variance_epsilon"):
        return False
    size = len(weight)
    states = torch.linspace(-3.0, 3.0, 4 * size, device=weight.device).sin().view(4, size).to(weight.dtype)
    return torch.equal(_forward(module, states), module(states))
