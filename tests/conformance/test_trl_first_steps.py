"""`bench/trl_first_steps.py`: what it recorded on the real model, and what it says of a tiny one where TRL is there."""

import json

import pytest

from bench import trl_first_steps as bench
from tiny import tiny_model
from tiny_stages import conversations, preferences


@pytest.mark.parametrize("stage", bench.STAGES)
def test_what_was_recorded_agrees(stage):
    recorded = json.loads(bench.RESULT.read_text())["stages"][stage]
    assert len(recorded["steps"]) == bench.NUM_STEPS
    differences = [
        abs(step["fairlead"][name] / step["trl"][name] - 1.0) for step in recorded["steps"] for name in step["trl"]
    ]
    assert max(differences) == pytest.approx(recorded["largest_difference"], rel=1e-6)
    assert recorded["largest_difference"] < bench.TOLERANCE


@pytest.mark.parametrize("stage", bench.STAGES)
def test_a_tiny_model_takes_the_same_steps(stage, tmp_path, monkeypatch):
    pytest.importorskip("trl")
    rows = conversations(60) if stage == "sft" else preferences(60)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    monkeypatch.setitem(bench.ROWS, stage, str(tmp_path / "rows.json"))
    monkeypatch.setitem(bench.LONGEST, stage, 400)  # a tiny vocabulary makes many tokens
    table = bench.compare(stage, tmp_path, model=str(tiny_model(tmp_path / "model")))
    assert table["largest_difference"] < bench.TOLERANCE
    assert table["num_rows"] == bench.NUM_STEPS * bench.ROWS_PER_STEP[stage]


def test_fairlead_takes_its_steps_without_trl(tmp_path, monkeypatch):
    (tmp_path / "rows.json").write_text(json.dumps(preferences(60)))
    monkeypatch.setitem(bench.ROWS, "dpo", str(tmp_path / "rows.json"))
    model = str(tiny_model(tmp_path / "model"))
    config = bench.config_of("dpo", bench.short_rows("dpo", tmp_path, model), tmp_path, model)
    steps = bench.fairlead_steps("dpo", config)
    assert len(steps) == bench.NUM_STEPS
    assert steps[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
