"""What the load-time probe finds, besides the families of test_packed.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from fairlead.errors import UserError
from fairlead.models import attention
from fairlead.models.loading import load_causal_lm
from model_setting import TOLERANCE, frozen, packed, plain, plain_logprobs, rows_of
from tiny import tiny_tokenizer

CPU = torch.device("cpu")


@torch.no_grad()
def test_soft_caps_run_padded(tmp_path: Path) -> None:
    """Gemma 2 bends its attention scores, which our attention does not: padded, and right."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, query_pre_attn_scalar=8, attn_logit_softcapping=1.0, final_logit_softcapping=None,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, hidden_activation="gelu",
    )  # fmt: skip
    model = Gemma2ForCausalLM(config)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.3)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    roles, rows = frozen(tmp_path), rows_of([5, 13, 2])
    assert list(roles.packed.values()) == [False]
    assert "padded" in roles.notes[0]
    expected = plain_logprobs(plain(tmp_path), rows)
    torch.testing.assert_close(roles(packed(rows), "policy").logprobs, expected, **TOLERANCE)


def test_an_attention_that_differs_is_not_used(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that stay apart are not enough: the packed row must say what transformers' own attention says."""
    right = attention.packed_attention
    monkeypatch.setattr(attention, "packed_attention", lambda *args, **kwargs: right(*args, **kwargs) * 1.01)
    assert not load_causal_lm(tiny("llama"), dtype=torch.float32, device=CPU).packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_probe_holds_in_both_precisions(tiny: Callable[[str], Path], dtype: torch.dtype) -> None:
    assert load_causal_lm(tiny("llama"), dtype=dtype, device=CPU).packed
    assert not load_causal_lm(tiny("bloom"), dtype=dtype, device=CPU).packed


def test_dropout_is_off(tiny: Callable[[str], Path]) -> None:
    model = load_causal_lm(tiny("gpt2"), dtype=torch.float32, device=CPU).model.train()
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} <= {0.0}
    assert model.config.attn_pdrop == model.config.resid_pdrop == 0.0


def test_tokenizer_and_embedding_must_agree(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = load_causal_lm(tiny("llama"), dtype=torch.float32, device=CPU).model
    model.resize_token_embeddings(300)
    model.config._attn_implementation = None
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no row for"):
        load_causal_lm(tmp_path, dtype=torch.float32, device=CPU)
