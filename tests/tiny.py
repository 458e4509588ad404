"""A tiny tokenizer with SmolLM2's chat template and its traps: pad == eos == <|im_end|>, bos == <|im_start|>."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

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
