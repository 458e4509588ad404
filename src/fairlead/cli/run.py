"""`fairlead run RECIPE`: a whole journey from one recipe."""

from importlib.resources import files
from pathlib import Path

from fairlead.cli.words import Words, show_result, split_recipe, take_flags
from fairlead.config.journey import JourneyConfig
from fairlead.config.parse import load
from fairlead.errors import ExitCode, UserError

HELP = """fairlead run: run a journey; finished stages are skipped, interrupted ones go on.

Usage: fairlead run RECIPE.yaml [--dry-run] [key=value | --key value ...]

RECIPE is a file, or the name of a recipe that comes with fairlead: {names}
  --dry-run   print the resolved recipe, the stages and estimates of time, memory and disk; run nothing
Options are dotted names of the recipe's keys, such as sft.optim.lr=1e-5; they win over the recipe. docs/options.md
lists them, and `fairlead sft --help` those of a stage.
"""


def run(*words: Words) -> None:
    """Run a journey from a recipe."""
    if {"-h", "--help"} & set(words):
        print(HELP.format(names=", ".join(sorted(_shipped()))), end="")
        return
    if {"--quick", "--with"} & set(words):
        raise UserError(
            "--quick and --with belong to the demo", where="command line", fix="fairlead demo --quick",
        )  # fmt: skip
    flags, rest = take_flags(words, ["--dry-run"])
    recipe, overrides = split_recipe(rest)
    if recipe is None:
        recipe, overrides = _by_name(rest)
    journey = load(JourneyConfig, recipe, overrides)
    from fairlead.cli.preflight import check_journey

    check_journey(journey)
    from fairlead.pipeline.run import run_config

    folder = run_config(journey, dry_run="--dry-run" in flags)
    if not flags:
        show_result("Journey", folder, ("runs", folder))


def _by_name(words: list[str]) -> tuple[Path, list[str]]:
    shipped = _shipped()
    if not words or words[0] not in shipped:
        raise UserError(
            "no recipe is named" if not words else f"{words[0]} is no recipe",
            where="command line",
            want="a .yaml file, or one of " + ", ".join(sorted(shipped)),
            fix="fairlead run RECIPE.yaml",
            exit_code=ExitCode.MISSING_INPUT if words else ExitCode.USAGE,
        )
    return shipped[words[0]], words[1:]


def _shipped() -> dict[str, Path]:
    """Recipes by name: in the installed package, or in the checkout of an editable install."""
    package = Path(str(files("fairlead")))
    folders = (package / "recipes", package.parents[1] / "recipes")
    return {path.stem: path for folder in reversed(folders) for path in folder.glob("*.yaml")}
