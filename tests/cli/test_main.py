"""Every failure becomes one message and one exit code."""

import errno
from pathlib import Path

import pytest

from fairlead.cli import main as module
from fairlead.cli.demo import demo
from fairlead.cli.preflight import check_journey
from fairlead.cli.words import config_from_words, split_recipe
from fairlead.config.stages import EvalConfig
from fairlead.errors import ExitCode, UserError


@pytest.fixture
def failing(monkeypatch):
    """Run a command that raises what it is given."""

    def run(problem, *words):
        def app(*args, **kwargs):
            raise problem

        monkeypatch.setattr(module, "build_app", lambda: app)
        return module.run(words)

    return run


def test_user_error(failing, capsys):
    problem = UserError("wrong", where="x.yaml:3", got="a", want="b", fix="do c", exit_code=ExitCode.BAD_DATA)
    assert failing(problem) == ExitCode.BAD_DATA
    assert capsys.readouterr().err == "error: x.yaml:3: wrong; got a; want b\nfix: do c\n"


@pytest.mark.parametrize(
    ("problem", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ExitCode.IO, "disk is full"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), ExitCode.IO, "/x/y"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.jsonl"), ExitCode.MISSING_INPUT, "a.jsonl"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), ExitCode.IO, "permission denied"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (SystemExit(143), ExitCode.TERMINATED, ""),
        (SystemExit(None), ExitCode.OK, ""),
    ],
)
def test_exit_codes(failing, capsys, problem, code, says):
    assert failing(problem) == code
    assert says in capsys.readouterr().err


def test_a_text_given_to_exit_is_told(failing, capsys):
    assert failing(SystemExit("stopped")) == 1
    assert "stopped" in capsys.readouterr().err


def test_a_defect_leaves_a_report(failing, capsys):
    assert failing(ZeroDivisionError("division by zero"), "sft", "--data", "x") == ExitCode.INTERNAL
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert message.startswith("error: internal error, ZeroDivisionError: division by zero\n")
    assert "--debug" in message
    report = Path(next(word for word in message.replace(";", " ").split() if "fairlead-error-" in word))
    text = report.read_text()
    report.unlink()
    assert "command: fairlead sft --data x" in text
    assert "Traceback" in text


def test_debug_prints_the_traceback(failing, capsys):
    assert failing(ZeroDivisionError("x"), "--debug") == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_first_words():
    assert split_recipe(["a.yaml", "x=1"]) == (Path("a.yaml"), ["x=1"])
    assert split_recipe(["output=a.yaml"]) == (None, ["output=a.yaml"])
    config = config_from_words("eval", EvalConfig, ["runs/x", "--prompts", "a"], positional="model")
    assert (config.model, config.prompts) == ("runs/x", ("a",))


@pytest.mark.parametrize(("said", "served"), [("y", True), ("", False)])
def test_demo_ends_by_offering_its_page(tmp_path, monkeypatch, said, served):
    for stage in ("00-data", "01-sft", "02-reward", "03-ppo"):
        (tmp_path / "my demo" / stage).mkdir(parents=True)
    heard = []
    monkeypatch.setattr("fairlead.pipeline.demo.run_demo", lambda **_: tmp_path / "my demo")
    monkeypatch.setattr("fairlead.cli.serve.serve", lambda *words: heard.append(words))
    monkeypatch.setattr("builtins.input", lambda _: said)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    demo("--quick")
    run = tmp_path / "my demo"
    assert heard == ([(f"sft={run}/01-sft", f"my demo={run}", f"store={run}/feedback.db")] if served else [])
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    demo("--quick")
    assert len(heard) == served


def test_demo_takes_its_switches_apart(monkeypatch):
    seen = {}
    monkeypatch.setitem(
        __import__("sys").modules,
        "fairlead.pipeline.demo",
        type("Module", (), {"run_demo": staticmethod(lambda **given: seen.update(given)), "pages_of": None}),
    )
    demo("--quick", "--with", "dpo", "ppo.num_iterations=2", "--output=runs/x", "--dry-run")
    assert seen == {
        "output": "runs/x",
        "quick": True,
        "branches": ("dpo",),
        "overrides": ["ppo.num_iterations=2"],
        "dry_run": True,
        "check": check_journey,
    }
