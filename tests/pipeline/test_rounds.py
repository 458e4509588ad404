"""Rounds: replies and what learns from them, several times; each round answered by the policy of the one before."""

import shutil
from pathlib import Path

import pytest

from fairlead.artifacts.manifest import digest, read_manifest
from fairlead.artifacts.stages import list_runs, stage_folder
from fairlead.cli.runs import next_command
from fairlead.config.journey import JourneyConfig, Step
from fairlead.config.parse import load
from fairlead.pipeline import replies, run
from fairlead.train.stage import Stage
from tiny_stages import conversations, preferences, rows_of, write_rows

from .test_run import dies

STAGES = ["01-split", "02-sft", "03-reward", "04-replies", "05-dpo", "06-replies-round-2", "07-dpo-round-2"]
EVALS = ["08-eval-sft", "09-eval-reward", "10-eval-dpo", "11-eval-dpo-round-2"]


def recipe(world, folder, *overrides):
    """Two rounds of DPO on the best and the worst of a tiny model's replies."""
    rows, pairs = folder / "rows.jsonl", folder / "pairs.jsonl"
    write_rows(rows, conversations(30))
    write_rows(pairs, preferences(12))
    small = "{rows: 6, micro_batch_tokens: 600}"
    path = folder / "recipe.yaml"
    path.write_text(f"""
title: Two rounds
output: {folder / "run"}
rounds: 2
runtime: {{device: cpu, dtype: float32, num_threads: 1}}
split: {{sources: ['{rows}'], sft: 12, preference: 12, held_out: 4, max_prompt_tokens: 400, tokenizer: '{world.model}'}}
sft:
  model: {{name: '{world.model}', lora: {{rank: 4}}}}
  data: {{train: '@split/sft.jsonl', held_out_rows: 0, max_length: 256}}
  batch: {small}
  num_epochs: 1
reward:
  model: {{name: '@sft'}}
  data: {{train: '{pairs}', held_out_rows: 2, max_length: 256}}
  batch: {small}
  num_epochs: 1
replies: {{method: best_of_n, reward_model: '@reward', data: {{train: '@split/preference.jsonl'}},
          num_responses_per_prompt: 8, ended_only: false, sampling: {{max_new_tokens: 2}}}}
dpo:
  model: {{name: '@sft'}}
  data: {{train: '@replies/train.jsonl', held_out_rows: 0, max_length: 256}}
  batch: {small}
  optim: {{lr: 1.0e-2}}
  num_epochs: 1
  add_end_token: false
  checkpoint: {{every_steps: 1}}
eval:
  prompts: '@split/held_out.jsonl'
  preferences: '{pairs}'
  reward_model: '@reward'
  sampling: {{max_new_tokens: 4}}
""")
    return load(JourneyConfig, path, overrides)


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    run.run_config(recipe(world, folder))
    return folder


def test_every_round_has_its_folders(made):
    assert sorted(path.name for path in (made / "run").glob("[0-9]*")) == [*STAGES, *EVALS]
    stages = {name: read_manifest(made / "run" / name).stage for name in STAGES}
    assert stages == {name: name.partition("-")[2] for name in STAGES}


def test_the_policy_of_a_round_replies_and_learns_in_the_next(made):
    at = made / "run"
    parents = {
        name: {role: Path(p.path).name for role, p in read_manifest(at / name).parents.items()} for name in STAGES
    }
    assert parents["04-replies"] == {"model": "02-sft", "reward": "03-reward"}
    assert parents["05-dpo"] == {"model": "02-sft"}
    assert parents["06-replies-round-2"] == {"model": "05-dpo", "reward": "03-reward"}
    assert parents["07-dpo-round-2"] == {"model": "05-dpo"}
    for number, learner in ((4, "05-dpo"), (6, "07-dpo-round-2")):
        (rows,) = (Path(path) for path in read_manifest(at / learner).data_digests)
        assert rows == at / STAGES[number - 1] / "train.jsonl"
    assert rows_of(at / STAGES[3] / "train.jsonl") != rows_of(at / STAGES[5] / "train.jsonl")


