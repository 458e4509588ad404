"""Text out of tokens, against the whole text cut at its first stop string, and against decoding all at every token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from fairlead.generate.text import TextStream
from fairlead.serve.models import Echo
from tiny import tiny_tokenizer

stops = st.lists(st.text("ab你", min_size=1, max_size=3), max_size=3)


@given(st.text("ab你\U0001f600", max_size=20), stops)
def test_the_pieces_are_the_text_up_to_the_first_stop(text, stops):
    stream, shown = TextStream(Echo().decode, stops), ""
    for token in text.encode():
        new = stream.add(token)
        assert "\ufffd" not in new
        shown += new
        if stream.ended:
            break
    shown += stream.rest()
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    assert stream.ended == bool(ends)
    if not ends:
        assert shown == text
        return
    seen = text[: min(ends)]  # when the first stop is whole, nothing behind it has been drawn
    assert shown == seen[: min(seen.index(stop) for stop in stops if stop in seen)]


def test_bytes_that_are_no_text_come_out_in_the_end():
    stream = TextStream(Echo().decode, ())
    assert [stream.add(token) for token in (97, 0xE4, 0xBD)] == ["a", "", ""]
    assert stream.rest() == "\ufffd"


class Whole:
    """What TextStream promises, by decoding everything each time."""

    def __init__(self, decode, stops):
        self.decode, self.stops, self.tokens, self.shown, self.ended = decode, stops, [], "", False

    def add(self, token):
        self.tokens.append(token)
        text = self.decode(self.tokens)
        ends = [text.index(stop) for stop in self.stops if stop in text]
        self.ended = bool(ends)
        whole = text.rstrip("\ufffd")
        begun = [n for stop in self.stops for n in range(1, len(stop)) if whole.endswith(stop[:n])]
        return self.show(text[: min(ends)] if ends else whole[: len(whole) - max(begun, default=0)])

    def show(self, text):
        new, self.shown = text[len(self.shown) :], max(self.shown, text, key=len)
        return new


def spaced_tokenizer():
    """SentencePiece's kind: a space before the first word, which decoding drops, and bytes for the rest."""
    words = ["\u2581", "\u2581a", "b", "\u2581ab", "\u2581\u2581", "."]
    vocabulary = [f"<0x{byte:02X}>" for byte in range(256)] + words
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate(vocabulary)}, [], byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


BYTE_LEVEL, SPACED = tiny_tokenizer(), spaced_tokenizer()


def byte_level(tokens):
    return BYTE_LEVEL.decode(tokens, skip_special_tokens=True)


def assert_same_pieces(decode, tokens, stops):
    stream, whole = TextStream(decode, stops), Whole(decode, stops)
    for token in tokens:
        assert stream.add(token) == whole.add(token)
        assert stream.ended == whole.ended
        if stream.ended:
            break
    assert stream.rest() == ("" if whole.ended else whole.show(decode(tokens)))


@given(st.lists(st.integers(0, 319), max_size=120), stops)
def test_any_tokens_of_a_vocabulary_of_bytes(tokens, stops):
    assert_same_pieces(byte_level, tokens, stops)


@given(st.lists(st.sampled_from([0, 2, *range(128, 132), *BYTE_LEVEL.encode("\U0001f600你é")]), max_size=150))
def test_broken_characters_and_special_tokens_in_long_runs(tokens):
    assert_same_pieces(byte_level, tokens, ())


words_and_characters = st.sampled_from([*range(256, 262), (0xE4, 0xBD, 0xA0), (0xF0, 0x9F, 0x98, 0x80)])


@given(st.lists(words_and_characters, max_size=90), stops)
def test_spaces_and_bytes_of_a_vocabulary_of_words(pieces, stops):
    tokens = [token for piece in pieces for token in (piece if isinstance(piece, tuple) else (piece,))]
    assert_same_pieces(SPACED.decode, tokens, stops)


@pytest.mark.parametrize("text", ["a b 你 ", "\U0001f600", "plain words "])
def test_a_token_costs_the_same_wherever_it_stands(text):
    decoded = []

    def counted(tokens):
        decoded.append(len(tokens))
        return byte_level(tokens)

    tokens = BYTE_LEVEL.encode(text) * 2000
    stream = TextStream(counted, ("none",))
    shown = "".join(map(stream.add, tokens[:2000])) + stream.rest()
    assert shown == byte_level(tokens[:2000])
    assert max(decoded) <= 40
    assert sum(decoded) < 60 * 2000
