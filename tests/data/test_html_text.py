import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.html_text import html_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One\n  two</p><p>Three &amp; four</p>", "One two\n\nThree & four"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>x</li><li>y <b>z</b></ul>", "- x\n- y z"),
        (
            "<p>Use <code>f()</code>:</p><pre><code>if a:\n  b &lt; c\n</code></pre>",
            "Use `f()`:\n\n```\nif a:\n  b < c\n```",
        ),
        ("<pre>a<br>b</pre>c", "```\na\nb\n```\n\nc"),
        ("<title>T</title><body><script>if (a<b) '</p>'</script><style>p {}</style>x", "T\n\nx"),
        ("a<SCRIPT>b</Script >c", "ac"),
        ("a<script>b", "a"),
        ("a<!-- <p>b</p> -->c<!doctype html>d<![CDATA[e]]>f<?php g ?>h", "acdfh"),
        ("a<!-- b", "a"),
        ("<noscript><p>a</noscript>b<svg><text>c</text></svg>d<svg/>e", "bde"),
        ('<a href="x>y" title=\'"\'>link</a> <img alt="5">3">', 'link 3">'),
        ("1 < 2 and 3 <4 &lt;b&gt; <3", "1 < 2 and 3 <4 <b> <3"),
        ("<table><tr><td>a<td>b</tr><tr><th>c</table>", "a b\nc"),
        ("<li></li><li> </li>a", "a"),
        ("</svg>a<svg>b</svg></svg>c", "ac"),
        ("", ""),
    ],
)
def test_text(html, text):
    assert html_text(html) == text


@given(
    st.lists(st.sampled_from(["<", ">", "a", "p", "/", "!", "--", "'", '"', "=", " ", "pre", "code", "script", "svg"]))
)
def test_any_tags_give_text(pieces):
    assert isinstance(html_text("".join(pieces)), str)


@given(st.text("ab ,.你", min_size=1))
def test_text_between_tags_is_kept(words):
    expected = " ".join(words.split())
    assert html_text(f"<div><p>{words}</p></div>") == expected
    assert html_text(words) == expected


@pytest.mark.parametrize(
    "piece", ["<!--", "<a", "<a ", "<a b='", "<a href=x ", "</", "<?", "<script>", "<svg>", "<![x["]
)
def test_time_grows_with_the_length_alone(piece):
    """html.parser needs hours for each of these."""
    began = time.monotonic()
    html_text(piece * (2_000_000 // len(piece)))
    assert time.monotonic() - began < 20
