"""Every command that the README and the pages show is one that the program takes; the walk-through is walked."""

import importlib
import re
import typing

import orjson
import pytest

from docs.blocks import PAGES, ROOT, blocks, commands
from fairlead.algos import preference_loss
from fairlead.artifacts.manifest import read_manifest
from fairlead.cli.main import build_app, run
from fairlead.config.document import options
from fairlead.config.journey import JourneyConfig
from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.parse import load
from fairlead.config.stages import DpoConfig, RewardConfig
from fairlead.data.parquet_rows import parquet_pieces
from fake_author import fake_author
from tiny import tiny_model, write_conversations, write_ranked
from tiny_stages import judgements, write_rows
from tiny_store import labelled_store

SHOWN = [(page, words) for page in PAGES for words in commands(page)]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
NOT_OURS = {"git", "cd", "pip", "pre-commit", "python", "open", "torchrun"}


class ReadToTheEndError(Exception):
    """The command line was understood; what it asks for is not done here."""


@pytest.fixture
def only_read(monkeypatch):
    """Commands stop once their words are a configuration."""

    def stop(*_, **__):
        raise ReadToTheEndError

    def read_demo(*, overrides, **_):
        load(JourneyConfig, ROOT / "recipes" / "demo.yaml", overrides)
        raise ReadToTheEndError

    for name in (
        "check_stage",
        "check_grow",
        "check_eval",
        "check_chat",
        "check_compare",
        "check_serve",
        "check_journey",
    ):
        monkeypatch.setattr(f"fairlead.cli.preflight.{name}", stop)
    monkeypatch.setattr("fairlead.pipeline.demo.run_demo", read_demo)


def ours(words):
    """The words after `fairlead`, however it is started; None for another program."""
    if "-m" in words[:-1] and words[words.index("-m") + 1] == "fairlead":
        return words[words.index("-m") + 2 :]
    return words[1:] if words[0].rpartition("/")[2] == "fairlead" else None


def test_there_is_something_to_check():
    assert len([words for _, words in SHOWN if ours(words)]) > 15


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=lambda value: getattr(value, "name", None) or " ".join(value))
def test_command_is_taken(page, words, only_read, tmp_path, monkeypatch):
    if words[0] == "make":
        assert all(word in TARGETS or "=" in word for word in words[1:]), f"{page.name}: no such target"
        return
    arguments = ours(words)
    if arguments is None:
        assert words[0] in NOT_OURS, f"{page.name}: {words[0]} is not known here"
        return
    monkeypatch.chdir(tmp_path)
    for word in arguments:
        if word.endswith(".yaml"):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).write_text("sft: {}\nppo: {model: {name: '@sft'}}\n")
    is_read = arguments[:2] not in (["data", "grow"], ["feedback", "compare"])
    if not arguments or (
        arguments[0] in ("fetch", "doctor", "runs", "export", "clean", "data", "feedback") and is_read
    ):
        build_app().parse_args(arguments, exit_on_error=False, print_error=False)
        return
    with pytest.raises((ReadToTheEndError, SystemExit)) as stopped:
        build_app()(arguments, exit_on_error=False, print_error=False, result_action="return_none")
    assert stopped.type is ReadToTheEndError or stopped.value.code == 0


SMALL = {
    "sft": ["--model", "tiny", "--max-steps", "2", "--checkpoint.every-steps", "1", "--eval-every-steps", "1"],
    "reward": ["--max-steps", "2", "--eval-every-steps", "1"],
    "dpo": ["--max-steps", "2", "--eval-every-steps", "1"],
    "kto": ["--max-steps", "2", "--eval-every-steps", "1"],
    "replies": ["--sampling.max-new-tokens", "2", "--ended-only", "false", "--num-responses-per-prompt", "8"],
    "ppo": [
        "--num-iterations", "1", "--prompts-per-iteration", "4", "--mini-batch-size", "2",
        "--sampling.max-new-tokens", "4", "--ptx-coef", "0.1", "--ptx-data", "my.jsonl",
    ],
    "grpo": [
        "--num-iterations", "1", "--prompts-per-iteration", "2", "--num-responses-per-prompt", "2",
        "--mini-batch-size", "4", "--sampling.max-new-tokens", "4",
    ],
    "eval": ["--sampling.max-new-tokens", "4", "--max-prompts", "3"],
    "chat": ["--sampling.max-new-tokens", "4"],
    "data": ["--model", "tiny"],
}  # fmt: skip


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The walk-through of the first page, on a tiny model: the folder it leaves."""
    folder = tmp_path_factory.mktemp("walk")
    tiny_model(folder / "tiny")
    for name in ("my", "held_out", "prompts"):
        write_conversations(folder / f"{name}.jsonl", 40, seed=len(name))
    write_ranked(folder / "pairs.jsonl", 20)
    write_rows(folder / "labelled.jsonl", judgements(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in commands(ROOT / "docs" / "getting-started.md", mark="run"):
            arguments = [*words[1:], *SMALL.get(words[1], [])]
            assert run(arguments) == 0, " ".join(words)
    return folder


def test_the_page_of_growth_is_walked(tmp_path, monkeypatch):
    """All but what the model at hand writes: a tiny one invents nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("seeds", "prompts", "chats"):
        write_conversations(tmp_path / f"{name}.jsonl", 12, seed=len(name))
    growths = [words[1:] for words in commands(ROOT / "docs" / "growth.md") if "--model" not in words]
    assert len(growths) == 3
    with fake_author() as author:
        for words in growths:
            url = ["--author.url", author.url] if "--author.url" in words else []
            assert run([*words, *url]) == 0, " ".join(words)
    made = {path.parent.parent.name for path in tmp_path.glob("runs/*/01-grow/train.jsonl")}
    assert made == {"grown", "translated", "asked"}


