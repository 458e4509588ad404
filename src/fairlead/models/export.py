"""A merged folder from an adapter, published only after its logits were compared."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from fairlead.artifacts.atomic import new_folder
from fairlead.batches import PackedBatch
from fairlead.errors import ExitCode, UserError
from fairlead.models import adapters
from fairlead.models.convert import copy_tokenizer
from fairlead.models.forward import hidden_states
from fairlead.models.loading import decoder_of, load_causal_lm, output_embedding, tokenizer_in
from fairlead.models.sources import resolve

# Ordinary text: on tokens that training never saw, rounding grows a hundred times through the layers.
TEXT = "The capital of France is Paris. It lies on the Seine and has been the seat of government for centuries."
TOLERANCE = 1e-4  # of the largest logit, both sides in fp32: some hundred roundings


@torch.no_grad()
def export(artifact: Path, folder: Path) -> float:
    """Write a policy stage as one plain Hugging Face folder, merged in fp32, stored in the base's own precision.

    Checked before it is published: the fp32 merge says what base plus adapter say, and the stored folder, loaded by
    plain transformers, says what the rounded merge says. Returns what rounding the weights cost: the largest difference
    between the stored model's logits and the adapter's, as a share of the largest logit (0 to 1e-5 at fp32, about 1e-2
    at bf16).
    """
    source = resolve(str(artifact))
    if source.kind != "policy":
        raise UserError(
            f"this is a {source.kind}", where=str(artifact), want="a policy (sft, dpo, kto, ppo or grpo stage)",
            fix="pass a policy stage; reward models load as they are",
        )  # fmt: skip
    if folder.exists():
        raise UserError("the folder is there already", where=str(folder), fix="choose a new folder or remove it")
    stored_in = AutoConfig.from_pretrained(source.base.folder, local_files_only=True).dtype
    dtype = stored_in if isinstance(stored_in, torch.dtype) else torch.float32
    loaded = load_causal_lm(source.base.folder, dtype=torch.float32, device=torch.device("cpu"))
    model = loaded.model
    head = output_embedding(model)
    ids = torch.tensor(tokenizer_in(source.base.folder).encode(TEXT))
    batch = PackedBatch(ids, torch.arange(len(ids)), (len(ids),), torch.arange(1, len(ids)), torch.ones(len(ids) - 1))

    def logits() -> Tensor:
        return head(hidden_states(decoder_of(model), batch, packed=loaded.packed))

    if source.adapter is None:
        wanted = logits()
    else:
        backbone = adapters.add_adapter(model, "policy", adapters.stored_adapter(source.adapter, dropout=0.0))
        adapters.read_adapter(backbone, "policy", source.adapter)
        wanted = logits()
        backbone.merge_and_unload(safe_merge=True)  # in place: `model` is the merged one from here
    _compare(logits(), wanted, artifact)
    _cast_weights(model, dtype)
    with new_folder(folder) as fresh:
        model.save_pretrained(fresh)
        copy_tokenizer(source.base.folder, fresh)
        stored = AutoModelForCausalLM.from_pretrained(fresh, dtype=torch.float32, local_files_only=True)(
            ids[None]
        ).logits[0]
        _cast_weights(model, torch.float32)
        _compare(stored, logits(), artifact)
    return _difference(stored, wanted)


def _cast_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters alone: `model.to` would round the rotary frequencies too, which no file holds."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _compare(found: Tensor, wanted: Tensor, artifact: Path) -> None:
    if _difference(found, wanted) > TOLERANCE:
        raise UserError(
            "the merged model does not say what the adapter says; nothing was written", where=str(artifact),
            got=f"logits differ by {_difference(found, wanted):.1e} of the largest", want=f"at most {TOLERANCE:.0e}",
            exit_code=ExitCode.INTERNAL,
        )  # fmt: skip


def _difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())
