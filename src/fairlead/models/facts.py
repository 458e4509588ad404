"""Sizes of a model from its configuration alone, for estimates; no weight is read."""

from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from fairlead.models.adapters import lora_targets
from fairlead.models.loading import config_in
from fairlead.models.sources import resolve


@dataclass(frozen=True)
class ModelFacts:
    """Counts of weights, and what one token leaves behind in the forward pass."""

    num_weights: int
    matrix_weights: int  # weights of all matrices a token is multiplied with, output embedding included
    lora_weights_per_rank: int
    activation_bytes_per_token: int  # kept for the backward pass, at two bytes each

    def weight_bytes(self, itemsize: int) -> float:
        """All weights at this precision."""
        return float(self.num_weights * itemsize)


def model_facts(name: str) -> ModelFacts:
    """Facts of a model by its name."""
    config = config_in(resolve(name).base.folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    targets = set(lora_targets(model))
    adapted = [
        m
        for n, m in model.named_modules()
        if n.rsplit(".", 1)[-1] in targets and getattr(m, "weight", None) is not None
    ]
    widths = [tuple(m.weight.shape) for m in adapted]
    matrices = {id(p): p.numel() for p in model.parameters() if p.ndim == 2}
    return ModelFacts(
        num_weights=sum(p.numel() for p in model.parameters()),
        matrix_weights=sum(matrices.values()),
        lora_weights_per_rank=sum(rows + columns for rows, columns in widths),
        activation_bytes_per_token=4 * sum(rows + columns for rows, columns in widths),
    )
