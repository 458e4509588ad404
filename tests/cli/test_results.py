"""From a finished stage onward: look at runs, talk, export, free space."""

import json

import pytest

from fairlead.cli.main import run
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


def test_show_names_roles_and_what_is_trained(command):
    text = command("data", "show", "rows.jsonl", "--model", "tiny", "--rows", "1")
    assert text.startswith("rows.jsonl: layout prompt-completion, 40 rows; chat template of the tokenizer")
    assert "assistant trained     " in text
    assert "user      not trained " in text
    assert text.endswith("next: fairlead sft --data rows.jsonl --model tiny\n")
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


def test_clean_lists_first_and_deletes_only_when_told(command, home):
    checkpoints = home / "runs/a/01-sft/checkpoints"
    assert "runs/a/01-sft/checkpoints  (the stage is finished)" in command("clean")
    assert checkpoints.is_dir()
    assert "are free again" in command("clean", "--yes")
    assert not checkpoints.exists()
    assert command("clean") == "nothing to delete\n"
    assert command("chat", "runs/a", "--prompt", "x", "--sampling.max-new-tokens", "1")
