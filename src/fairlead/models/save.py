"""Writing a role as a folder that transformers and PEFT load as it is."""

from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from fairlead.artifacts.atomic import passing_folder, write_bytes
from fairlead.models import adapters
from fairlead.models.convert import copy_tokenizer
from fairlead.models.roles import Roles
from fairlead.models.sources import BaseWeights
from fairlead.runtime.ranks import full
from fairlead.runtime.start import Runtime


def role_tensors(roles: Roles, role: str) -> dict[str, Tensor]:
    """The role's weights as they will stand in the file; under sharding every rank must call.

    The fp32 masters live in the optimizer, or are the parameters themselves under sharding; what is saved is what
    computed, in its precision, so every layout of ranks writes the same file.
    """
    spec = roles.roles[role]
    if spec.adapter is not None:
        state = adapters.adapter_state(roles.adapted(spec.backbone), spec.adapter)
    else:
        state = roles.causal_lm(role).state_dict()
    tensors = {name: full(tensor).detach().to(roles.dtype).cpu().contiguous() for name, tensor in state.items()}
    if role in roles.heads:
        tensors["score.weight"] = full(roles.head(role).weight).detach().cpu().contiguous()
    return tensors


def rehearse_save(stage: Path, roles: Roles, role: str, base: BaseWeights, runtime: Runtime) -> None:
    """Write the role as the end of the stage will, read it back, compare, delete it; before anything is trained.

    A model that cannot be saved is found out now, not after the last step. Every rank must call.
    """
    tensors = role_tensors(roles, role)
    if not runtime.is_main:
        return
    with passing_folder(stage / "model") as folder:
        write_role(folder, roles, role, dict(tensors), base, pad_token_id=None)
        (file,) = folder.glob("*model.safetensors")
        written = load_file(file)
    if adapters.HEAD_KEY in written:
        written["score.weight"] = written.pop(adapters.HEAD_KEY)
    changed = [name for name, tensor in written.items() if not torch.equal(tensor, tensors[name])]
    assert not changed, f"{role}: {changed[:3]} would be saved as other numbers"
    # Not by name: of tied weights one stands for both, and a scorer's language-model head is left out.
    trained = sum(parameter.numel() for parameter in roles.trainable(role).values() if parameter.requires_grad)
    saved = sum(tensor.numel() for tensor in written.values())
    assert saved >= trained, f"{role}: {trained} numbers are trained, only {saved} would be saved"


def write_role(
    folder: Path, roles: Roles, role: str, tensors: dict[str, Tensor], base: BaseWeights, *, pad_token_id: int | None
) -> None:
    """Write `role_tensors` as a PEFT folder or a whole model, with the tokenizer; called by the main rank only."""
    spec = roles.roles[role]
    folder.mkdir(parents=True, exist_ok=True)
    head = tensors.pop("score.weight", None)
    if spec.adapter is not None:
        config = roles.adapted(spec.backbone).peft_config[spec.adapter]
        assert isinstance(config, adapters.PeftLoraConfig)
        adapters.write_adapter(folder, tensors, config, base=_public_name(base), head=head)
    else:
        _write_whole(folder, roles.causal_lm(role), roles.dtype, tensors, head, pad_token_id)
    copy_tokenizer(base.folder, folder)


def _public_name(base: BaseWeights) -> str:
    """Hub id when it came from the hub, else its digest: a path means nothing elsewhere."""
    return base.name if base.revision else f"sha256:{base.digest}"


def _write_whole(
    folder: Path, model: PreTrainedModel, dtype: torch.dtype, tensors: dict[str, Tensor], head: Tensor | None,
    pad_token_id: int | None,
) -> None:  # fmt: skip
    config: dict[str, Any] = model.config.to_diff_dict() | {"dtype": str(dtype).removeprefix("torch.")}
    config.pop("_attn_implementation", None)
    tied = {name for name in (getattr(model, "_tied_weights_keys", None) or {}) if model.config.tie_word_embeddings}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in tied}
    if head is None:
        config["architectures"] = [type(model).__name__]
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
    else:
        classifier = _classifier_class(model)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(("lm_head.", "embed_out."))}
        tensors["score.weight"] = head
        config |= {"architectures": [classifier], "num_labels": 1, "id2label": {"0": "LABEL_0"},
                   "label2id": {"LABEL_0": 0}, "pad_token_id": pad_token_id}  # fmt: skip
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2
    write_bytes(folder / "config.json", orjson.dumps(config, option=options, default=str) + b"\n")


def _classifier_class(model: PreTrainedModel) -> str:
    with torch.device("meta"):
        return type(AutoModelForSequenceClassification.from_config(model.config)).__name__
