"""Mutation testing of `algos/`: change one operator, constant, call or branch at a time; do the tests notice?

    python experiments/mutate.py [MODULE ...] [--seconds N] [--again]   # all without a name; goes on where it was
    python experiments/mutate.py --report                               # the table; survivors that mutants.md lacks

A mutant runs the tests of its own module (`tests/algos/test_MODULE.py`) until the first failure, in a forked child that
finds torch and pytest loaded already, with 30 fixed examples for each hypothesis test. What came out is kept in
runs/mutants/MODULE.jsonl and is only asked again when the module changes, or with `--again` for those that survived.
"""

import argparse
import ast
import contextlib
import copy
import gc
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import beartype.claw  # noqa: F401 - loaded once, for all children
import jaxtyping  # noqa: F401
import pytest
import torch
import transformers.optimization  # noqa: F401
from hypothesis import Phase, settings

ROOT = Path(__file__).parents[1]
ALGOS = ROOT / "src" / "fairlead" / "algos"
RESULTS = ROOT / "runs" / "mutants"
LISTED = ROOT / "experiments" / "mutants.md"
QUICK = [
    "-x", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "--assert=plain", "--disable-plugin-autoload",
    "-W", "ignore",
]  # fmt: skip

OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
NAMES = {
    "maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "amax": "amin", "amin": "amax",
    "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like", "ones_like": "zeros_like", "new_zeros": "new_ones",
    "sum": "mean", "mean": "sum", "exp": "expm1", "expm1": "exp", "log": "log1p", "log1p": "log", "sqrt": "square",
    "rsqrt": "sqrt", "square": "abs", "cos": "sin", "log_softmax": "softmax", "logsigmoid": "sigmoid", "relu": "abs",
    "sigmoid": "tanh", "floor": "ceil", "ceil": "floor", "masked_sum": "masked_mean", "masked_mean": "masked_sum",
    "kl_k1": "kl_k2", "kl_k3": "kl_k2", "double": "float", "reversed": "list", "any": "all", "all": "any",
}  # fmt: skip
NO_VALUES = {"torch", "math", "np", "ctx"}  # before the dot of a call


@dataclass(frozen=True)
class Mutant:
    """One change: the module's source with it, and how it reads."""

    line: int
    name: str  # function, the changed line before and after
    source: str


def mutants(source: str) -> list[Mutant]:
    """All mutants of a module, each different from it and from the others."""
    tree = ast.parse(source)
    found: dict[str, Mutant] = {}
    plain = ast.unparse(tree)
    times: Counter[str] = Counter()
    for path in _places(tree):
        node = _at(tree, path)
        for new in _changes(node):
            changed = copy.deepcopy(tree)
            _put(changed, path, new)
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text == plain or text in found:
                continue
            before, after = next(
                (a.strip(), b.strip()) for a, b in zip(plain.splitlines(), text.splitlines(), strict=False) if a != b
            )
            above = [_at(tree, path[:length]) for length in range(len(path) + 1)]
            function = [one.name for one in above if isinstance(one, ast.FunctionDef | ast.ClassDef)]
            name = ": ".join([*([".".join(function)] if function else []), f"{before}  ->  {after}"])
            times[name] += 1
            name += f" ({times[name]})" if times[name] > 1 else ""
            found[text] = Mutant(getattr(node, "lineno", 0), name, text)
    return list(found.values())


Step = tuple[str, int | None]


