"""From a finished stage onward: look at runs, talk, export, free space."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from fairlead.artifacts.identity import check_identity
from fairlead.artifacts.manifest import Manifest, write_manifest
from fairlead.artifacts.stages import list_runs
from fairlead.cli.main import run
from fairlead.cli.runs import next_command
from fairlead.errors import ExitCode
from tiny import tiny_model, write_conversations, write_preferences


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a tiny model, rows, and a finished stage of four steps."""
    folder = tmp_path_factory.mktemp("home")
    tiny_model(folder / "tiny")
    write_conversations(folder / "rows.jsonl", 40)
    write_preferences(folder / "pairs.jsonl", 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--max-steps", "4", "--batch.rows", "4", "--checkpoint.every-steps", "2", "--output", "runs/a"]
        assert run(["sft", "--data", "rows.jsonl", "--model", "tiny", *words]) == 0
    return folder


@pytest.fixture
def command(home, monkeypatch, capsys):
    """Run a command in that folder; what it printed."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")

    def printed(*words, code=0):
        capsys.readouterr()
        assert run(words) == code, capsys.readouterr().err
        return capsys.readouterr().out

    return printed


def test_runs_names_stages_sizes_and_the_next_command(command):
    lines = command("runs").splitlines()
    assert lines[0].startswith("runs/a  ")
    assert lines[1].split()[:2] == ["01-sft", "policy"]
    assert lines[2] == "  next: fairlead chat runs/a/01-sft"
    assert command("runs", "runs/a").splitlines() == lines


def test_a_stage_that_never_did_a_step_is_no_unfinished_one(command, tmp_path):
    check_identity(tmp_path / "01-sft", {})
    assert "begun, no step yet" in command("runs", str(tmp_path))
    assert "it has not done a step yet" in command("runs", str(tmp_path))
    assert "begun, no step yet" in command("clean", str(tmp_path), "--yes")
    assert not (tmp_path / "01-sft").exists()


@pytest.mark.parametrize("kind", ["labelled", "pairs"])
def test_show_names_a_command_that_takes_these_rows(command, home, kind):
    (home / "labelled.jsonl").write_text('{"prompt": "a", "completion": "b", "label": false}\n')
    printed = command("data", "show", f"{kind}.jsonl", "--model", "tiny")
    assert ("next: fairlead sft" in printed) is False
    assert ("next: fairlead reward" in printed) == (kind == "pairs")
    assert ("next: fairlead kto" in printed) == (kind == "labelled")
    assert (":1 undesirable: " in printed) == (kind == "labelled")


def test_runs_inside_a_run(command, home, monkeypatch):
    monkeypatch.chdir(home / "runs" / "a")
    assert command("runs", ".").splitlines()[2] == "  next: fairlead chat 01-sft"


def journey(run, stages, *, begun=(), planned=(), report=False):
    """A run of these stages; `begun` are not finished, `planned` stand in its recipe."""
    run.mkdir()
    for number, stage in enumerate((*stages, *begun), start=1):
        folder = run / f"{number:02d}-{stage}"
        folder.mkdir()
        check_identity(folder, {})
        if stage in stages:
            kind = {"split": "dataset", "reward": "reward", "eval": "report"}.get(stage, "policy")
            (folder / "report.html").touch()
            write_manifest(folder, Manifest(kind=kind, stage=stage))
    if planned:
        (run / "recipe.yaml").write_text("".join(f"{name}: {{}}\n" for name in planned))
    if report:
        (run / "report.html").touch()
    return run


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"stages": ["sft", "ppo", "dpo"]}, "fairlead chat {run}/02-ppo"),
        ({"stages": ["reward"]}, "fairlead eval {run}/01-reward --preferences HELD_OUT_PAIRS.jsonl"),
        ({"stages": ["eval"]}, "look at {run}/01-eval/report.html"),
        ({"stages": ["sft"], "begun": ["ppo"]}, "repeat the command that began the unfinished stage"),
        ({"stages": ["sft"], "begun": ["ppo"], "planned": ["sft", "ppo"]}, "fairlead run {run}/recipe.yaml"),
        ({"stages": ["sft"], "planned": ["sft", "ppo"]}, "fairlead run {run}/recipe.yaml"),
        ({"stages": ["sft"], "planned": ["sft", "dpo"], "report": True}, "fairlead run {run}/recipe.yaml"),
        ({"stages": ["sft"], "planned": ["sft"]}, "fairlead run {run}/recipe.yaml"),
        ({"stages": ["sft"], "planned": ["sft"], "report": True}, "fairlead chat {run}/01-sft"),
        ({"stages": [], "planned": ["sft"]}, "fairlead run {run}/recipe.yaml"),
        ({"stages": ["split"], "planned": ["split"], "report": True}, "look at {run}/01-split/report.html"),
    ],
)
def test_the_next_command_goes_on_or_uses_the_best(tmp_path, monkeypatch, given, says):
    monkeypatch.chdir(tmp_path)
    (found,) = list_runs(journey(tmp_path / "run", **given))
    assert next_command(found).startswith(says.format(run=tmp_path / "run"))


def test_the_next_command_of_a_damaged_run_does_not_use_it(tmp_path):
    run = journey(tmp_path / "run", ["sft", "ppo"])
    (run / "02-ppo" / "manifest.json").write_text("{}")
    (found,) = list_runs(run)
    assert next_command(found).startswith(f"delete {run}/02-ppo")


def test_folders_with_spaces_can_be_pasted(command, home):
    copy = shutil.copytree(home / "runs" / "a" / "01-sft", home / "my runs" / "b" / "01-sft").parent
    for text in (
        command("runs", "my runs"),
        command("eval", "my runs/b", "--conversations", "rows.jsonl", "--output", "my runs/c"),
    ):
        words = shlex.split(next(line for line in text.splitlines() if "next:" in line))
        assert words[1:3] == ["fairlead", "chat"]
        assert words[3] in ("my runs/b/01-sft", "my runs/b")
    shutil.rmtree(copy.parent)


def test_a_command_given_again_or_refused_leaves_a_finished_model_as_it_is(command, home):
    rows = (home / "rows.jsonl").read_text() + json.dumps({"prompt": "long " * 600, "completion": "a"}) + "\n"
    (home / "one-too-long.jsonl").write_text(rows)
    words = ["sft", "--model", "tiny", "--max-steps", "1", "--data.max-reject-rate", "0.1", "--output", "again/d"]
    for _ in range(2):
        command(*words, "--data", "one-too-long.jsonl")
    command(*words, "--data", "rows.jsonl", code=ExitCode.USAGE)
    assert "no trained token is left" in (home / "again/d/01-sft/rejects.jsonl").read_text()
    assert command("chat", "again/d", "--prompt", "x", "--sampling.max-new-tokens", "1")


def test_chat_with_a_run_is_chat_with_its_ppo(home, monkeypatch):
    from fairlead.models.sources import resolve

    monkeypatch.chdir(home)
    for name in ("01-ppo", "02-sft"):
        shutil.copytree("runs/a/01-sft", f"both/{name}")
    assert resolve("both").artifact == Path("both/01-ppo")


def test_the_demo_is_checked_as_any_journey(command, monkeypatch):
    from fairlead.pipeline import demo

    done = []
    monkeypatch.setattr(demo, "fetch", lambda *_, **__: done.append("fetch"))
    monkeypatch.setattr(demo, "run_config", lambda *_, **__: done.append("run"))
    command("demo", "--output", "x", "eval.prompts=none.jsonl", "split.tokenizer=tiny", code=ExitCode.MISSING_INPUT)
    assert done == ["fetch"]
    command("demo", "--output", "x", "sft.optim.lr=9", code=ExitCode.USAGE)
    assert done == ["fetch"]


def test_a_reward_model_is_not_offered_for_a_chat(command):
    words = ["--model", "tiny", "--max-steps", "1", "--output", "rewards"]
    assert "fairlead ppo --model tiny --reward-model rewards/01-reward" in command(
        "reward", "--data", "pairs.jsonl", *words
    )
    text = command("eval", "rewards/01-reward", "--preferences", "pairs.jsonl", "--output", "rewards")
    assert "fairlead ppo --reward-model rewards/01-reward --data PROMPTS.jsonl" in text
    assert "chat" not in text


def test_show_names_roles_and_what_is_trained(command, home):
    text = command("data", "show", "rows.jsonl", "--model", "tiny", "--rows", "1")
    assert text.startswith("rows.jsonl: layout prompt-completion, 40 rows; chat template of the tokenizer")
    assert "assistant trained     " in text
    assert "user      not trained " in text
    assert text.endswith("next: fairlead sft --data rows.jsonl --model tiny\n")
    (home / "folder").mkdir()
    shutil.copy(home / "rows.jsonl", home / "folder")
    assert command("data", "show", "folder", "--model", "tiny").startswith("folder: layout prompt-completion, 40 rows")
    assert command("data", "show", "pairs.jsonl", "--model", "tiny").endswith(
        "next: fairlead reward --data pairs.jsonl --model tiny\n"
    )


def test_chat_answers_once_and_knows_a_run_by_its_folder(command):
    words = ["--prompt", "hello", "--sampling.max-new-tokens", "4", "--sampling.temperature", "0"]
    assert command("chat", "runs/a", *words) == command("chat", "runs/a/01-sft", *words) != "\n"


def test_eval_beside_the_parent(command, home):
    words = ["--conversations", "rows.jsonl", "--prompts", "rows.jsonl", "--max-prompts", "3", "--output", "runs/a"]
    text = command("eval", "runs/a/01-sft", *words, "--sampling.max-new-tokens", "4")
    assert "report: runs/a/02-eval-sft/report.html" in text
    measured = json.loads((home / "runs/a/02-eval-sft/evaluation.json").read_text())
    assert measured["likelihoods"][0]["num_tokens"] == measured["parent_likelihoods"][0]["num_tokens"] > 100
    assert measured["probes"]["num_responses"] == 3
    assert measured["kl"]["mean_sequence_kl"] is not None


def test_export_compares_and_keeps_what_is_there(command, home):
    from transformers import AutoModelForCausalLM

    text = command("export", "runs/a/01-sft", "merged")
    assert "largest difference between the logits" in text
    assert AutoModelForCausalLM.from_pretrained(home / "merged").config.vocab_size == 320
    command("export", "runs/a/01-sft", "merged", code=ExitCode.USAGE)
    command("export", "runs/a", "merged-of-the-run")
    assert (home / "merged-of-the-run" / "config.json").is_file()


def test_clean_lists_first_and_deletes_only_when_told(command, home):
    checkpoints = home / "runs/a/01-sft/checkpoints"
    assert "runs/a/01-sft/checkpoints  (the stage is finished)" in command("clean")
    assert "runs/a/01-sft/checkpoints  (the stage is finished)" in command("clean", "runs/a")
    assert checkpoints.is_dir()
    assert "are free again" in command("clean", "--yes")
    assert not checkpoints.exists()
    assert command("clean") == "nothing to delete\n"
    assert command("chat", "runs/a", "--prompt", "x", "--sampling.max-new-tokens", "1")
