"""Linear layers with their weights laid out for oneDNN: few rows at a time run up to twice as fast on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


class Prepacked:
    """A second copy of a model's 16-bit linear weights, in the blocks that oneDNN's products read.

    The results are the same bits. torch lays a weight out anew in every call, which for one to sixteen rows takes as
    long as the product itself; for a thousand rows it does not show, so training has no use for this. The copies are of
    the weights as they are now: make them again after a change.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [(layer, _laid_out(weight)) for layer, weight in _layers(model)]

    @staticmethod
    def num_bytes(model: nn.Module) -> int:
        """Memory that the copies of this model would take."""
        return sum(weight.numel() * weight.element_size() for _, weight in _layers(model))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run the layers by their copies, without gradients, until the context ends."""
        for layer, weight in self._layers:
            layer.forward = partial(_linear, weight, layer.bias)
        try:
            yield
        finally:
            for layer, _ in self._layers:
                del layer.forward


def _layers(model: nn.Module) -> list[tuple[nn.Linear, Tensor]]:
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    return [(layer, layer.weight) for layer in linear if _can_be_laid_out(layer.weight)]


def _can_be_laid_out(weight: Tensor) -> bool:
    """Whether torch has the kernels, and the weight is one that they are fast for; a sharded one is no plain tensor."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and type(weight) is nn.Parameter
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _laid_out(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach())


def _linear(weight: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
