"""Every training file of the shared data is read in its own layout, and its rows are as many as the README says."""

import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fairlead.data.load import read_documents, read_preferences, read_prompts, read_records
from fairlead.data.sources import open_rows
from fairlead.errors import UserError
from fairlead.records import Conversation, Document, Judgement, Preference, Prompt, Rejection

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
FOLDERS = ("sft", "preference", "prompts", "pretrain")
README = (SHARED / "README.md").read_text() if SHARED.is_dir() else ""
TABLE = {
    path: rows
    for path, rows in re.findall(r"^\| (\S+?/\S+)(?: \(\d+ files\))? \| ([^|]+) \|", README, flags=re.MULTILINE)
    if path.split("/")[0] in FOLDERS
}
BEER = "preference/stackexchange/beer.stackexchange.com_Posts.xml"
SCIENCE = "preference/stackexchange/datascience.stackexchange.com_Posts_2014-05.xml"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")

EMPTY = "sft/prompt_completion/trec_fine_grained_ABBR.jsonl"
# Files whose rows are other things than the README counts: what that number is
COUNTED_OTHERWISE = {
    "pretrain/tinyshakespeare.txt": "lines; the play is one running text, in pieces",
    "pretrain/tinystories_sample.txt": "lines; the stories between the separators are the rows",
}
# Files where a row gives no record, or several: how many records there are, and why
RECORDS = {
    BEER: (384, "a row is a post, a record a question with its answers"),
    SCIENCE: (29, "a row is a post, a record a question with its answers"),
    "pretrain/zh_classics/guwenguanzhi.json": (223, "one object is the book, a record is one of its texts"),
}
KINDS = {
    "labelled": Judgement, "prompt": Prompt, "text": Document, "chapters": Document,
    **dict.fromkeys(
        ("hh-rlhf", "sharegpt-pair", "messages-pair", "alpaca-ranked", "answers-pair", "stack-exchange"), Preference
    ),
}  # fmt: skip
LAYOUTS = {
    "preference/dpo_*_demo.json": "sharegpt-pair", "preference/dpo_zh_500.jsonl": "sharegpt-pair",
    "preference/firefly_dummy_dpo.jsonl": "messages-pair", "preference/hh_rlhf*": "hh-rlhf",
    "preference/kto_en_demo.json": "labelled", "preference/oaast_rm_zh.json": "alpaca-ranked",
    "preference/stackexchange/*.xml": "stack-exchange", "preference/stackexchange/*.json": "answers-pair",
    "preference/toolcall_dpo_zh_demo.jsonl": "sharegpt-pair", "preference/v1_dpo_demo.jsonl": "messages-pair",
    "pretrain/zh_classics/*": "chapters", "pretrain/web_near_dups/alpaca_cot_zh.jsonl": "alpaca", "pretrain/*": "text",
    "prompts/self_instruct*": "self-instruct", "prompts/*": "prompt",
    "sft/*seed_tasks.jsonl": "self-instruct", "sft/firefly*": "firefly", "sft/moss*": "moss",
    "sft/prompt_completion/*": "prompt-completion", "sft/colossalchat*": "messages", "sft/reason*": "messages",
    "sft/v1*": "messages", "sft/*sharegpt*": "sharegpt", "sft/fastchat*": "sharegpt", "sft/glaive*": "sharegpt",
    "sft/*": "alpaca",
}  # fmt: skip


def files() -> list[str]:
    found = (path for folder in FOLDERS for path in sorted((SHARED / folder).rglob("*")) if path.is_file())
    return [str(path.relative_to(SHARED)) for path in found]


FILES = files() if SHARED.is_dir() else []


def count_of(name: str) -> int:
    """Rows of a file by the README; a row for several files gives their sum."""
    entry = next(rows for pattern, rows in TABLE.items() if fnmatch(name, pattern))
    if "+" in entry:  # "246 ok + 2 bad"
        return sum(map(int, re.findall(r"\d+", entry)))
    count = int(entry.split()[0])
    return 1 if name.startswith("sft/moss_003_raw/") else count


def test_the_readme_lists_every_file():
    assert [name for name in FILES if not any(fnmatch(name, pattern) for pattern in TABLE)] == []
    assert len(FILES) > 60


def test_every_file_can_be_read():
    cannot = []
    for name in FILES:
        try:
            for _ in read_records(SHARED / name):
                pass
        except UserError as error:
            cannot.append((name, str(error.what), error.exit_code))
    assert cannot == [(EMPTY, "the file is empty", 66)]


