"""The slot cache and transformers' Cache API: what is asked of it, and what it answers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.cache_utils import Cache

from fairlead.models.kv_cache import SlotCache
from model_setting import frozen, packed, rows_of
from tiny import PACKABLE

CPU = torch.device("cpu")
API = {name for name in dir(Cache) if not name.startswith("__")} | {"layers"}
KINDS_OF_LAYERS = {"is_sliding", "is_linear", "is_dummy"}  # lists over `layers`, which we have none of
ANSWERED = {"update", "get_seq_length", "layers"} | KINDS_OF_LAYERS  # the tests below call each of them


@pytest.mark.parametrize("family", PACKABLE)
@torch.no_grad()
def test_transformers_asks_nothing_else(tiny: Callable[[str], Path], family: str) -> None:
    """A spy hears every name of the Cache API that the model touches; a new one must get an answer and a test."""
    asked: set[str] = set()

    class Spy(SlotCache):
        def __getattribute__(self, name: str) -> object:
            if name in API:
                asked.add(name)
            return super().__getattribute__(name)

    cache = Spy(2, 16, CPU)
    asked.clear()
    roles = frozen(tiny(family))
    roles(packed(rows_of([3, 7])), "policy", cache=cache)
    roles(packed(rows_of([1, 1])), "policy", cache=cache)
    assert "update" in asked
    assert asked <= ANSWERED, asked - ANSWERED


def test_slots_keep_what_was_written() -> None:
    torch.manual_seed(0)
    cache = SlotCache(2, 6, CPU)
    prompts = torch.randn(1, 3, 5, 4)
    cache.expect_prompts((2, 3))
    assert cache.get_seq_length() == 0
    keys, values = cache.update(prompts, -prompts, 0)
    assert torch.equal(keys, prompts)
    assert torch.equal(values, -prompts)
    for count in (1, 2):
        cache.expect_token()
        assert cache.get_seq_length() == 2 + count
        assert cache.lengths.tolist() == [2 + count, 3 + count]
        token = torch.full((2, 3, 1, 4), float(count))
        keys, values = cache.update(token, -token, 0)
        assert keys.shape == (2, 3, 3 + count, 4)
        for row, length in enumerate(cache.lengths.tolist()):
            assert torch.equal(keys[row, :, length - 1], token[row, :, 0])
            assert torch.equal(values[row, :, :length], -keys[row, :, :length])
    assert torch.equal(keys[0, :, :2], prompts[0, :, :2])
    assert torch.equal(keys[1, :, :3], prompts[0, :, 2:])
    cache.keep(torch.tensor([1]))
    assert cache.lengths.tolist() == [5]
    cache.expect_token()
    kept, _ = cache.update(token[1:], token[1:], 0)
    assert torch.equal(kept[0, :, :5], keys[1])
    assert not cache.is_compileable
    assert [getattr(cache, name) for name in sorted(KINDS_OF_LAYERS)] == [[], [], []]
    assert cache.layers == []
