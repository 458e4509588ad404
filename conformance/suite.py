"""The runner: what an adapter answers, beside what the vectors expect. Python alone."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

VECTORS = Path(__file__).parent / "vectors"


class Adapter(Protocol):
    """Between the vectors and a library: one method per quantity, named as its file. A missing one is not offered.

    A method takes the inputs of a case by name, numbers and (nested) lists of them, and returns numbers in the shape
    of `expected`. `differs` holds, for a quantity that the library computes otherwise on purpose, the reason.
    """

    name: str
    versions: Mapping[str, str]  # package -> version
    differs: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What became of one quantity. `case` and `problem` say where it went furthest from the expected numbers."""

    status: Literal["pass", "fails", "differs by design", "not offered"]
    case: str = ""
    problem: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """One adapter measured against all vectors."""

    adapter: str
    versions: dict[str, str]
    outcomes: dict[str, Outcome]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Result":
        """What `save` wrote."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        outcomes = {name: Outcome(**outcome) for name, outcome in stored["outcomes"].items()}
        return Result(stored["adapter"], stored["versions"], outcomes)


def load_vectors() -> dict[str, dict[str, Any]]:
    """Every quantity by name, as its file has it."""
    documents = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(VECTORS.glob("*.json")))
    return {document["name"]: document for document in documents}


def measure(adapter: Adapter) -> Result:
    """Ask for every quantity and compare."""
    outcomes = {name: judge(adapter, quantity) for name, quantity in load_vectors().items()}
    return Result(adapter.name, dict(adapter.versions), outcomes)


def judge(adapter: Adapter, quantity: Mapping[str, Any]) -> Outcome:
    """One quantity: the case that went furthest from its tolerance decides."""
    method = getattr(adapter, quantity["name"], None)
    if method is None:
        return Outcome("not offered", reason=adapter.differs.get(quantity["name"], ""))
    worst, problem, place = 0.0, "", ""
    for case in quantity["cases"]:
        excess, said = _compare(method, case, case.get("tolerance", quantity["tolerance"]))
        if excess > max(1.0, worst):
            worst, problem, place = excess, said, case["name"]
    if not problem:
        return Outcome("pass")
    reason = adapter.differs.get(quantity["name"], "")
    return Outcome("differs by design" if reason else "fails", place, problem, reason)


def _compare(method: Any, case: Mapping[str, Any], tolerance: Mapping[str, float]) -> tuple[float, str]:
    """How many times the tolerance the largest error is, and what to say of it; at most 1 is right."""
    try:
        got = flat(method(**json.loads(json.dumps(case["inputs"]))))  # a copy: adapters may write into their inputs
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises is a result
        return math.inf, f"{type(error).__name__}: {error}"
    expected = flat(case["expected"])
    if got.keys() != expected.keys():
        return math.inf, f"{len(got)} numbers of another shape, {len(expected)} wanted"
    worst, problem = 0.0, ""
    for place, wanted in expected.items():
        error = abs(got[place] - wanted)
        allowed = tolerance["absolute"] + tolerance["relative"] * abs(wanted)
        excess = 0.0 if error == 0 else error / allowed if allowed else math.inf
        if not excess <= worst:  # nan is larger than anything
            worst = math.inf if math.isnan(excess) else excess
            problem = f"error {error:.2g}: {got[place]:.6g} for {wanted:.6g}"
    return worst, problem


def flat(value: Any, place: str = "") -> dict[str, float]:
    """Every number of nested lists and dictionaries by its place. Raises TypeError for anything else."""
    if isinstance(value, Mapping):
        parts = {f"{place}.{key}": inner for key, inner in value.items()}
    elif isinstance(value, list | tuple):
        parts = {f"{place}[{index}]": inner for index, inner in enumerate(value)}
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return {place: float(value)}
    else:
        raise TypeError(f"a {type(value).__name__} stands where a number or a list is wanted")
    return {key: number for name, inner in parts.items() for key, number in flat(inner, name).items()}