@pytest.mark.parametrize("name", [name for name in FILES if name != EMPTY])
def test_rows_are_as_many_as_the_readme_says(name):
    num_rows = sum(1 for _ in open_rows(SHARED / name))
    if name in COUNTED_OTHERWISE:
        assert (SHARED / name).read_bytes().count(b"\n") == count_of(name)
    else:
        assert num_rows == count_of(name)
    stream = read_records(SHARED / name)
    layout = next(layout for pattern, layout in LAYOUTS.items() if fnmatch(name, pattern))
    assert stream.layout.name == layout
    outcomes = list(stream)
    expected = RECORDS[name][0] if name in RECORDS else num_rows
    assert len(outcomes) + (0 if name in RECORDS else sum(stream.left_out.values())) == expected
    kinds = {type(outcome) for outcome in outcomes} - {Rejection}
    assert kinds <= {KINDS.get(layout, Conversation)}


TOOLS = "tool calls are not supported"
REJECTED = {
    "sft/glaive_toolcall_en_demo.json": {TOOLS: 191},
    "sft/glaive_toolcall_zh_demo.json": {TOOLS: 200},
    "sft/moss_003_raw/calculator_plugin_conversation_82.json": {TOOLS: 1},
    "sft/moss_003_raw/text2img_plugin_conversation_27.json": {TOOLS: 1},
    "sft/moss_003_raw/text2img_plugin_conversation_49.json": {TOOLS: 1},
    "sft/moss_003_samples.jsonl": {TOOLS: 180},
    "sft/reason_tool_use_demo_50.jsonl": {TOOLS: 48, "only text parts are supported in a content, not reasoning": 2},
    "sft/sharegpt_zh_1k.jsonl": {"a user turn is empty": 1, "the dialogue ends with a user turn": 6},
    "preference/hh_rlhf_harmless_base_test.jsonl.gz": {
        "chosen does not end with an answer": 3, "roles are out of order": 3,
        "chosen and rejected have different prompts": 5,
    },
    "preference/oaast_rm_zh.json": {"chosen and rejected are the same": 6},
    "preference/toolcall_dpo_zh_demo.jsonl": {TOOLS: 11},
    "pretrain/web_near_dups/alpaca_cot_zh.jsonl": {"an assistant turn is empty": 1},
    "prompts/instructionwild_v2_user_2.jsonl": {"not JSON": 2},
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FILES if name != EMPTY])
def test_what_is_rejected(name):
    reasons = Counter(
        re.sub(r"[:(;].*", "", one.reason).strip() for one in read_records(SHARED / name) if isinstance(one, Rejection)
    )
    assert reasons == REJECTED.get(name, {})


def test_nothing_of_a_running_text_is_lost():
    path = SHARED / "pretrain/tinyshakespeare.txt"
    records = read_documents([path]).records
    assert "\n\n".join(record.text for record in records) == path.read_text().strip()
    assert records[1].source == f"{path}:{records[0].text.count(chr(10)) + 3}"


def test_stories_end_where_the_separator_stands():
    path = SHARED / "pretrain/tinystories_sample.txt"
    texts = [record.text for record in read_documents([path]).records]
    assert [text + "\n" for text in texts] == [
        part.lstrip("\n") for part in path.read_text().split("<|endoftext|>") if part.strip()
    ]


def test_grades_of_stack_exchange():
    loaded = read_preferences([SHARED / BEER])
    assert all(2 <= len(record.responses) <= 10 for record in loaded.records)
    assert all(record.grades == tuple(sorted(record.grades, reverse=True)) for record in loaded.records)
    assert all("<p>" not in text for record in loaded.records for text in record.responses)
    assert set(loaded.left_out) == {
        "a question with fewer than two answers", "a question whose answers all have the same score",
    }  # fmt: skip
    # README: 410 questions with two or more scored answers
    assert len(loaded.records) + loaded.left_out["a question whose answers all have the same score"] == 410
    assert len(read_prompts([SHARED / BEER]).records) == len(loaded.records) + sum(loaded.left_out.values())


def test_web_pages_have_text():
    loaded = read_documents([SHARED / "pretrain/web_near_dups/dolma_sample-0001.warc.gz"])
    assert loaded.records[0].text.startswith("Homepage - Creative Commons")
    assert all("<div" not in record.text and len(record.text) > 200 for record in loaded.records)
