"""The examples of docs/data-layouts.md are what they are said to be, and every layout has one."""

import json
import re

from docs.blocks import ROOT, blocks
from fairlead.data.layouts import LAYOUTS, detect
from fairlead.data.load import read_conversations, read_documents, read_judgements, read_preferences, read_prompts

PAGE = (ROOT / "docs" / "data-layouts.md").read_text()
READERS = {
    "conversations": read_conversations, "preferences": read_preferences, "labelled answers": read_judgements,
    "prompts": read_prompts, "documents": read_documents,
}  # fmt: skip


def test_every_layout_is_shown_and_read(tmp_path):
    kinds = {layout.name: layout.kind for layout in LAYOUTS}
    rows = [json.loads(text) for _, text in blocks(ROOT / "docs" / "data-layouts.md", "json")]
    assert {detect(row).name for row in rows} == set(kinds)
    named = re.findall(r"^`([a-z-]+)`.*\n```json\n(.*)\n```", PAGE, flags=re.MULTILINE)
    assert {name for name, _ in named} == set(kinds)
    for name, row in named:
        assert detect(json.loads(row)).name == name
        if name == "openassistant-rows":
            continue  # one message is no tree: see test_load.py
        file = tmp_path / f"{name}.jsonl"
        file.write_text(row)
        read = read_prompts if name == "stack-exchange" else READERS[kinds[name]]  # a post alone is a prompt
        assert len(read([file]).records) == 1


def test_recipe_page_shows_a_recipe(tmp_path):
    from docs.blocks import blocks
    from fairlead.config.journey import JourneyConfig
    from fairlead.config.parse import load

    ((_, text),) = blocks(ROOT / "docs" / "recipes.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    journey = load(JourneyConfig, tmp_path / "mine.yaml", [])
    assert journey.sft.runtime.seed == journey.eval.runtime.seed == 7
    assert journey.ppo.reward_model == "@reward"
    assert journey.dpo is None
