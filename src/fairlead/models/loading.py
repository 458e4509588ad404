"""Loading weights and tokenizers from a checked folder, and probing whether rows may be packed."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from fairlead.artifacts.model_folder import check_model_folder
from fairlead.batches import PackedBatch
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.errors import ExitCode, UserError
from fairlead.models import attention
from fairlead.models.forward import hidden_states
from fairlead.models.rms_norm import replace_rms_norms
from fairlead.models.sources import Source, resolve

# Our own lines say what is loaded; the library's bars and hints would drown them.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)  # peft's call


@dataclass(frozen=True)
class Loaded:
    """A causal language model and whether it may see packed rows."""

    model: PreTrainedModel
    packed: bool
    note: str  # one sentence for the user when it runs padded, else ""


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's name."""
    return tokenizer_in(resolve(name).base.folder)


def tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError) as error:
        raise UserError(
            "the tokenizer of this model cannot be loaded", where=str(folder),
            got=str(error).splitlines()[0].rstrip(":"),
            want="tokenizer.json and tokenizer_config.json beside the weights", fix="download the whole folder",
            exit_code=ExitCode.MISSING_INPUT,
        ) from error  # fmt: skip
    if tokenizer is None or not tokenizer.is_fast:
        raise UserError(
            "this tokenizer has no tokenizer.json, so characters cannot be traced to tokens", where=str(folder),
            want="a fast tokenizer", fix="save it once with transformers' AutoTokenizer(...).save_pretrained",
            exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return tokenizer


def config_in(folder: Path) -> PretrainedConfig:
    """The configuration of a model folder; UserError for an architecture that transformers does not have."""
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except ValueError as error:
        raise UserError(
            "transformers has no such architecture, so this model cannot be loaded", where=str(folder),
            got=str(orjson.loads((folder / "config.json").read_bytes()).get("model_type")),
            want="a causal language model of transformers, such as llama, qwen2, mistral, gpt2, opt or bloom",
            fix="use another model, or one converted to such a layout", exit_code=ExitCode.BAD_DATA,
        ) from error  # fmt: skip


def num_embeddings_in(folder: Path) -> int | None:
    """Rows of the embedding of the model in a folder, None where its configuration does not say."""
    return getattr(config_in(folder).get_text_config(), "vocab_size", None)


def load_causal_lm(folder: Path, *, dtype: torch.dtype, device: torch.device, fast: bool = True) -> Loaded:
    """Weights from a checked folder, all dropout off, with our attention unless the probe says that rows would mix."""
    check_model_folder(folder)
    config = config_in(folder)
    no_dropout = {key: 0.0 for key, value in config.to_dict().items() if "drop" in key and isinstance(value, float)}
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True, attn_implementation="eager", **no_dropout
    ).to(device)
    model.requires_grad_(requires_grad=False)
    model.eval()
    _check_vocabulary(model, folder)
    if not fast:
        return Loaded(_padded(model), packed=False, note="fast=false: rows run padded")
    if device.type == "cpu":  # a GPU has kernels of its own for what is written out here
        replace_rms_norms(model)
    if _packs(model):
        return Loaded(model, packed=True, note="")
    name = type(model).__name__
    return Loaded(
        _padded(model), packed=False, note=f"{name} cannot run packed rows, so it runs padded: right, but slower"
    )


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The transformer below the language-model head; its last hidden state has passed the final norm."""
    return model.base_model


def output_embedding(model: PreTrainedModel) -> nn.Linear:
    """The language-model head."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Linear), type(model)
    return head


def input_embedding(model: PreTrainedModel) -> nn.Embedding:
    """One row per token."""
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding), type(model)
    return embedding


def context_length(folder: Path) -> int | None:
    """Tokens that the model of this folder has positions for; None where its architecture sets no limit."""
    return getattr(config_in(folder), "max_position_embeddings", None)


def require_context(source: Source, num_tokens: int) -> None:
    """UserError when sequences of this many tokens would leave the model's context."""
    limit = context_length(source.base.folder)
    if limit is not None and num_tokens > limit:
        raise UserError(
            "the model's context is too short", where=source.name, got=f"sequences of up to {num_tokens} tokens",
            want=f"at most {limit}", fix=f"lower max_length (and max_new_tokens) to {limit} tokens in all",
        )  # fmt: skip


def _padded(model: PreTrainedModel) -> PreTrainedModel:
    model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    return model


def _check_vocabulary(model: PreTrainedModel, folder: Path) -> None:
    """Tokenizer and embedding must agree before any id reaches the model."""
    if not (folder / "tokenizer.json").is_file():
        return
    rows = input_embedding(model).num_embeddings
    highest = max(tokenizer_in(folder).get_vocab().values())
    if highest >= rows:
        raise UserError(
            "the tokenizer knows tokens that the embedding has no row for", where=str(folder),
            got=f"token id {highest}", want=f"ids below {rows}, the rows of the embedding",
            fix="use the tokenizer this model was trained with, or resize the embedding to the tokenizer",
            exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip


@torch.no_grad()
def _packs(model: PreTrainedModel) -> bool:
    """Switch to our attention and run two short rows packed.

    The second must be untouched by the first (bit for bit) and equal itself run alone by transformers' own attention,
    which also finds models whose attention does more than ours (soft caps, sinks).
    """
    if set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        return False  # chunks and recurrent states do not show in a few tokens
    first, other, second = (3, 5, 7, 6), (8, 4, 9, 3), (6, 4, 5, 9, 7)
    packed, changed, alone = (_probe_batch(model, *rows) for rows in ((first, second), (other, second), (second,)))
    by_itself = hidden_states(decoder_of(model), alone, packed=False)
    model.set_attn_implementation(attention.IMPLEMENTATION)
    try:
        in_pack, after_other = (
            hidden_states(decoder_of(model), batch, packed=True)[-len(second) :] for batch in (packed, changed)
        )
    except (TypeError, ValueError, RuntimeError):  # a forward that refuses our arguments runs padded
        return False
    if not torch.equal(in_pack, after_other):
        return False
    scale = by_itself.float().abs().max().clamp(min=1e-6)
    tolerance = 1e-4 if by_itself.dtype == torch.float32 else 0.05
    return bool((in_pack - by_itself).float().abs().max() / scale < tolerance)


def _probe_batch(model: PreTrainedModel, *rows: tuple[int, ...]) -> PackedBatch:
    return collate([Example(row, (True,) * len(row), "probe") for row in rows]).to(model.device)