def test_references_mean_the_latest_earlier_round(world, made):
    at, journey = made / "run", recipe(world, made)
    assert run.in_run(journey, Step("dpo"), at).model.name == str(at / "02-sft")
    second = run.in_run(journey, Step("dpo", 2), at)
    assert second.data.train == (str(at / "06-replies-round-2" / "train.jsonl"),)
    assert [run.in_run(journey, Step("replies", n), at).runtime.seed for n in (1, 2)] == [42, 43]
    later = recipe(
        world, made, "ppo.model.name=@dpo", "ppo.reward_model=@reward", "ppo.data.train=@replies/train.jsonl"
    )
    ppo = run.in_run(later, Step("ppo"), at)
    assert (ppo.model.name, ppo.data.train[0]) == (
        str(at / "07-dpo-round-2"), str(at / "06-replies-round-2" / "train.jsonl"),
    )  # fmt: skip


def test_the_report_shows_every_round(made):
    page = (made / "run" / "report.html").read_text(encoding="utf-8")
    for text in ("DPO, round 2", "Replies, round 2", "07-dpo-round-2", "its best reply is chosen"):
        assert text in page
    own = (made / "run" / "07-dpo-round-2" / "report.html").read_text(encoding="utf-8")
    assert "DPO, round 2" in own
    assert "learned from the pairs directly" in own


def test_a_round_to_come_is_the_next_command(made, tmp_path):
    copy = shutil.copytree(made / "run", tmp_path / "run")
    (found,) = list_runs(copy)
    assert "chat" in next_command(found)
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(text.replace("rounds: 2\n", "rounds: 9\n"))
    assert next_command(found) == f"fairlead run {copy}/recipe.yaml"


def test_another_round_is_added_to_what_is_there(world, made, capsys):
    before = {name: digest(made / "run" / name) for name in STAGES}
    run.run_config(recipe(world, made, "eval=null"))
    assert capsys.readouterr().err.count("is finished and unchanged, skipped") == len(STAGES)
    run.run_config(recipe(world, made, "eval=null", "rounds=3"))
    assert {name: digest(made / "run" / name) for name in STAGES} == before
    third = stage_folder(made / "run", "dpo-round-3")
    assert Path(read_manifest(third).parents["model"].path).name == "07-dpo-round-2"


@pytest.mark.slow
def test_killed_in_the_second_round_and_run_again(world, made, tmp_path):
    """kill -9 while the second round's replies are made, and again in the middle of its training."""
    journey = recipe(world, tmp_path, "eval=null")
    for module, name, calls in ((replies, "write_manifest", 2), (Stage, "maybe_save", 2)):
        assert dies(lambda: run.run_config(journey), module, name, calls)
    assert (tmp_path / "run" / STAGES[-1]).is_dir()
    assert not (tmp_path / "run" / STAGES[-1] / "manifest.json").exists()
    run.run_config(journey)
    assert {name: digest(tmp_path / "run" / name) for name in STAGES} == {
        name: digest(made / "run" / name) for name in STAGES
    }


def test_rounds_of_rejection_sampling(world, tmp_path):
    """replies -> sft, twice, from a model that is given: no initial stage is needed."""
    file = tmp_path / "rows.jsonl"
    write_rows(file, conversations(12))
    words = (
        f"output={tmp_path / 'run'}", "rounds=2", "runtime.device=cpu", "runtime.dtype=float32",
        "runtime.num_threads=1", f"replies.model={world.model}", "replies.method=rejection_sampling",
        "replies.rewards=-1*length", f"replies.data.train={file}", "replies.sampling.max_new_tokens=4",
        "replies.sampling.stop=e,a,o,t,s", f"sft.model.name={world.model}", "sft.data.train=@replies/train.jsonl",
        "sft.data.held_out_rows=0", "sft.max_steps=2", "sft.batch.rows=4",
    )  # fmt: skip
    run.run_config(load(JourneyConfig, None, words))
    names = ["01-replies", "02-sft", "03-replies-round-2", "04-sft-round-2"]
    assert sorted(path.name for path in (tmp_path / "run").glob("[0-9]*")) == names
    parents = [Path(read_manifest(tmp_path / "run" / name).parents["model"].path).name for name in names]
    assert parents == [world.model.name, world.model.name, "02-sft", "02-sft"]