def _places(node: ast.AST, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Where something may be changed: everything but annotations, docstrings, imports and messages."""
    yield path
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "type_params", "names", "msg"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom | ast.Raise):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if isinstance(child, ast.Subscript) and ast.unparse(child.value) == "Literal":
                continue
            yield from _places(child, (*path, (field, index)))


def _at(tree: ast.AST, path: tuple[Step, ...]) -> ast.AST:
    for field, index in path:
        value = getattr(tree, field)
        tree = value if index is None else value[index]
    return tree


def _put(tree: ast.AST, path: tuple[Step, ...], new: ast.AST) -> None:
    parent = _at(tree, path[:-1])
    field, index = path[-1]
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new


def _with(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _changes(node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901, PLR0912 - a table of what may go wrong
    match node:
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            yield _with(node, op=OPERATORS[type(op)]())
        case ast.BoolOp(op=op):
            yield _with(node, op=OPERATORS[type(op)]())
            yield from node.values
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Compare(ops=[op]):
            yield from (_with(node, ops=[other()]) for other in COMPARISONS[type(op)])
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield from (ast.Constant(value + by) for by in (1, -1))
        case ast.Constant(value=str(value)):
            yield ast.Constant(f"{value}_")
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield from (body, orelse, _with(node, test=ast.UnaryOp(ast.Not(), test)))
        case ast.If() | ast.While():
            yield from (_with(node, test=ast.Constant(value)) for value in (True, False))
        case ast.Return(value=ast.Tuple(elts=elements)) if len(elements) > 1:
            yield ast.Return(ast.Tuple([*elements[1:], elements[0]], ast.Load()))
        case ast.Return(value=ast.expr() as value):
            yield ast.Return(ast.UnaryOp(ast.USub(), value))
        case ast.AugAssign(op=op, target=target, value=value):
            yield ast.Pass()
            yield ast.Assign([target], value, lineno=node.lineno)
            if type(op) in OPERATORS:
                yield _with(node, op=OPERATORS[type(op)]())
        case ast.Expr() | ast.Assert():
            yield ast.Pass()
        case ast.FunctionDef(decorator_list=decorators) if decorators and ast.unparse(decorators[-1]) != "staticmethod":
            yield _with(node, decorator_list=decorators[:-1])
        case ast.Name(id=name) if name in NAMES:
            yield _with(node, id=NAMES[name])
        case ast.Attribute(attr=name) if name in NAMES:
            yield _with(node, attr=NAMES[name])
        case ast.Call(func=function, args=arguments, keywords=keywords):
            yield from (_with(node, keywords=[*keywords[:i], *keywords[i + 1 :]]) for i in range(len(keywords)))
            method = isinstance(function, ast.Attribute)
            if method and ast.unparse(function.value).split(".")[0] not in NO_VALUES:
                yield function.value  # x.clamp(...) -> x
            elif len(arguments) == 1 and not keywords:
                yield arguments[0]  # upcast(x) -> x


# --- running


class FewExamples:
    """A pytest plugin: hypothesis tries few examples, always the same, and shrinks none."""

    @staticmethod
    def pytest_collection() -> None:
        settings.register_profile("mutants", max_examples=30, derandomize=True, phases=[Phase.explicit, Phase.generate],
                                  deadline=None, database=None)  # fmt: skip
        settings.load_profile("mutants")


def survives(tests: Sequence[str], source: Path, *, cpu_seconds: int) -> bool:
    """Whether these tests pass with the package in `source`, in a child of this process; too slow is a failure."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            sys.path.insert(0, str(source))
            code = int(pytest.main([*QUICK, *tests], [FewExamples()]))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def run(module: str, source: Path, deadline: float, *, again: bool) -> None:
    """Ask every mutant of a module that is not known yet, until the deadline."""
    right = (ALGOS / f"{module}.py").read_text(encoding="utf-8")
    digest = hashlib.sha256(right.encode()).hexdigest()[:12]
    known = results(module)
    wanted = [m for m in mutants(right) if m.name not in known or (again and known[m.name]["survived"])]
    if not wanted:
        return
    tests = [str(ROOT / "tests" / "algos" / f"test_{module}.py")]
    target = source / "fairlead" / "algos" / f"{module}.py"
    assert survives(tests, source, cpu_seconds=120), f"test_{module}.py fails without a change"
    try:
        for mutant in wanted:
            if time.monotonic() > deadline:
                return
            target.write_text(mutant.source, encoding="utf-8")
            survived = survives(tests, source, cpu_seconds=60)
            entry = {"digest": digest, "line": mutant.line, "mutant": mutant.name, "survived": survived}
            with (RESULTS / f"{module}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            if survived:
                print(f"{module}:{mutant.line}: {mutant.name}", flush=True)
    finally:
        target.write_text(right, encoding="utf-8")


def results(module: str) -> dict[str, dict]:
    """What is known of the mutants of the module as it stands, the newest answer of each."""
    path = RESULTS / f"{module}.jsonl"
    digest = hashlib.sha256((ALGOS / f"{module}.py").read_bytes()).hexdigest()[:12]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {row["mutant"]: row for row in rows if row["digest"] == digest}


def report(modules: list[str]) -> int:
    """Print the table; returns how many survivors are not in mutants.md."""
    listed = LISTED.read_text(encoding="utf-8") if LISTED.exists() else ""
    total = killed = unlisted = 0
    print("| module | mutants | killed | survived |\n|---|---|---|---|")
    for module in modules:
        known = results(module)
        survivors = [row for row in known.values() if row["survived"]]
        open_ones = len(mutants((ALGOS / f"{module}.py").read_text(encoding="utf-8"))) - len(known)
        asked = f"{len(known)}" + (f" ({open_ones} not asked)" if open_ones else "")
        print(f"| {module} | {asked} | {len(known) - len(survivors)} | {len(survivors)} |")
        total, killed = total + len(known), killed + len(known) - len(survivors)
        for row in survivors:
            if f"`{row['mutant']}`" not in listed:
                unlisted += 1
                print(f"not in mutants.md: {module}:{row['line']}: {row['mutant']}", file=sys.stderr)
    print(f"| all | {total} | {killed} ({killed / max(1, total):.1%}) | {total - killed} |")
    return unlisted


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    modules = options.modules or sorted(path.stem for path in ALGOS.glob("*.py") if path.stem != "__init__")
    if options.report:
        return 1 if report(modules) else 0
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    gc.freeze()  # children need not walk what they share
    RESULTS.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for module in modules:
            run(module, source, deadline, again=options.again)
    return 0


if __name__ == "__main__":
    sys.exit(main())
