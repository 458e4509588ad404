"""What the checks have to know of a model: its embedding and its special tokens. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Token ids are rows of the embedding, of which there are `num_embeddings`; None where that is not known."""

    name: str
    num_embeddings: int | None = None
    highest_token_id: int = 0
    pad_token_id: int | None = None
    special_tokens: Mapping[int, str] = field(default_factory=dict)  # without the one for what is unknown


def facts_of(name: str, tokenizer: Any, num_embeddings: int | None) -> ModelFacts:
    """The facts of a tokenizer of transformers."""
    special = {
        number: token.content
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and number != tokenizer.unk_token_id
    }
    highest = max(tokenizer.get_vocab().values())
    return ModelFacts(name, num_embeddings, highest, tokenizer.pad_token_id, special)
