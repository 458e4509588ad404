"""Bytes of tokens, by the text that they make together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fairlead.data.token_bytes import BYTE_OF, TokenBytes
from tiny import tiny_tokenizer

TINY = tiny_tokenizer()


def test_the_table_has_every_byte_once():
    assert sorted(BYTE_OF.values()) == list(range(256))
    assert set(BYTE_OF) == set(pre_tokenizers.ByteLevel.alphabet())


@given(st.text())
def test_the_bytes_of_a_text_s_tokens_are_the_text(text):
    ids = TINY(text, split_special_tokens=True)["input_ids"]
    assert b"".join(map(TokenBytes(TINY).of, ids)) == text.encode()


def test_special_tokens_have_none():
    assert [TokenBytes(TINY).of(token) for token in (0, 1, 2)] == [b"", b"", b""]


@pytest.mark.parametrize(("token", "expected"), [("<0xE4>", b"\xe4"), ("\u2581a", b" a"), ("b", b"b")])
def test_a_vocabulary_of_words_that_falls_back_to_bytes(token, expected):
    vocabulary = {"<0xE4>": 0, "\u2581a": 1, "b": 2}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert TokenBytes(PreTrainedTokenizerFast(tokenizer_object=backend)).of(vocabulary[token]) == expected
