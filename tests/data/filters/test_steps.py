"""All steps together: their order, their switches, and what they do with real rows."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from fairlead.config.filters import FiltersConfig
from fairlead.config.parse import load
from fairlead.data.filters.steps import Dropped, Kept, steps_of
from fairlead.data.load import read_conversations
from fairlead.records import Document
from tests.data.filters.rows import CLEAN, RECORDS, chat

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
ON = ["repair", "length", "repetition", "symbols", "phrases", "empty", "truncated", "pii"]


def refined(record, steps):
    """What is left of a record, and the changes; or where and why it was dropped."""
    changes = []
    for name, step in steps.items():
        outcome = step(record)
        if isinstance(outcome, Dropped):
            return None, f"{name}: {outcome.reason}"
        record = outcome.record
        changes += [f"{name}: {outcome.changed}"] * bool(outcome.changed)
    return record, "; ".join(changes)


def test_the_order_and_the_defaults():
    assert list(steps_of(FiltersConfig())) == ON
    given = ["language.keep=en,zh", "toxicity.built_in=true"]
    steps = list(steps_of(load(FiltersConfig, None, given)))
    assert steps == ["repair", "language", *ON[1:], "toxicity"]


@pytest.mark.parametrize("name", ON)
def test_every_step_can_be_switched_off(name):
    off = load(FiltersConfig, None, [f"{name}=false" if name == "empty" else f"{name}.enabled=false"])
    assert list(steps_of(off)) == [step for step in ON if step != name]


@pytest.mark.parametrize("text", CLEAN)
def test_clean_texts_pass_as_they_are(text):
    steps = steps_of(load(FiltersConfig, None, ["language.keep=en,zh", "toxicity.built_in=true"]))
    for record in (chat(text), Document(text)):
        assert refined(record, steps) == (record, "")


@given(RECORDS)
def test_refining_twice_is_refining_once(record):
    steps = steps_of(FiltersConfig())
    changing = {name: step for name, step in steps.items() if name not in ("length", "repetition", "symbols")}
    once, _ = refined(record, changing)  # the others measure, and a text that was masked may be shorter
    if once is not None:
        assert refined(once, changing) == (once, "")
    for step in steps.values():
        assert isinstance(step(record), Kept | Dropped)


SFT = (
    ("alpaca_en_demo.json", 0.015, 0.03),
    ("alpaca_zh_demo.json", 0.005, 0.035),
    ("firefly_dummy_data.jsonl", 0.0, 0.0),
    ("medical_sharegpt_zh_1k.jsonl", 0.015, 0.0),
    ("moss_003_samples.jsonl", 0.005, 0.16),  # one answer in seven refuses, or speaks as a language model
    ("oaast_sft_zh.json", 0.005, 0.085),
    ("sharegpt_zh_1k.jsonl", 0.025, 0.14),
)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not there")
@pytest.mark.parametrize(("name", "most", "most_phrases"), SFT)
def test_the_defaults_leave_good_rows(name, most, most_phrases):
    records = read_conversations([SHARED / "sft" / name], max_reject_rate=1.0).records
    steps = steps_of(FiltersConfig())
    phrases = {"phrases": steps.pop("phrases")}
    for some, limit in ((steps, most), (phrases, most_phrases)):
        lost = [where for record, where in (refined(record, some) for record in records) if record is None]
        assert len(lost) <= limit * len(records), lost


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not there")
def test_chinese_and_documents_stay_byte_for_byte():
    steps = {"repair": steps_of(FiltersConfig())["repair"]}
    for name in ("alpaca_zh_demo.json", "oaast_sft_zh.json", "firefly_dummy_data.jsonl"):
        for record in read_conversations([SHARED / "sft" / name], max_reject_rate=1.0).records:
            assert refined(record, steps) == (record, "")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (
            "我们去了北\ufffd\ufffd\ufffd的故宫，\ufffd\ufffd很好玩。",
            "repair: lost characters (U+FFFD) above 0.005 of the text",
        ),
        (" ……\n", "empty: an answer is empty"),
        ("word " * 30_000, "length: answer has more than 20000 words"),
        ("我不知道你在说什么。" * 30, "repetition: repeated runs of 10 above 0.45"),
        ("★◆☆●■□" * 30, "symbols: symbols above 0.4"),
        ("As an AI language model, I do not know the weather.", "phrases: canned phrase of an assistant"),
        ("很抱歉，我无法回答这个问题。", "phrases: refusal"),
        ("版权所有 © 2021", "phrases: nothing else than this in a text: boilerplate"),
        ("代码：\n```python\nfor i in", "truncated: a code block is not closed"),
    ],
)
def test_planted_rows_are_caught(text, where):
    assert refined(chat(text), steps_of(FiltersConfig())) == (None, where)


def test_planted_data_is_mended_and_masked():
    text = "Itâ€™s at 13812345678 &amp; ann@mail.example.org.\n© 2021 All rights reserved."
    assert refined(chat(text), steps_of(FiltersConfig())) == (
        chat("It’s at [PHONE] & [EMAIL]."),
        "repair: HTML entities, mojibake; phrases: boilerplate; pii: email, phone",
    )


def test_no_torch():
    code = "import sys, fairlead.data.filters.steps; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
