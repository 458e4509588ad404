"""The slot cache and transformers' Cache API: what is asked of it, and what it answers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import Cache

from fairlead.models.kv_cache import BLOCK, SlotCache
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

    cache = Spy(2, CPU)
    asked.clear()
    roles = frozen(tiny(family))
    cache.enter((3, 7), (0, 1))
    roles(packed(rows_of([3, 7])), "policy", cache=cache)
    cache.expect_token()
    roles(packed(rows_of([1, 1])), "policy", cache=cache)
    assert "update" in asked
    assert asked <= ANSWERED, asked - ANSWERED


@given(
    prompts=st.lists(st.tuples(st.integers(1, 2 * BLOCK), st.integers(1, 3)), min_size=1, max_size=6),
    events=st.lists(st.integers(0, 2), max_size=12),
    seed=st.integers(0, 1000),
)
def test_rows_keep_what_was_written_whoever_comes_and_goes(
    prompts: list[tuple[int, int]], events: list[int], seed: int
) -> None:
    """Against a list of plain tensors, one a row: prompts enter (each read by one to three rows), tokens follow."""
    generator = torch.Generator().manual_seed(seed)
    cache, plain = SlotCache(3 * len(prompts), CPU), []
    waiting = list(prompts)
    for event in (0, *events):
        if event == 0 and waiting:
            (length, copies), waiting = waiting[0], waiting[1:]
            brought = torch.randn(1, 3, length, 4, generator=generator)
            cache.enter((length,), (0,) * copies)
            assert cache.get_seq_length() == 0
            keys, values = cache.update(brought, -brought, 0)
            assert torch.equal(keys, brought)
            assert torch.equal(values, -brought)
            plain += [brought[0]] * copies
        elif event == 1 and plain:
            cache.expect_token()
            token = torch.randn(len(plain), 3, 1, 4, generator=generator)
            keys, values = cache.update(token, -token, 0)
            plain = [torch.cat([row, new], dim=1) for row, new in zip(plain, token, strict=True)]
            assert cache.get_seq_length() == max(row.shape[1] for row in plain) - 1
            assert keys.shape[2] % BLOCK == 0
            assert keys.is_contiguous()
            seen = cache.seen(None)
            for row, expected in enumerate(plain):
                assert torch.equal(keys[row][:, seen[row]], expected)
                assert torch.equal(values[row][:, seen[row]], -expected)
                last = cache.seen(3)[row].nonzero()[:, 0].tolist()
                assert last == list(range(expected.shape[1]))[-3:]
        elif event == 2 and plain:
            rows = torch.randperm(len(plain), generator=generator)[: len(plain) // 2 + 1].tolist()
            cache.keep(rows)
            plain = [plain[row] for row in rows]
        assert cache.lengths.tolist() == [row.shape[1] for row in plain]


def test_prompts_of_one_read_are_told_apart() -> None:
    cache = SlotCache(3, CPU)
    brought = torch.randn(1, 2, 5, 4)
    cache.enter((2, 3), (1, 0, 1))
    cache.update(brought, -brought, 0)
    cache.expect_token()
    token = torch.zeros(3, 2, 1, 4)
    keys, values = cache.update(token, token, 0)
    for row, prompt in enumerate((brought[0, :, 2:], brought[0, :, :2], brought[0, :, 2:])):
        length = prompt.shape[1]
        assert torch.equal(keys[row, :, :length], prompt)
        assert torch.equal(values[row, :, :length], -prompt)
        assert not keys[row, :, length:].any()


def test_what_transformers_asks_of_a_cache_is_answered() -> None:
    cache = SlotCache(1, CPU)
    assert not cache.is_compileable
    assert [getattr(cache, name) for name in sorted(KINDS_OF_LAYERS)] == [[], [], []]
    assert cache.layers == []
