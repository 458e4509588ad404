"""A GGUF file becomes a Hugging Face folder, once, verified by its manifest on every later use."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from fairlead.artifacts.atomic import new_folder, write_text
from fairlead.artifacts.hashing import sha256_file

CONVERTED_FROM = "converted_from.sha256"


def converted_gguf(gguf: Path, folder: Path) -> Path:
    """The folder with safetensors, config and tokenizer made from `gguf`; made now unless it is there already.

    Weights are dequantised to bfloat16, which holds every value of the 4-bit formats to its own precision.
    """
    digest = sha256_file(gguf)
    mark = folder / CONVERTED_FROM
    if mark.is_file() and mark.read_text().strip() == digest:
        return folder
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
    return folder


def copy_tokenizer(source: Path, target: Path) -> None:
    """Put the tokenizer's files beside weights, so that the folder is usable as it is."""
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
             "vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model")  # fmt: skip
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
