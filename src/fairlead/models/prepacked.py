"""Linear layers with their weights laid out for oneDNN: few rows at a time run up to twice as fast on a CPU."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers beside each other that transformers' models give the same input, by their names."""


class Prepacked:
    """A second copy of a model's 16-bit linear weights, in the blocks that oneDNN's products read.

    The results are the same bits, but for products so small that torch has another kernel for them. torch lays a weight
    out anew in every call, which for one to sixteen rows takes as long as the product itself; for a thousand rows it
    does not show, so training has no use for this. Layers that read the same input run as one product. The copies are
    of the weights as they are now: make them again after a change.
    """

    def __init__(self, model: nn.Module) -> None:
        self._forwards: list[tuple[nn.Linear, Callable[[Tensor], Tensor]]] = []
        for group in _groups(model):
            product = _Product(group)
            self._forwards += [(layer, partial(product.part, place)) for place, layer in enumerate(group)]

    @staticmethod
    def num_bytes(model: nn.Module) -> int:
        """Memory that the copies of this model would take."""
        weights = [layer.weight for group in _groups(model) for layer in group]
        return sum(weight.numel() * weight.element_size() for weight in weights)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Run the layers by their copies, without gradients, until the context ends."""
        for layer, forward in self._forwards:
            layer.forward = forward  # pyrefly: ignore[bad-assignment]
        try:
            yield
        finally:
            for layer, _ in self._forwards:
                del layer.forward


class _Product:
    """Layers that read one input. The product runs when the first is called; the others find their parts waiting.

    Each part is given out once: a layer that is called again, or with another input, makes the product run again.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        weights = [layer.weight.detach() for layer in layers]
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = torch.cat(biases) if biases else None
        self._sizes = [len(weight) for weight in weights]
        self._input: Tensor | None = None
        self._waiting: dict[int, Tensor] = {}

    def part(self, place: int, inputs: Tensor) -> Tensor:
        """What the layer at this place says of the inputs."""
        if inputs is not self._input or place not in self._waiting:
            out = torch.ops.mkldnn._linear_pointwise(inputs, self._weight, self._bias, "none", [], "")
            if len(self._sizes) == 1:
                return out
            # Whole rows of their own: torch's kernels round strided numbers otherwise (the exponential of SiLU)
            parts = (part.contiguous() for part in out.split(self._sizes, dim=-1))
            self._input, self._waiting = inputs, dict(enumerate(parts))
        part = self._waiting.pop(place)
        if not self._waiting:
            self._input = None
        return part


def _groups(model: nn.Module) -> list[list[nn.Linear]]:
    """The layers that can be laid out, together those that may run as one. A LoRA layer stands for the one below it."""
    groups: list[list[nn.Linear]] = []
    grouped: set[int] = set()
    for parent in model.modules():
        for names in SIBLINGS:
            layers = [getattr(layer, "base_layer", layer) for name in names if (layer := getattr(parent, name, None))]
            found = [layer for layer in layers if type(layer) is nn.Linear and _can_be_laid_out(layer.weight)]
            if len(found) == len(names) and len({layer.bias is None for layer in found}) == 1:
                groups.append(found)
                grouped |= {id(layer) for layer in found}
    alone = [module for module in model.modules() if type(module) is nn.Linear and id(module) not in grouped]
    return groups + [[layer] for layer in alone if _can_be_laid_out(layer.weight)]


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
