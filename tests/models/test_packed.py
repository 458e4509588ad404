"""Packed rows, padded rows and plain transformers row by row give the same log-probabilities and gradients."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fairlead.models.roles import Roles
from model_setting import TOLERANCE, frozen, in_training, packed, plain, plain_logprobs, rows_of
from tiny import FAMILIES, PACKABLE, WINDOW

Tiny = Callable[[str], Path]
frozen_once = cache(frozen)
plain_once = cache(plain)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 3 * WINDOW), min_size=1, max_size=5).filter(lambda n: max(n) > 1),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.7, 1.0, 2.5]),
)
@torch.no_grad()
def test_packed_is_padded_is_each_row_alone(
    tiny: Tiny, family: str, lengths: list[int], seed: int, temperature: float
) -> None:
    folder, rows = tiny(family), rows_of(lengths, seed)
    expected = plain_logprobs(plain_once(folder), rows, temperature=temperature)
    for fast in (True, False):
        logprobs, entropy = frozen_once(folder, fast=fast)(
            packed(rows), "policy", temperature=temperature, with_entropy=True
        )
        torch.testing.assert_close(logprobs, expected, **TOLERANCE)
        assert (entropy > 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_pack(tiny: Tiny, family: str) -> None:
    roles = frozen_once(tiny(family), fast=True)
    assert list(roles.packed.values()) == [family in PACKABLE]
    assert [("padded" in note) for note in roles.notes] == ([] if family in PACKABLE else [True])


@torch.no_grad()
def test_the_tiny_mistral_forgets(tiny: Tiny) -> None:
    """The window is smaller than the rows of these tests: a token out of it, through both layers, changes nothing."""
    (row,) = rows_of([4 * WINDOW])
    roles = frozen_once(tiny("mistral"), fast=True)
    reach = 2 * (WINDOW - 1)
    before, after = (roles(packed([ids]), "policy").logprobs for ids in (row, (319 - row[0], *row[1:])))
    assert (before != after)[:WINDOW].any()
    assert torch.equal(before[reach + 1 :], after[reach + 1 :])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_plain_transformers(tiny: Tiny, family: str, checkpointing: bool) -> None:
    rows = rows_of([5, 2 * WINDOW, 1, 9])
    roles = in_training(tiny(family), tuning="full", checkpointing=checkpointing)
    roles(packed(rows), "policy").logprobs.sum().backward()
    oracle = plain(tiny(family))
    plain_logprobs(oracle, [row for row in rows if len(row) > 1]).sum().backward()
    assert_same_gradients(roles, oracle)


def assert_same_gradients(roles: Roles, oracle: nn.Module) -> None:
    found = {name.split(".", 2)[2]: p.grad for name, p in roles.trainable("policy").items()}
    expected = {name: p.grad for name, p in oracle.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name],
            gradient,
            rtol=1e-4,
            atol=1e-5 * max(1.0, float(gradient.abs().max())),
            msg=lambda m, n=name: f"{n}: {m}",
        )