def test_the_page_of_feedback_is_walked(tmp_path, monkeypatch):
    """Every command in the order of the page, on a small store; a tiny model says nothing that could be ranked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny_model(tmp_path / "tiny")
    labelled_store(tmp_path / "labels.db")
    walked = [words for words in commands(ROOT / "docs" / "feedback.md") if words[2] != "compare"]
    assert len(walked) == 8
    for number, words in enumerate(walked):
        stage = ["--model", "tiny", "--max-steps", "2", "--output", f"runs/{number}"]
        assert run([*words[1:], *(stage if words[1] != "feedback" else [])]) == 0, " ".join(words)
    assert (tmp_path / "my-labels" / "preferences.parquet").is_file()
    assert (tmp_path / "new.db").is_file()


def test_the_page_of_the_refinery_is_walked(tmp_path, monkeypatch):
    """One command after the other in one folder, but those for starter rows and for datatrove."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rows.csv").write_bytes("question,reply\n你好吗 朋友,我很好 谢谢你\n".encode("gb18030"))
    (tmp_path / "eval_questions").mkdir()
    for name in ("rows", "en", "eval_questions/some"):
        write_conversations(tmp_path / f"{name}.jsonl", 12, seed=len(name))
    write_rows(tmp_path / "zh.jsonl", [{"prompt": f"第{i}首诗的名字是什么", "completion": "静夜思"} for i in range(12)])
    own = [words[1:] for words in commands(ROOT / "docs" / "refinery.md") if words[2] == "refine"]
    walked = [words for words in own if "alpaca_en_demo,alpaca_zh_demo" not in words and "--executor.kind" not in words]
    assert len(walked) == 3
    for words in walked:
        assert run(words) == 0, " ".join(words)


def test_the_walk_through_ends_where_it_says(walked):
    kinds = {folder.name: read_manifest(folder).kind for folder in sorted((walked / "runs/default").iterdir())}
    assert kinds == {"01-sft": "policy", "02-reward": "reward", "03-ppo": "policy", "04-eval-ppo": "report"}
    assert (walked / "my-model" / "config.json").is_file()
    assert not list((walked / "runs").rglob("checkpoints"))


def test_every_logged_metric_is_explained(walked):
    page = (ROOT / "docs" / "metrics.md").read_text()
    explained = {name.partition("/")[0] for name in re.findall(r"`([a-z_0-9]+(?:/GROUP|/NAME)?)`", page)}
    logged = set()
    for file in [*walked.glob("runs/*/*/metrics.jsonl"), *walked.glob("runs/*/*/timings.jsonl")]:
        for line in file.read_bytes().splitlines():
            logged |= {name.partition("/")[0] for name in orjson.loads(line)}
    assert {"loss", "ptx_loss", "margin", "mfu", "held_out_accuracy", "held_out_loss"} <= logged
    assert logged <= explained, sorted(logged - explained)
    rows = set(re.findall(r"^\| `([a-z_0-9]+)", page.partition("## Health")[0], flags=re.MULTILINE))
    assert rows <= logged, sorted(rows - logged)


def test_the_methods_of_the_grpo_page_are_options_that_are_taken():
    page = (ROOT / "docs" / "algorithms" / "grpo.md").read_text()
    methods = dict(re.findall(r"^\| (GRPO|Dr\. GRPO|DAPO|RLOO|REINFORCE\+\+)[^|]*\| `([^`]+)` \|$", page, re.MULTILINE))
    assert len(methods) == 5
    made = {name: load(GrpoConfig, None, options.split()) for name, options in methods.items()}
    assert len({config.model_dump_json() for config in made.values()}) == 5


def test_the_switches_of_the_ppo_page_are_options():
    page = (ROOT / "docs" / "algorithms" / "ppo.md").read_text()
    details = page.partition("## The details")[2].partition("## Departures")[0]
    cells = re.findall(r"^\|[^|]*\|([^|]*)\|[^|]*\|$", details, re.MULTILINE)[2:]
    assert len(cells) == 28
    known = {option.path for option in options(PpoConfig)} | {
        f"fairlead reward --{option.path.replace('_', '-')}" for option in options(RewardConfig)
    }
    for cell in cells:
        named = re.findall(r"`([^`]+)`", cell)
        assert named or cell.strip() == "–"
        assert set(named) <= known | {"sampler_gap"}, cell


def test_the_names_beside_the_equations_are_there():
    for page in (ROOT / "docs" / "algorithms").glob("*.md"):
        for module, name in re.findall(r"`((?:algos|models|train|evaluate)\.\w+)\.(\w+)`", page.read_text()):
            assert hasattr(importlib.import_module(f"fairlead.{module}"), name), f"{page.name}: {module}.{name}"
    page = (ROOT / "docs" / "algorithms" / "dpo.md").read_text()
    losses = re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", page, re.MULTILINE)
    assert {loss for loss, _ in losses} == set(typing.get_args(DpoConfig.model_fields["loss"].annotation))
    assert all(hasattr(preference_loss, name) for _, name in losses)


PYTHON = [(page, text) for page in PAGES for _, text in blocks(page, "python")]


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=lambda value: getattr(value, "name", None))
def test_python_runs(page, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [orjson.dumps({"text": f"once {i}", "source": f"a:{i}"}) for i in range(500)]
    (tmp_path / "train.parquet").write_bytes(b"".join(parquet_pieces(lines, ["text", "source"])))
    names = {}
    exec(compile(text, str(page), "exec"), names)  # noqa: S102  what a reader may copy
    assert (len(names["rows"]), names["cursor"]["position"]) == (64, 4 * 64)
