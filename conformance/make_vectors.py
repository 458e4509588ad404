"""Write `conformance/vectors/` anew from the definitions in `conformance/define/` and the loops of `tests/oracles/`.

    python -m conformance.make_vectors

Numbers that others have published are compared, digit by digit, before anything is written.
"""

import json
import sys
from pathlib import Path
from typing import Any

from conformance.define import Quantity
from conformance.suite import VECTORS, flat

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from conformance.define import likelihood, online, preference

QUANTITIES: list[Quantity] = [*likelihood.QUANTITIES, *preference.QUANTITIES, *online.QUANTITIES]


def document(quantity: Quantity) -> dict[str, Any]:
    """What the file of a quantity holds."""
    cases = []
    for name, inputs in quantity.cases.items():
        expected = _rounded(quantity.definition(**inputs))
        case = {"name": name, "inputs": inputs, "expected": expected}
        if name in quantity.published:
            _agree(expected, quantity.published[name], where=f"{quantity.name}, {name}")
            case["published"] = quantity.published[name]
        if name in quantity.exact:
            case["tolerance"] = {"relative": 0.0, "absolute": 0.0}
        cases.append(case)
    return {
        "name": quantity.name,
        "equation": quantity.equation,
        "source": quantity.source,
        "catches": quantity.catches,
        "inputs": quantity.inputs,
        "output": quantity.output,
        "tolerance": {"relative": quantity.relative, "absolute": quantity.absolute},
        "cases": cases,
    }


def text_of(quantity: Quantity) -> str:
    """The bytes of its file: one case a line, plain JSON."""
    whole = document(quantity)
    cases = ",\n".join(f"    {json.dumps(case, allow_nan=False)}" for case in whole.pop("cases"))
    head = json.dumps(whole, indent=2, ensure_ascii=False)
    return f'{head[:-2]},\n  "cases": [\n{cases}\n  ]\n}}\n'


def _rounded(value: Any) -> Any:
    """Twelve digits: the last ones depend on the C library, and the files shall not."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.12g}")


def _agree(expected: Any, published: Any, *, where: str) -> None:
    """Published numbers have at most four decimals, and may be fewer than ours."""
    ours, theirs = flat(expected), flat(published)
    assert theirs.keys() <= ours.keys(), where
    for place, number in theirs.items():
        assert abs(ours[place] - number) <= 0.5001e-4, f"{where}{place}: {ours[place]}, published {number}"


def main() -> None:
    """Write every file, and delete those that no quantity stands for any more."""
    VECTORS.mkdir(exist_ok=True)
    for stale in {path.stem for path in VECTORS.glob("*.json")} - {quantity.name for quantity in QUANTITIES}:
        (VECTORS / f"{stale}.json").unlink()
    for quantity in QUANTITIES:
        (VECTORS / f"{quantity.name}.json").write_text(text_of(quantity), encoding="utf-8")


if __name__ == "__main__":
    main()
