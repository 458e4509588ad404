"""python -m conformance: measure a library against the vectors, and write the table of who passes what."""

import argparse
import importlib
import sys

from conformance.suite import Adapter, Result, measure
from conformance.table import RESULTS, TABLE, load_results, render


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 when a quantity fails."""
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument(
        "--adapter", metavar="MODULE:CLASS", help="such as conformance.fairlead_adapter:FairleadAdapter"
    )
    parser.add_argument("--save", metavar="NAME", help="keep the result as conformance/results/NAME.json")
    parser.add_argument("--table", action="store_true", help="write conformance/TABLE.md from all saved results")
    options = parser.parse_args(arguments)
    if not options.adapter and not options.table:
        parser.error("name an adapter, or ask for the table")
    failures = 0
    if options.adapter:
        result = measure(_adapter(options.adapter))
        show(result)
        failures = sum(outcome.status == "fails" for outcome in result.outcomes.values())
        if options.save:
            result.save(RESULTS / f"{options.save}.json")
    if options.table:
        TABLE.write_text(render(load_results()), encoding="utf-8")
    return 1 if failures else 0


def show(result: Result) -> None:
    """One line per quantity."""
    for name, outcome in result.outcomes.items():
        where = f"  {outcome.case}: {outcome.problem}" if outcome.problem else ""
        print(f"{name:26} {outcome.status}{where}")


def _adapter(name: str) -> Adapter:
    module, _, cls = name.partition(":")
    return getattr(importlib.import_module(module), cls)()


if __name__ == "__main__":
    sys.exit(main())
