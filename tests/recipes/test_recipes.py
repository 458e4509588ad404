"""Every recipe that comes with fairlead, two steps of each stage on a tiny model, and what a dry run says."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from fairlead.artifacts.manifest import read_manifest
from fairlead.cli.main import run
from fairlead.config.journey import STAGES, JourneyConfig
from fairlead.config.parse import load
from fairlead.evaluate.summary import read_evaluation
from tiny import tiny_model, write_conversations, write_preferences

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
FAMILY = {"opt-sft-reward-ppo": "opt"}

SMALL = {
    "split": ["split.max_prompt_tokens=400", "split.sft=8", "split.preference=12", "split.held_out=4"],
    "sft": ["sft.max_steps=2", "sft.batch.rows=4"],
    "own_rejected": ["replies.sampling.max_new_tokens=12", "replies.max_tokens=12", "replies.min_tokens=1"],
    "best_of_n": ["replies.sampling.max_new_tokens=2", "replies.ended_only=false"],
    "reward": ["reward.max_steps=2", "reward.batch.rows=4"],
    "dpo": ["dpo.max_steps=2", "dpo.batch.rows=4"],
    "kto": ["kto.max_steps=2", "kto.batch.rows=4"],
    "ppo": [
        "ppo.num_iterations=2", "ppo.prompts_per_iteration=4", "ppo.mini_batch_size=2", "ppo.sampling.max_new_tokens=4",
    ],
    "grpo": [
        "grpo.num_iterations=2", "grpo.prompts_per_iteration=2", "grpo.num_responses_per_prompt=2",
        "grpo.mini_batch_size=4", "grpo.sampling.max_new_tokens=4",
    ],
    "eval": ["eval.sampling.max_new_tokens=4", "eval.max_prompts=4"],
}  # fmt: skip


def overrides(name, folder, model):
    """What makes a recipe small: the tiny model wherever it names weights, tiny rows wherever it names files."""
    journey = load(JourneyConfig, RECIPES / f"{name}.yaml", [])
    rows = write_conversations(folder / "rows.jsonl", 40)
    pairs = write_preferences(folder / "pairs.jsonl", 12)
    other = write_preferences(folder / "other.jsonl", 4, seed=9)
    words = [f"output={folder / 'run'}", "runtime.dtype=float32", "runtime.num_threads=1"]
    for stage in (*STAGES, "eval"):
        config = getattr(journey, stage)
        if config is None:
            continue
        words += SMALL[config.method if stage == "replies" else stage]
        if stage == "split":
            words += [f"split.tokenizer={model}"]
            words += [f"split.sources={rows}"] if config.sources != ("word_problems",) else []  # they are made here
            words += ["split.ppo=4"] if journey.ppo or journey.grpo else []
        elif stage == "eval":
            words += [f"eval.prompts={rows}"] if not journey.split else []
        elif stage != "replies":
            words += [f"{stage}.model={model}"] if not config.model.name.startswith("@") else []
            file = pairs if stage in ("reward", "dpo", "kto") else rows
            words += [f"{stage}.data={file}"] if not config.data.train[0].startswith("@") else []
            named = getattr(config.data, "held_out", ())  # ppo holds nothing out
            held_out = named and not named[0].startswith("@")
            words += [f"{stage}.data.held_out={other}"] if held_out else []
            words += [f"ppo.ptx_data={rows}"] if stage == "ppo" and config.ptx_data else []
    return words


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_of_every_stage(name, tmp_path, capsys):
    model = tiny_model(tmp_path / "tiny", FAMILY.get(name, "llama"))
    words = overrides(name, tmp_path, model)
    assert run(["run", str(RECIPES / f"{name}.yaml"), *words]) == 0, capsys.readouterr().err
    journey = load(JourneyConfig, RECIPES / f"{name}.yaml", words)
    folders = {folder.name.partition("-")[2]: folder for folder in (tmp_path / "run").iterdir() if folder.is_dir()}
    assert {step.name for step in journey.steps} <= set(folders)
    for step in journey.steps:
        manifest = read_manifest(folders[step.name])
        assert manifest.stage == step.name
        if step.stage not in ("split", "replies"):
            assert len((folders[step.name] / "metrics.jsonl").read_text().splitlines()) == 2
            report = read_evaluation(folders[f"eval-{step.name}"] / "evaluation.json")
            verifiers = () if step.stage == "reward" else journey.eval.verifiers
            assert tuple(one.verifier for one in report.successes if one.gain) == verifiers
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_second_run_skips_everything_and_its_own_recipe_reads_the_same(tmp_path, capsys):
    model = tiny_model(tmp_path / "tiny")
    words = [*overrides("dpo-zh", tmp_path, model), "runtime.seed=7"]
    assert run(["run", "dpo-zh", *words]) == 0, capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("model/*")}
    capsys.readouterr()
    assert run(["run", str(tmp_path / "run" / "recipe.yaml")]) == 0, capsys.readouterr().err
    assert capsys.readouterr().err.count("finished and unchanged, skipped") == 4  # split, sft, replies, dpo
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("model/*")} == before


def test_a_dry_run_prints_the_recipe_and_what_it_will_take(tmp_path, capsys):
    words = overrides("stackllama", tmp_path, tiny_model(tmp_path / "tiny"))
    assert run(["run", "stackllama", *words, "--dry-run"]) == 0
    said = capsys.readouterr()
    printed = YAML(typ="safe", pure=True).load(said.out)
    assert list(printed) == ["title", "output", "notes", "runtime", "rounds", "sft", "reward", "ppo", "eval"]
    assert printed["ppo"]["kl"] == {
        "coef": 0.2, "where": "reward", "estimator": "k1", "controller": "adaptive", "target": 6.0, "horizon": 10_000.0,
    }  # fmt: skip
    assert [line.split()[0] for line in said.err.splitlines() if line][:1] == ["stage"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("opt-sft-reward-ppo", "sft.optim.lr", 2e-5),
        ("opt-sft-reward-ppo", "sft.batch.rows", 30),
        ("opt-sft-reward-ppo", "reward.num_epochs", 4),
        ("colossalchat", "reward.loss", "log_exp"),
        ("colossalchat", "ppo.kl.coef", 0.1),
        ("colossalchat", "ppo.value_clip", 0.4),
        ("colossalchat", "sft.data.max_rows", 512),
        ("stackllama", "reward.model.lora.rank", 8),
        ("stackllama", "sft.model.lora.dropout", 0.05),
        ("dpo-zh", "dpo.beta", 0.1),
    ],
)
def test_numbers_of_the_founding_documents(name, path, value):
    section = load(JourneyConfig, RECIPES / f"{name}.yaml", [])
    for key in path.split("."):
        section = getattr(section, key)
    assert section == value
