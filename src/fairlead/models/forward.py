"""Running a transformers model on our batches: packed where it can, padded where it must."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairlead.batches import PackedBatch
from fairlead.models import decode_step
from fairlead.models.kv_cache import AnyCache, PaddedCache, SlotCache


def hidden_states(decoder: nn.Module, batch: PackedBatch, *, packed: bool) -> Float[Tensor, "N D"]:
    """The last hidden state of every token (after the final norm), in the packed order on either path."""
    if packed:
        out = decoder(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[None],
            use_cache=False,
            sequence_lengths=batch.lengths,
            shared_prefixes=batch.prefixes,
        )
        return out.last_hidden_state[0]
    assert not batch.prefixes, "padded rows share nothing"
    rows, mask = _padded(batch, side="right")
    out = decoder(input_ids=rows, attention_mask=mask, use_cache=False)
    return out.last_hidden_state[mask.bool()]


@contextmanager
def noisy_embeddings(embedding: nn.Module, batch: PackedBatch, alpha: float, *, packed: bool) -> Iterator[None]:
    """Uniform noise of alpha / sqrt(L D) on the embeddings of a sequence of L tokens (NEFTune, Jain et al. 2023)."""

    def add(_module: nn.Module, _inputs: object, embedded: Tensor) -> Tensor:
        lengths = torch.tensor(batch.lengths, device=embedded.device, dtype=torch.float32)
        lengths = lengths.repeat_interleave(lengths.long())[None] if packed else lengths[:, None]  # [1, N] or [S, 1]
        scale = alpha / (lengths * embedded.shape[-1]).sqrt()
        noise = torch.rand(embedded.shape, device=embedded.device) * 2.0 - 1.0
        return embedded + (noise * scale[..., None]).to(embedded.dtype)

    handle = embedding.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def next_hidden_states(decoder: nn.Module, batch: PackedBatch, cache: AnyCache) -> Float[Tensor, "S D"]:
    """The hidden state that predicts each sequence's next token; the batch's tokens go into the cache.

    The tokens are whole prompts that `cache.enter` has announced, or a single one per row (`batch.lengths` all 1). A
    padded cache knows prompts by being empty.
    """
    return (
        _next_in_slots(decoder, batch, cache) if isinstance(cache, SlotCache) else _next_padded(decoder, batch, cache)
    )


def _next_in_slots(decoder: nn.Module, batch: PackedBatch, cache: SlotCache) -> Float[Tensor, "S D"]:
    if cache.entering:
        out = decoder(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[None],
            past_key_values=cache,
            use_cache=True,
            sequence_lengths=batch.lengths,
        )
        return out.last_hidden_state[0, batch.last_tokens]
    if batch.input_ids.device.type == "cpu" and decode_step.is_known(decoder):
        return decode_step.next_hidden(decoder, batch.input_ids, cache)
    out = decoder(
        input_ids=batch.input_ids[:, None],
        position_ids=cache.lengths[:, None] - 1,
        past_key_values=cache,
        use_cache=True,
        hidden_in_slots=cache.hidden,
    )
    return out.last_hidden_state[:, -1]


def _next_padded(decoder: nn.Module, batch: PackedBatch, cache: PaddedCache) -> Float[Tensor, "S D"]:
    if cache.mask is None:
        rows, cache.mask = _padded(batch, side="left")
    else:
        rows = batch.input_ids[:, None]
        cache.mask = torch.cat([cache.mask, cache.mask.new_ones(len(rows), 1)], dim=1)
    positions = {}
    if "position_ids" in inspect.signature(decoder.forward).parameters:
        position_ids = (cache.mask.cumsum(1) - 1).clamp(min=0)
        positions["position_ids"] = position_ids[:, -rows.shape[1] :]
    out = decoder(input_ids=rows, attention_mask=cache.mask, past_key_values=cache.states, use_cache=True, **positions)
    return out.last_hidden_state[:, -1]


def _padded(batch: PackedBatch, *, side: str) -> tuple[Tensor, Tensor]:
    """The sequences as rows [S, T] with their mask; lengths say what is padding, never a token id."""
    sequences = list(batch.input_ids.split(list(batch.lengths)))
    rows = pad_sequence(sequences, batch_first=True, padding_side=side)
    masks = [torch.ones_like(sequence) for sequence in sequences]
    return rows, pad_sequence(masks, batch_first=True, padding_side=side)
