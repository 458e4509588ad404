"""Text out of tokens, against the whole text cut at its first stop string."""

from hypothesis import given
from hypothesis import strategies as st

from fairlead.generate.text import TextStream
from fairlead.serve.models import Echo

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
