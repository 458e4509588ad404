"""The page of oracles is complete: every function of algos has a row, and every test it names exists."""

import ast
import re

import pytest

from docs.blocks import ROOT

ROWS = re.findall(
    r"^\| `(\w+)\.(\w+)` \|(.*)\|(.*)\|(.*)\|(.*)\|$", (ROOT / "docs/algorithms/oracles.md").read_text(), re.MULTILINE
)
TESTS = {  # name: source
    node.name: ast.unparse(node)
    for file in [*ROOT.glob("tests/algos/test_*.py"), ROOT / "tests/models/test_roles.py"]
    for node in ast.parse(file.read_text()).body
    if isinstance(node, ast.FunctionDef)
}


def test_every_function_has_a_row():
    functions = {
        (file.stem, node.name)
        for file in (ROOT / "src/fairlead/algos").glob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert {(module, function) for module, function, *_ in ROWS} == functions


@pytest.mark.parametrize(("module", "function", "loop", "second", "gradcheck", "laws"), ROWS)
def test_the_tests_of_a_row_exist(module, function, loop, second, gradcheck, laws):
    for cell, wanted in ((loop, 1), (second, 1), (gradcheck, 0), (laws, 0)):
        named = re.findall(r"`(test_\w+)`", cell)
        assert len(named) >= wanted, cell
        assert set(named) <= TESTS.keys(), set(named) - TESTS.keys()
    of_gradient = [TESTS[name] for name in re.findall(r"`(test_\w+)`", gradcheck)]
    assert all("gradcheck" in source or "requires_grad" in source for source in of_gradient)
    assert of_gradient or re.search(r"no tensor|of whole numbers|true or false|in all others", gradcheck), gradcheck
