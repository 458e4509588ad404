"""Tiny random models, and a tiny tokenizer with SmolLM2's chat template and its traps: pad == eos == <|im_end|>."""

import json
import random
from functools import cache
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France? The capital of France is Paris.",
    "You are a helpful assistant. The user asks, the assistant answers.",
    "system user assistant\nHello, how are you today?\n\nI am fine, thank you.",
]


@cache
def _backend_json() -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        min_frequency=1,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_SENTENCES * 4, trainer)
    return backend.to_str()


def tiny_tokenizer(chat_template: str | None = SMOLLM2_TEMPLATE) -> PreTrainedTokenizerFast:
    """A new byte-level BPE tokenizer of 320 tokens; ids 0, 1, 2 are <|endoftext|>, <|im_start|>, <|im_end|>."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend_json()),
        bos_token=AddedToken("<|im_start|>", special=True),
        eos_token=AddedToken("<|im_end|>", special=True),
        pad_token=AddedToken("<|im_end|>", special=True),
        unk_token=AddedToken("<|endoftext|>", special=True),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


FAMILIES = ("llama", "llama-untied", "qwen2", "qwen3", "mistral", "gpt2", "opt", "gpt_neox", "bloom")
PACKABLE = FAMILIES[:-1]
WINDOW = 8  # tokens that a token of the tiny Mistral sees


def tiny_config(family: str) -> PretrainedConfig:  # noqa: PLR0911 - a table
    """Two layers, width 32, grouped heads where the family has them; some families tied, some not."""
    wide = {"vocab_size": 320, "hidden_size": 32, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
    grouped = wide | {"num_hidden_layers": 2, "intermediate_size": 48, "num_key_value_heads": 2}
    match family:
        case "llama":
            return LlamaConfig(**grouped, tie_word_embeddings=True)
        case "llama-untied":
            return LlamaConfig(**grouped, tie_word_embeddings=False)
        case "qwen2":
            return Qwen2Config(**grouped, tie_word_embeddings=False)
        case "qwen3":
            return Qwen3Config(**grouped, head_dim=16, tie_word_embeddings=True)
        case "mistral":
            return MistralConfig(**grouped, sliding_window=WINDOW, tie_word_embeddings=False)
        case "gpt2":
            return GPT2Config(
                vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=512, bos_token_id=1, eos_token_id=2
            )
        case "opt":  # the embedding is narrower than the layers: the head reads projected states
            return OPTConfig(
                **wide, num_hidden_layers=2, ffn_dim=48, word_embed_proj_dim=24, max_position_embeddings=512,
                pad_token_id=0,
            )  # fmt: skip
        case "gpt_neox":
            return GPTNeoXConfig(**wide, num_hidden_layers=2, intermediate_size=48, tie_word_embeddings=False)
        case "bloom":
            return BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    raise AssertionError(family)


def tiny_model(folder: Path, family: str = "llama", *, seed: int = 0) -> Path:
    """A Hugging Face folder of a random model of this family with the tiny tokenizer.

    Biases and norms are moved off their 0 and 1, and matrices are large enough that attention is not uniform.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family)).float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


_WORDS = ("fox", "dog", "Paris", "capital", "hello", "quick", "brown", "lazy", "assistant", "today", "fine", "thank")


def _words(generator: random.Random, longest: int) -> str:
    return " ".join(generator.choices(_WORDS, k=generator.randint(1, longest)))


def write_conversations(path: Path, num_rows: int, *, seed: int = 0) -> Path:
    """Prompts and responses of very different lengths, each prompt once."""
    generator = random.Random(seed)
    rows = [{"prompt": f"{i} {_words(generator, 12)}?", "completion": _words(generator, 24)} for i in range(num_rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_preferences(path: Path, num_rows: int, *, seed: int = 0) -> Path:
    """Pairs of very different lengths, each prompt once."""
    generator = random.Random(seed)
    rows = [
        {
            "prompt": f"{i} {_words(generator, 12)}?",
            "chosen": _words(generator, 24),
            "rejected": _words(generator, 16) + ".",
        }
        for i in range(num_rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_ranked(path: Path, num_rows: int, *, seed: int = 0) -> Path:
    """Two to four graded responses of very different lengths to each prompt."""
    generator = random.Random(seed)
    rows = []
    for i in range(num_rows):
        replies = [f"{k} {_words(generator, 24)}" for k in range(2 + i % 3)]
        rows.append({"prompt": f"{i} {_words(generator, 12)}?", "responses": replies, "scores": [*range(len(replies))]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
