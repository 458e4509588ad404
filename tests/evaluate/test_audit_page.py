"""The page of an audit: one file, nothing loaded, nothing of the rows obeyed."""

import html
import re
from html.parser import HTMLParser

from fairlead.data.audit.audit import audit_file
from fairlead.data.audit.model_facts import facts_of
from fairlead.evaluate.audit_page import audit_page
from tiny import tiny_tokenizer
from tiny_stages import conversations, write_rows

ATTACK = "<script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>\u202e{{ 7 * 7 }}\x00"


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.depth = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in ("meta", "br"):
            self.depth.append(tag)

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag


def page(tmp_path, rows, **options):
    path = write_rows(tmp_path / "my rows.v2.jsonl", rows)
    tokenizer = tiny_tokenizer()
    options = {"against": (), "max_length": 256, "num_samples": 3, "limit": 5000, "seed": 1} | options
    found = audit_file(path, tokenizer, facts_of("tiny", tokenizer, 320), **options)
    written = audit_page(tmp_path / "out", found)
    return found, written, written.read_text(encoding="utf-8")


def attacked(text):
    turns = [
        {"role": "user", "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": "a"},
    ]
    return [{"messages": turns[1:]}, {"messages": turns}]


def test_one_file_that_loads_nothing(tmp_path):
    found, written, text = page(tmp_path, conversations(12))
    parsed = Page()
    parsed.feed(text)
    assert parsed.depth == []
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(parsed.tags)
    assert not [a for a in parsed.attributes if a[1].startswith("on") or a[1] in ("src", "href")]
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert written.name == "my rows.html"
    for finding in found.findings:
        assert finding.title in text
        assert html.escape(finding.sentence).replace("&#x27;", "&#x27;") in html.unescape(
            text
        ) or finding.sentence in html.unescape(text)


def test_every_token_shows_its_role_and_weight(tmp_path):
    found, _, text = page(tmp_path, conversations(12))
    tokens = re.findall(r'<span class="t (\w+)( trained)?" title="([^"]+)">(.*?)</span>', text, re.DOTALL)
    shown = [piece for sample in found.samples for piece in sample.pieces]
    assert [(role, bool(trained)) for role, trained, _, _ in tokens] == [(t.role, t.trained) for t in shown]
    assert {says.partition(", w")[0] for _, trained, says, _ in tokens if trained} == {"assistant"}
    assert {says.split(", ")[1] for _, trained, says, _ in tokens if trained} == {"weight 1"}
    assert {says.split(", ")[1] for _, trained, says, _ in tokens if not trained} == {"weight 0"}


def test_rows_are_inert(tmp_path):
    rows = attacked(ATTACK.removesuffix("\x00"))
    _, _, text = page(tmp_path, [*rows, *conversations(6)], num_samples=20)
    parsed = Page()
    parsed.feed(text)
    assert not {"script", "img"} & set(parsed.tags)
    assert "49" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).partition("alert")[2][:200]
    assert "\x00" not in text


def test_the_gravest_stands_first(tmp_path):
    found, _, text = page(tmp_path, attacked("fox"))
    assert found.verdict == "fatal"
    assert "Do not train on these rows" in text
    marks = re.findall(r'<span class="verdict (\w+)">', text)
    assert marks == sorted(marks, key=("fatal", "warning", "ok").index)
