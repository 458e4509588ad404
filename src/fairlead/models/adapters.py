"""LoRA adapters in PEFT's format: siblings on one untouched base, saved so that two runs give the same bytes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.layer import LoraVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Conv1D, PreTrainedModel

from fairlead.artifacts.atomic import write_bytes
from fairlead.config.common import LoraConfig

HEAD_KEY = "base_model.model.score.weight"


def lora_targets(model: PreTrainedModel) -> list[str]:
    """Last names of every linear layer but the language-model head (all-linear, QLoRA's choice).

    The base may carry adapters of other roles already: their factors are no targets, and a layer that peft wrapped
    still goes by its own name.
    """
    head = model.get_output_embeddings()
    layers = (nn.Linear, Conv1D)
    found = {
        name.removesuffix(".base_layer").rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, layers) and module is not head and "lora_" not in name
    }
    return sorted(found)


def fresh_adapter(model: PreTrainedModel, lora: LoraConfig) -> PeftLoraConfig:
    """Configuration of a new adapter on every linear layer; its second factor starts at zero."""
    return PeftLoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none",
        target_modules=lora_targets(model), fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )  # fmt: skip


def stored_adapter(folder: Path, *, dropout: float) -> PeftLoraConfig:
    """Configuration of an adapter on disk, to be trained on with this dropout."""
    config = PeftLoraConfig.from_pretrained(str(folder))
    assert isinstance(config, PeftLoraConfig)
    config.lora_dropout = dropout
    config.inference_mode = False
    config.task_type = "CAUSAL_LM"
    config.modules_to_save = None
    return config


def add_adapter(backbone: PreTrainedModel | PeftModel, name: str, config: PeftLoraConfig) -> PeftModel:
    """Put one more adapter on the base, in the base's dtype (PEFT's float32 default casts every activation)."""
    config.base_model_name_or_path = backbone.name_or_path  # peft wants the name it was loaded by; see write_adapter
    if isinstance(backbone, PeftModel):
        backbone.add_adapter(name, config, autocast_adapter_dtype=False)
        return backbone
    return get_peft_model(backbone, config, adapter_name=name, autocast_adapter_dtype=False)


class _AddedInPlace(LoraVariant):
    """PEFT's own formula, base(x) + scaling * B A x, as one product that is added into the base's output.

    PEFT writes the update, its multiple and the sum one by one: three tensors of the layer's width for every layer. It
    asks `lora_variant` before it uses its own forward; nothing else of PEFT changes, saving and merging included.
    """

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: object) -> Tensor:
        """Add the adapter's part to `result`, the base's output; both [..., width]."""
        low = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x))
        second = module.lora_B[active_adapter].weight
        rows = result.view(-1, result.shape[-1])
        rows.addmm_(low.view(-1, low.shape[-1]), second.t(), alpha=module.scaling[active_adapter])
        return result


def add_in_place(backbone: PeftModel, name: str) -> None:
    """Run this adapter's linear layers by `_AddedInPlace`."""
    for module in backbone.modules():
        if not isinstance(module, LoraLinear) or name not in module.lora_A:
            continue
        if not module.lora_bias[name]:
            module.lora_variant.setdefault(name, _AddedInPlace())  # another variant (DoRA) stays what it is


def read_adapter(backbone: PeftModel, name: str, folder: Path) -> None:
    """Fill an adapter from a PEFT folder; every key must find its place."""
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(HEAD_KEY, None)
    result = set_peft_model_state_dict(backbone, tensors, adapter_name=name)
    assert not result.unexpected_keys, result.unexpected_keys


def adapted_layers(backbone: PreTrainedModel | PeftModel) -> list[BaseTunerLayer]:
    """The layers that carry adapters."""
    return [module for module in backbone.modules() if isinstance(module, BaseTunerLayer)]


def activate(layers: Sequence[BaseTunerLayer], name: str | None) -> None:
    """Make one adapter, or none, take part in the next forward. requires_grad is left alone: see roles.py."""
    for layer in layers:
        layer._disable_adapters = name is None
        layer._active_adapter = [name] if name else []


def adapter_parameters(backbone: PeftModel, name: str) -> dict[str, nn.Parameter]:
    """The adapter's parameters by their names in the backbone."""
    mark = re.compile(rf"\.{re.escape(name)}(\.|$)")
    return {key: p for key, p in backbone.named_parameters() if "lora_" in key and mark.search(key)}


def adapter_state(backbone: PeftModel, name: str) -> dict[str, Tensor]:
    """The adapter under PEFT's file names (without the adapter's name in them)."""
    return get_peft_model_state_dict(backbone, adapter_name=name, save_embedding_layers=False)


def write_adapter(
    folder: Path, state: dict[str, Tensor], config: PeftLoraConfig, *, base: str, head: Tensor | None
) -> None:
    """A PEFT folder. `base` is the hub id or the digest of the base, never a path; with `head` it is a sequence
    classifier whose score layer travels as a saved module."""
    tensors = {key: value.detach().contiguous().cpu() for key, value in state.items()}
    facts: dict[str, Any] = config.to_dict()
    if head is not None:
        tensors[HEAD_KEY] = head.detach().contiguous().cpu()
    facts |= {
        "base_model_name_or_path": base,
        "inference_mode": True,
        "task_type": "CAUSAL_LM" if head is None else "SEQ_CLS",
        "modules_to_save": None if head is None else ["score"],
        "target_modules": sorted(config.target_modules or ()),
    }
    facts = {key: sorted(value) if isinstance(value, set) else value for key, value in facts.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    text = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2, default=_plain)
    write_bytes(folder / "adapter_config.json", text + b"\n")


def _plain(value: object) -> str | list[object]:
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value)
    if isinstance(value, torch.dtype):
        return str(value)
    return str(getattr(value, "value", value))
