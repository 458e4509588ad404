"""Converted weights are made once, and again when a byte of them is not what was made."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from fairlead.artifacts.hashing import sha256_folder
from fairlead.models import convert


@pytest.fixture
def made(tiny, monkeypatch):
    """Calls of the conversion, which gives the tiny model whatever the file holds."""
    calls = []
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny("llama")), AutoTokenizer.from_pretrained(tiny("llama"))

    def from_pretrained(*args, **options):
        calls.append(args)
        return model

    monkeypatch.setattr(convert.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(convert.AutoTokenizer, "from_pretrained", lambda *args, **options: tokenizer)
    return calls


def test_converted_weights_are_verified_on_every_use(made, tmp_path):
    gguf, folder = tmp_path / "tiny.gguf", tmp_path / "models" / "tiny"
    gguf.write_bytes(b"weights")
    digest = convert.converted_gguf(gguf, folder)
    assert digest == sha256_folder(folder)
    assert convert.converted_gguf(gguf, folder) == digest
    assert len(made) == 1

    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert convert.converted_gguf(gguf, folder) == digest
    assert weights.read_bytes() == whole
    (folder / "tokenizer.json").unlink()
    assert convert.converted_gguf(gguf, folder) == digest
    assert (folder / "tokenizer.json").is_file()
    assert len(made) == 3

    gguf.write_bytes(b"other weights")
    assert convert.converted_gguf(gguf, folder) != digest
    assert len(made) == 4
