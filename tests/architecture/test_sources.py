"""What no file of the package may contain, found in its syntax tree."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "scripts").rglob("*.py"))
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "commands.getoutput"}
BANNED_CALLS = {"torch.load", "torch.save", "eval", "exec", "yaml.load"} | SHELLS


def violations(source: str) -> list[str]:
    """Every banned construct of a module."""
    return [text for node in ast.walk(ast.parse(source)) for text in _violations_of(node)]


def _violations_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in PICKLES)
        case ast.ImportFrom(module=str(module)):
            if module.split(".")[0] in PICKLES:
                yield f"from {module} import"
            yield from (
                f"from {module} import {alias.name}" for alias in node.names if f"{module}.{alias.name}" in BANNED_CALLS
            )
        case ast.Call():
            yield from _violations_of_call(node)
        case ast.Constant(value="trust_remote_code"):
            yield "trust_remote_code"
        case _:
            pass


def _violations_of_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    if name in BANNED_CALLS:
        yield name
    for keyword in node.keywords:
        if keyword.arg in ("trust_remote_code", "allow_pickle"):
            yield keyword.arg
        if keyword.arg == "shell" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
            yield "shell="
    if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
        yield f"{name} with a command string"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_construct(path):
    assert violations(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import dump",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "model(trust_remote_code=True)",
        "options = {'trust_remote_code': True}",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import subprocess\nsubprocess.run(['x'], shell=True)",
        "import subprocess\nsubprocess.run('x y')",
        "import subprocess\nsubprocess.run(f'{x} y')",
        "import os\nos.system('x')",
        "eval('1')",
    ],
)
def test_the_check_sees_each_banned_construct(source):
    assert violations(source)


def test_training_loops_do_not_import_each_other():
    loops = {
        path.stem: path
        for path in (ROOT / "src/fairlead/train").glob("*.py")
        if f"def train_{path.stem}(" in path.read_text()
    }
    assert {"sft", "reward", "dpo"} <= set(loops)
    for name, path in loops.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairlead.train."):
                imported = node.module.removeprefix("fairlead.train.")
                assert imported == name or imported not in loops, f"{name} imports {imported}"
