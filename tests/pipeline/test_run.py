"""A whole journey on a tiny model and forty invented rows: made, skipped, killed, gone on with, refused."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fairlead.artifacts.manifest import digest, read_manifest, verify
from fairlead.config.common import RuntimeConfig
from fairlead.config.journey import JourneyConfig, Step
from fairlead.config.parse import load
from fairlead.errors import UserError
from fairlead.evaluate.evaluate import evaluate
from fairlead.evaluate.summary import read_evaluation
from fairlead.pipeline import datasets, replies, run
from fairlead.runtime.start import start
from fairlead.train.stage import Stage
from tiny_stages import conversations, rows_of, write_rows

STAGES = ["01-split", "02-sft", "03-replies", "04-reward", "05-dpo", "06-ppo"]
EVALS = ["07-eval-sft", "08-eval-reward", "09-eval-dpo", "10-eval-ppo"]


def recipe(world, folder, *overrides):
    """The demo's journey with DPO as its other branch, very small."""
    rows = folder / "rows.jsonl"
    if not rows.is_file():
        write_rows(rows, conversations(40))
    small = "{rows: 6, micro_batch_tokens: 600}"
    model = "{name: '@sft'}"
    text = f"""
title: A tiny journey
output: {folder / "run"}
runtime: {{device: cpu, dtype: float32, num_threads: 1}}
split: {{sources: ['{rows}'], sft: 18, preference: 10, ppo: 6, held_out: 6, max_prompt_tokens: 400,
        tokenizer: '{world.model}'}}
sft:
  model: {{name: '{world.model}', lora: {{rank: 4}}}}
  data: {{train: '@split/sft.jsonl', held_out: '@split/held_out.jsonl', max_length: 256}}
  batch: {small}
  num_epochs: 1
  checkpoint: {{every_steps: 1}}
replies: {{data: {{train: '@split/preference.jsonl', held_out: '@split/held_out.jsonl'}}, min_tokens: 1, max_tokens: 8,
          sampling: {{max_new_tokens: 8}}}}
reward:
  model: {model}
  data: {{train: '@replies/train.jsonl', held_out: '@replies/held_out.jsonl', max_length: 256}}
  batch: {small}
  num_epochs: 1
  score_at: last_token
dpo:
  model: {model}
  data: {{train: '@replies/train.jsonl', held_out: '@replies/held_out.jsonl', max_length: 256}}
  batch: {small}
  num_epochs: 1
ppo:
  model: {model}
  reward_model: '@reward'
  data: {{train: '@split/ppo.jsonl', max_length: 256}}
  sampling: {{max_new_tokens: 6}}
  num_iterations: 2
  prompts_per_iteration: 4
  mini_batch_size: 2
  checkpoint: {{every_steps: 1}}
eval:
  conversations: '@split/held_out.jsonl'
  prompts: '@split/held_out.jsonl'
  preferences: '@replies/held_out.jsonl'
  reward_model: '@reward'
  sampling: {{max_new_tokens: 6}}
"""
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load(JourneyConfig, path, overrides)


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("journey")
    run.run_config(recipe(world, folder))
    return folder


def digests(folder):
    return {path.name: digest(path) for path in sorted((folder / "run").glob("[0-9]*"))}


