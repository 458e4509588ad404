"""One token per row through a decoder of the Llama kind, in fewer calls than transformers' own layers take.

On a CPU a step of one row is half products and half calls. Here queries and keys turn together, and each layer's states
pass no wrappers; every product, norm and sum is the one of transformers' layers, in the same order, to the last bit.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fairlead.models.attention import slot_attention
from fairlead.models.kv_cache import SlotCache

LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
"""Of transformers, by name: a sharded layer has another, and must be called as it is."""


def is_known(decoder: nn.Module) -> bool:
    """Whether `next_hidden` computes what the decoder computes."""
    layers = getattr(decoder, "layers", None)
    return isinstance(layers, nn.ModuleList) and all(type(layer).__name__ in LAYERS for layer in layers)


def next_hidden(decoder: Any, tokens: Int[Tensor, "B"], cache: SlotCache) -> Float[Tensor, "B D"]:
    """The last hidden state of the newest token of each row, which the cache expects; it takes the keys and values."""
    states = decoder.embed_tokens(tokens[:, None])
    cos, sin = decoder.rotary_emb(states, position_ids=cache.lengths[:, None] - 1)
    first, second = sin.chunk(2, dim=-1)
    sin = torch.cat([-first, second], dim=-1)  # the sign of a half turn
    for layer in decoder.layers:
        states = states + _attend(layer.self_attn, layer.input_layernorm(states), cos, sin, cache)
        states = states + layer.mlp(layer.post_attention_layernorm(states))
    return decoder.norm(states)[:, -1]


def _attend(
    attention: Any, states: Float[Tensor, "B 1 D"], cos: Float[Tensor, "B 1 d"], sin: Float[Tensor, "B 1 d"],
    cache: SlotCache,
) -> Float[Tensor, "B 1 D"]:  # fmt: skip
    """transformers' attention of these families with rotary positions (Su et al. 2021, eq. 34)."""
    shape = (len(states), -1, attention.head_dim)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (projection(states).view(shape) for projection in projections)
    if "q_norm" in attention._modules:
        query, key = attention.q_norm(query), attention.k_norm(key)
    num_heads = query.shape[1]
    both = torch.cat([query, key], dim=1)
    both = both * cos + both.roll(attention.head_dim // 2, dims=-1) * sin
    keys, values = cache.update(both[:, num_heads:, None], value[:, :, None], attention.layer_idx)
    hidden = cache.hidden(_window(attention), both.dtype)
    out = slot_attention(both[:, :num_heads, None], keys, values, hidden, scale=attention.scaling)
    return attention.o_proj(out.reshape(len(states), 1, -1))


def _window(attention: Any) -> int | None:
    """Tokens that a token sees: a Qwen layer knows it, a Mistral's configuration says it, a Llama has none."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)
