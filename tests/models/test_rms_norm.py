"""Our norm against transformers' own: the same bits forward, the same gradients, less kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from fairlead.models.rms_norm import replace_rms_norms, rms_norm
from model_setting import frozen

Tiny = Callable[[str], Path]


def norm_of(width: int, dtype: torch.dtype) -> LlamaRMSNorm:
    norm = LlamaRMSNorm(width, eps=1e-5).to(dtype)
    with torch.no_grad():
        norm.weight.add_(torch.randn(width))
    return norm


@given(st.lists(st.integers(1, 5), max_size=2), st.integers(1, 70), st.sampled_from([torch.float32, torch.bfloat16]))
def test_it_says_what_transformers_says(shape, width, dtype):
    torch.manual_seed(width)
    norm, states = norm_of(width, dtype), torch.randn(*shape, width).mul(3.0).to(dtype)
    before = states.clone()
    assert torch.equal(rms_norm(states, norm.weight, eps=1e-5), norm(states))
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(states, norm.weight, eps=1e-5), norm(states), rtol=1e-6, atol=0)
    assert torch.equal(states, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_formula(dtype):
    """In float64; ours may be no further from it than transformers' are, by half as much again."""
    torch.manual_seed(0)
    norm = norm_of(64, dtype)
    states, seeds = (torch.randn(3, 40, 64).to(dtype) for _ in range(2))
    exact_states, exact_weight = (x.detach().double().requires_grad_() for x in (states, norm.weight))
    scale = torch.rsqrt(exact_states.pow(2).mean(-1, keepdim=True) + 1e-5)
    exact = torch.autograd.grad(exact_weight * exact_states * scale, (exact_states, exact_weight), seeds.double())
    states.requires_grad_()
    ours = torch.autograd.grad(rms_norm(states, norm.weight, eps=1e-5), (states, norm.weight), seeds)
    theirs = torch.autograd.grad(norm(states), (states, norm.weight), seeds)
    for got, other, want in zip(ours, theirs, exact, strict=True):
        assert float((got.double() - want).norm()) <= 1.5 * float((other.double() - want).norm())
        assert got.dtype == dtype


def test_a_frozen_weight_gets_no_gradient_and_little_is_kept():
    norm, kept = norm_of(64, torch.bfloat16).requires_grad_(False), []
    states = torch.randn(2, 9, 64).bfloat16().requires_grad_()

    def keep(x):
        kept.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = rms_norm(states, norm.weight, eps=1e-5)
    out.sum().backward()
    assert norm.weight.grad is None
    inputs = {states.data_ptr(), norm.weight.data_ptr()}
    assert [tuple(x.shape) for x in kept if x.data_ptr() not in inputs] == [(2, 9, 1)]


class Shifted(LlamaRMSNorm):
    """Called the same, and not the same."""

    def forward(self, hidden_states):
        return super().forward(hidden_states) * 1.001


ShiftedRMSNorm = type("ShiftedRMSNorm", (Shifted,), {})


def test_only_norms_that_say_the_same_are_replaced():
    plain, shifted, other = LlamaRMSNorm(8), ShiftedRMSNorm(8), Gemma2RMSNorm(8)
    replace_rms_norms(nn.ModuleList([plain, shifted, other]))
    assert "forward" in vars(plain)
    assert "forward" not in vars(shifted)
    assert "forward" not in vars(other)


@pytest.mark.parametrize(("family", "fast", "replaced"), [("llama", True, 5), ("qwen3", True, 9), ("llama", False, 0)])
def test_a_fast_model_runs_by_it(tiny: Tiny, family: str, fast: bool, replaced: int) -> None:
    model = frozen(tiny(family), fast=fast).causal_lm("policy")
    assert sum("forward" in vars(m) for m in model.modules() if "RMSNorm" in type(m).__name__) == replaced