def contents(folder):
    """Bytes of everything, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_stage_is_made_and_checked(made):
    folders = sorted(path.name for path in (made / "run").glob("[0-9]*"))
    assert folders == [*STAGES, *EVALS]
    kinds = {name: verify(made / "run" / name).kind for name in folders}
    assert [kinds[name] for name in STAGES] == ["dataset", "policy", "dataset", "reward", "policy", "policy"]
    assert all(kinds[name] == "report" for name in EVALS)
    assert (made / "run" / "report.html").stat().st_size > 5000
    assert (made / "run" / "recipe.yaml").is_file()
    for name in folders:
        assert ((made / "run" / name / "report.html").is_file()) == (kinds[name] != "dataset"), name


def test_parents_are_the_stages_of_the_run(made):
    at = made / "run"
    parents = {
        name: {role: Path(p.path).name for role, p in read_manifest(at / name).parents.items()} for name in STAGES
    }
    assert parents["03-replies"] == parents["04-reward"] == parents["05-dpo"] == {"model": "02-sft"}
    assert parents["06-ppo"] == {"model": "02-sft", "reward": "04-reward"}
    assert read_manifest(at / "06-ppo").parents["reward"].digest == digest(at / "04-reward")


def test_no_prompt_stands_in_two_parts(made):
    prompts = {
        part: {row["messages"][0]["content"] for row in rows_of(made / "run" / "01-split" / f"{part}.jsonl")}
        for part in datasets.PARTS
    }
    assert {part: len(found) for part, found in prompts.items()} == {
        "sft": 18,
        "preference": 10,
        "ppo": 6,
        "held_out": 6,
    }
    assert len(set.union(*prompts.values())) == 40, "all forty, each once"


def test_no_prompt_of_two_sources_stands_in_two_parts(world, tmp_path):
    """The second source repeats rows of the first, in other clothes."""
    rows = conversations(40)
    write_rows(tmp_path / "rows.jsonl", rows)
    for row in rows:
        row["messages"][0]["content"] = row["messages"][0]["content"].upper() + " "
    more = write_rows(tmp_path / "more.jsonl", [*rows[:20], *conversations(70)[40:]])
    config = run.in_run(recipe(world, tmp_path), Step("split"), tmp_path / "run")
    counts = {"sft": 8, "preference": 6, "ppo": 6, "held_out": 6}
    config = config.model_copy(update=counts | {"sources": (*config.sources, str(more))})
    folder = datasets.split_rows(config, tmp_path / "run", start(RuntimeConfig(device="cpu", num_threads=1)))
    prompts = [
        row["messages"][0]["content"].strip().lower()
        for part in datasets.PARTS
        for row in rows_of(folder / f"{part}.jsonl")
    ]
    assert len(prompts) == len(set(prompts)) == 2 * sum(counts.values())


def test_what_an_earlier_report_measured_is_what_would_be_measured(world, made, tmp_path):
    """ppo's parent was measured by eval-sft; alone in another run it is measured anew, to the same numbers."""
    config = run.in_run(recipe(world, made), Step("eval"), made / "run")
    alone = config.model_copy(
        update={"model": str(made / "run" / "06-ppo"), "preferences": (), "output": str(tmp_path / "alone")}
    )
    found, anew = (read_evaluation(f / "evaluation.json") for f in (made / "run" / "10-eval-ppo", evaluate(alone)))
    assert found == anew
    assert found.parent_scores


