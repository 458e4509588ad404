import pytest
from ruamel.yaml import YAML

from fairlead.artifacts.manifest import BaseWeights, read_manifest, write_manifest
from fairlead.evaluate.card import model_card

from .journey_fixture import write_journey


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return write_journey(tmp_path_factory.mktemp("runs") / "demo")


def front_matter(card):
    start, front, body = card.split("---\n", 2)
    assert start == ""
    return YAML(typ="safe").load(front), body


def test_the_front_matter_is_what_hubs_read(stages):
    front, _ = front_matter(model_card(stages[1]))
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "smollm2-135m-instruct"
    assert front["pipeline_tag"] == "text-classification"
    assert front["datasets"] == ["held_out.jsonl", "train.jsonl"]
    measured = front["model-index"][0]["results"][0]["metrics"][0]
    low, high = measured["interval_95"]
    assert low < measured["value"] < high


def test_the_body_states_recipe_data_metrics_and_licences(stages):
    _, body = front_matter(model_card(stages[2]))
    for fact in (
        "512 episodes",
        "6 min 32 s",
        "0f" * 32,
        "| alpaca_zh_demo | Apache-2.0 |",
        "lr: 0.0002",
        "Mean score",
    ):
        assert fact in body
    recipe = YAML(typ="safe").load(body.split("```yaml\n")[1].split("```")[0])
    assert recipe["optim"]["schedule"] == "cosine"


def test_every_table_row_has_as_many_cells_as_its_head(stages):
    for stage in stages:
        for block in model_card(stage).split("\n\n"):
            rows = [line for line in block.splitlines() if line.startswith("|")]
            assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1


def test_a_name_cannot_break_out_of_its_table_cell(tmp_path):
    stage = write_journey(tmp_path / "demo")[1]
    path = stage / "evaluation.json"
    path.write_text(path.read_text().replace("held-out pairs", "a|b\\n<i>c"))
    assert "| a\\|b &lt;i>c (124) | reward model | " in model_card(stage)


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ({"a": "Apache-2.0", "b": "Apache-2.0"}, "apache-2.0"),
        ({"a": "Apache-2.0", "b": "MIT"}, "other"),
        ({"a": "Apache-2.0", "rows.jsonl": "not stated"}, "other"),
        ({"rows.jsonl": "not stated"}, "other"),
        ({"a": "Apache-2.0. Written by a commercial model"}, "other"),
        ({}, "other"),
    ],
)
def test_one_licence_is_claimed_only_where_all_are_known_and_the_same(tmp_path, licences, expected):
    stage = write_journey(tmp_path / "demo")[0]
    base = BaseWeights(name="/home/someone/models/tiny")
    write_manifest(stage, read_manifest(stage).model_copy(update={"facts": {"licences": licences}, "base": base}))
    card = model_card(stage)
    front, _ = front_matter(card)
    assert (front["license"], front["base_model"]) == (expected, "tiny")
    assert "/home/someone" not in card
