"""The text of a web page or a post in HTML: paragraphs, lists, and code between fences. No torch here.

The standard library's html.parser is not used: on tags that are never closed its time grows with the square of their
number (20 KB of "<a " take 5 seconds), and pages come from anyone. Here every character is looked at a few times.
"""

import re
from collections.abc import Iterator
from html import unescape as unescape_html

_HIDDEN = {"noscript", "template", "svg", "iframe", "object", "canvas"}
_RAW = ("script", "style")  # what stands inside is no HTML
_GAPS = dict.fromkeys(("br", "div", "li", "tr", "dt", "dd", "option", "label", "ul", "ol", "table", "form"), "\n") | (
    dict.fromkeys(
        ("p", "pre", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "title", "article", "section", "header",
         "footer", "nav", "main", "aside", "figure", "body"),
        "\n\n",
    )
)  # fmt: skip
"""What stands between the text of such an element and its neighbours; all other elements are part of their line."""

# A tag does not reach over the next "<", and its name and quotes are tried once: no way back, so no squares
_TOKEN = re.compile(
    r"""<(?:(?P<rest>!--|[!?])|(?P<end>/?)(?P<name>[a-zA-Z][\w:-]*+)"""
    r"""(?:(?:[^<>"']|"[^"<]*"|'[^'<]*')*+(?P<empty>(?<=/))?>|[^<>]*+>))"""
)
_DIGITS = re.compile(r"(?<=&#)0*([0-9]{1,8})[0-9]*")  # 8 are more than any character has; int() takes no more than 4300
_RAW_END = {name: re.compile(f"</{name}", re.IGNORECASE) for name in _RAW}


def html_text(html: str) -> str:
    """What a reader sees, as plain text: white space as in a browser, `- ` before items, code as in Markdown."""
    lines = _Lines()
    for data, tag in _tokens(html):
        lines.add(data)
        if tag:
            lines.pass_tag(tag)
    lines.end_block("")
    return "".join(lines.pieces)


def unescape(text: str) -> str:
    """Text with its character references resolved; a number that is no character is U+FFFD, however long."""
    return unescape_html(_DIGITS.sub(r"\1", text))


def _tokens(html: str) -> Iterator[tuple[str, str]]:
    """Text, and the tag behind it: `p`, `/p`, or `svg/` for an element that is closed at once."""
    at = 0
    while match := _TOKEN.search(html, at):
        before, at = html[at : match.start()], match.end()
        if match["rest"]:
            end = "-->" if match["rest"] == "!--" else ">"
            found = html.find(end, at)
            at = len(html) if found < 0 else found + len(end)
            yield unescape(before), ""
            continue
        name = match["name"].lower()
        if name in _RAW and not match["end"]:
            closing = _RAW_END[name].search(html, at)
            at = closing.start() if closing else len(html)
        yield unescape(before), f"{match['end']}{name}{'/' if match['empty'] is not None else ''}"
    yield unescape(html[at:]), ""


class _Lines:
    """The lines of a page, as its tags and texts pass by."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._line: list[str] = []
        self._gap = ""
        self._hidden = 0
        self._in_pre = False

    def add(self, data: str) -> None:
        """Text between tags."""
        if data and not self._hidden:
            self._line.append(data)

    def pass_tag(self, tag: str) -> None:
        """Begin or end an element."""
        name = tag.strip("/")
        if name in _HIDDEN:
            if not tag.endswith("/"):
                self._hidden = max(0, self._hidden + (-1 if tag.startswith("/") else 1))
        elif name == "code" and not self._in_pre:
            self.add("`")
        elif name in ("td", "th"):
            self.add(" ")
        elif name == "pre":
            self.end_block(_GAPS[name])
            self._in_pre = tag == name
        elif name in _GAPS and self._in_pre:
            self.add("\n" if tag.startswith("br") else "")
        elif name in _GAPS:
            self.end_block(_GAPS[name])
            self.add("- " if tag == "li" else "")

    def end_block(self, gap: str) -> None:
        """End the current line, or the current code, and keep at least this gap before the next."""
        text = "".join(self._line)
        text = text.strip("\n") if self._in_pre else " ".join(text.split())
        self._line.clear()
        if text.strip() not in ("", "-"):
            before = self._gap if self.pieces else ""
            self.pieces.append(f"{before}```\n{text}\n```" if self._in_pre else before + text)
            self._gap = ""
        self._gap = max(self._gap, gap, key=len)