def test_a_journey_under_torchrun(world, made, tmp_path):
    """Two processes: the first writes, both train, and the report says what one process says."""
    (tmp_path / "rows.jsonl").write_bytes((made / "rows.jsonl").read_bytes())
    recipe(world, tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fairlead",
               "run", str(tmp_path / "recipe.yaml"), "ppo.num_iterations=1"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("[1/7] split") == 1, "one process speaks"
    folders = sorted(path.name for path in (tmp_path / "run").glob("[0-9]*"))
    assert folders == [*STAGES, *EVALS]
    assert (tmp_path / "run" / "report.html").is_file()
    for name in ("01-split", "03-replies"):
        for file in (made / "run" / name).glob("*.jsonl"):
            if name == "01-split":
                assert (tmp_path / "run" / name / file.name).read_bytes() == file.read_bytes()
            if file.name != "rejects.jsonl":
                assert len(rows_of(tmp_path / "run" / name / file.name)) > 0


def test_pairs_have_sides_of_equal_length(made):
    rows = rows_of(made / "run" / "03-replies" / "train.jsonl")
    assert rows
    for row in rows:
        assert row["chosen"][0]["content"] != row["rejected"][0]["content"]
        assert row["prompt"][-1]["role"] == "user"


def test_a_second_run_skips_everything(world, made, capsys):
    before = {path: path.stat().st_mtime_ns for path in (made / "run").glob("[0-9]*/**/*") if path.is_file()}
    run.run_config(recipe(world, made))
    after = {path: path.stat().st_mtime_ns for path in (made / "run").glob("[0-9]*/**/*") if path.is_file()}
    assert after == before
    assert capsys.readouterr().err.count("is finished and unchanged, skipped") == 6


@pytest.mark.parametrize("word", ["split.sft=15", "runtime.seed=7", "sft.optim.lr=0.5", "replies.max_tokens=7"])
def test_changed_options_are_refused_before_anything_is_touched(world, made, word):
    before = contents(made / "run")
    with pytest.raises(UserError, match="begun with other options or inputs") as caught:
        run.run_config(recipe(world, made, word))
    assert word.split("=")[0].split(".")[-1] in str(caught.value)
    assert contents(made / "run") == before, "recipe.yaml included: it is the recipe of what is there"


def test_killed_in_the_middle_and_run_again(world, made, tmp_path):
    """kill -9 in sft, again while pairs are made, again in ppo: each run goes on to the same end."""
    (tmp_path / "rows.jsonl").write_bytes((made / "rows.jsonl").read_bytes())
    for module, name, calls in ((Stage, "maybe_save", 2), (replies, "write_manifest", 1), (Stage, "maybe_save", 6)):
        assert dies(lambda: run.run_config(recipe(world, tmp_path)), module, name, calls)
    assert (tmp_path / "run" / "06-ppo" / "checkpoints").is_dir()
    assert not (tmp_path / "run" / "06-ppo" / "manifest.json").exists()
    run.run_config(recipe(world, tmp_path))
    assert digests(tmp_path) == digests(made)
    for name in ("metrics.jsonl", "samples.jsonl"):
        for stage in STAGES[1:]:
            if (made / "run" / stage / name).is_file():
                assert (tmp_path / "run" / stage / name).read_bytes() == (made / "run" / stage / name).read_bytes()


def dies(action, module, name, calls):
    """Run the action in a child that kills itself at that call; whether it did."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            real, seen = getattr(module, name), []

            def replacement(*args, **options):
                seen.append(name)
                if len(seen) == calls:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            setattr(module, name, replacement)
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_dry_run_prints_and_writes_nothing(world, tmp_path, capsys):
    journey = recipe(world, tmp_path)
    before = contents(tmp_path)
    run.run_config(journey, dry_run=True)
    assert contents(tmp_path) == before
    said = capsys.readouterr()
    assert load_text(said.out, tmp_path) == journey
    for name in ("split", "sft", "replies", "reward", "dpo", "ppo", "eval", "in all"):
        assert name in said.err


def load_text(text, folder):
    path = folder / "printed.yaml"
    path.write_text(text, encoding="utf-8")
    return load(JourneyConfig, path, [])


def test_references_become_folders_of_the_run(world, made):
    journey = recipe(world, made)
    config = run.in_run(journey, Step("ppo"), made / "run")
    assert config.model.name == str(made / "run" / "02-sft")
    assert config.reward_model == str(made / "run" / "04-reward")
    assert config.data.train == (str(made / "run" / "01-split" / "ppo.jsonl"),)
    assert config.output == str(made / "run")
    assert config.runtime.num_threads == 1


@pytest.mark.parametrize("word", ["ppo.reward_model=@rewrd", "sft.model.name=@dpo", "ppo.data.train=@pretrain/x.jsonl"])
def test_a_stage_that_is_not_there_is_told_before_anything_runs(world, tmp_path, word):
    with pytest.raises(UserError, match=word.split("=")[1].split("/")[0]):
        recipe(world, tmp_path, word)
    assert not (tmp_path / "run").exists()


def test_a_journey_without_sft_needs_no_starter_model(world, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    words = (
        f"output={tmp_path / 'run'}", f"reward.model.name={world.model}", f"reward.data.train={world.preferences}",
        "reward.num_epochs=1", "reward.data.held_out_rows=4", "runtime.dtype=float32", "runtime.num_threads=1",
    )  # fmt: skip
    run.run_config(load(JourneyConfig, None, words))
    assert (tmp_path / "run" / "01-reward" / "manifest.json").is_file()
