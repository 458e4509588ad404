"""A GGUF file becomes a Hugging Face folder, once, and is verified on every later use."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from fairlead.artifacts.atomic import new_folder, write_text
from fairlead.artifacts.hashing import sha256_file, sha256_folder

CONVERTED_FROM = "converted_from.sha256"
CONVERTED_TO = ".converted_to.sha256"  # hidden, so not part of the digest that it holds


def converted_gguf(gguf: Path, folder: Path) -> str:
    """Make the folder with safetensors, config and tokenizer, unless it is there as it was made; returns its digest.

    Weights are dequantised to bfloat16, which holds every value of the 4-bit formats to its own precision.
    """
    digest = sha256_file(gguf)
    if _text(folder / CONVERTED_FROM) == digest and (wanted := _text(folder / CONVERTED_TO)):
        made = sha256_folder(folder)
        if made == wanted:
            return made
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder, replace=True) as fresh:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        assert tokenizer is not None
        model.to(torch.bfloat16).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        write_text(fresh / CONVERTED_FROM, digest + "\n")
        made = sha256_folder(fresh)
        write_text(fresh / CONVERTED_TO, made + "\n")
    return made


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def copy_tokenizer(source: Path, target: Path) -> None:
    """Put the tokenizer's files beside weights, so that the folder is usable as it is."""
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
             "vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model")  # fmt: skip
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
