"""A merged folder from an adapter, published only after its logits were compared."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from fairlead.artifacts.atomic import new_folder
from fairlead.batches import PackedBatch
from fairlead.errors import ExitCode, UserError
from fairlead.models import adapters
from fairlead.models.convert import copy_tokenizer
from fairlead.models.forward import hidden_states
from fairlead.models.loading import decoder_of, load_causal_lm
from fairlead.models.sources import resolve

TOLERANCE = 1e-3  # of the largest logit, both sides in fp32


@torch.no_grad()
def export(artifact: Path, folder: Path) -> float:
    """Write a policy stage as one plain Hugging Face folder (fp32 merge, stored in bf16); return the logit difference.

    The stored folder is loaded back and compared with base plus adapter in fp32; the difference may only be what
    rounding the merged weights to bf16 explains.
    """
    source = resolve(str(artifact))
    if source.kind != "policy":
        raise UserError(
            f"this is a {source.kind}", where=str(artifact), want="a policy (sft, dpo or ppo stage)",
            fix="pass a policy stage; reward models load as they are",
        )  # fmt: skip
    if folder.exists():
        raise UserError("the folder is there already", where=str(folder), fix="choose a new folder or remove it")
    cpu = torch.device("cpu")
    loaded = load_causal_lm(source.base.folder, dtype=torch.float32, device=cpu)
    model = loaded.model
    ids = torch.arange(2, 34) % (model.get_input_embeddings().weight.shape[0] - 1)
    batch = PackedBatch(ids, torch.arange(len(ids)), (len(ids),), torch.arange(1, len(ids)), torch.ones(len(ids) - 1))
    backbone = model
    if source.adapter is not None:
        backbone = adapters.add_adapter(model, "policy", adapters.stored_adapter(source.adapter, dropout=0.0))
        adapters.read_adapter(backbone, "policy", source.adapter)
    head = model.get_output_embeddings()
    expected = head(hidden_states(decoder_of(model), batch, packed=loaded.packed))
    merged = backbone.merge_and_unload(safe_merge=True) if source.adapter is not None else model
    exact = head(hidden_states(decoder_of(merged), batch, packed=loaded.packed))
    difference = float((exact - expected).abs().max() / expected.abs().max())
    if difference > TOLERANCE:
        raise UserError(
            "the merged model does not say what the adapter says; nothing was written", where=str(artifact),
            got=f"logits differ by {difference:.1e} of the largest", want=f"at most {TOLERANCE:.0e}",
            exit_code=ExitCode.INTERNAL,
        )  # fmt: skip
    with new_folder(folder) as fresh:
        merged.config._attn_implementation = None
        merged.to(torch.bfloat16).save_pretrained(fresh)
        copy_tokenizer(source.base.folder, fresh)
        again = AutoModelForCausalLM.from_pretrained(fresh, dtype=torch.float32, local_files_only=True)
        stored = again(ids[None]).logits[0]
        rounding = float((stored - expected).abs().mean() / expected.abs().mean())
        if rounding > 0.05:
            raise UserError("the stored folder differs from the merged model", where=str(folder),
                            got=f"mean difference {rounding:.1e}", exit_code=ExitCode.INTERNAL)  # fmt: skip
    return difference
