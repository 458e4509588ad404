"""What the verbs share: their words become a configuration, and their results are told in one way."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel

from fairlead.config.document import help_text
from fairlead.config.parse import SHORT_OPTIONS, load
from fairlead.errors import ExitCode, UserError

Model = TypeVar("Model", bound=BaseModel)
Words = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Words that are parsed by us: a recipe, `key=value`, `--key value`."""


def config_from_words(verb: str, model: type[Model], words: Sequence[str], *, positional: str = "") -> Model:
    """The configuration of a verb: a recipe first, if any, then options.

    positional: the option that a first word which is no recipe stands for (`fairlead chat MODEL`); else it is refused.
    Prints the options and exits when help is asked for.
    """
    if {"-h", "--help"} & set(words):
        first = "[RECIPE.yaml]" + (f" [{positional.upper()}]" if positional else "")
        short = {name: path for name, path in SHORT_OPTIONS.items() if name != positional and not is_leaf(model, name)}
        print(help_text(verb, model, f"fairlead {verb} {first} [--key value | key=value ...]", short))
        raise SystemExit(0)
    recipe, rest = split_recipe(words)
    if positional and rest and not rest[0].startswith("-") and ("=" not in rest[0] or Path(rest[0]).exists()):
        rest = [f"{positional}={rest[0]}", *rest[1:]]
    return load(model, recipe, rest)


def is_leaf(model: type[BaseModel], name: str) -> bool:
    """Whether a short name has no section of its name to stand for."""
    field = model.model_fields.get(name)
    return field is None or not isinstance(field.get_default(), BaseModel)


def split_recipe(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """A first word that ends in .yaml or .yml is the recipe."""
    if words and Path(words[0]).suffix in (".yaml", ".yml") and "=" not in words[0]:
        return Path(words[0]), list(words[1:])
    return None, list(words)


def take_flags(words: Sequence[str], known: Sequence[str]) -> tuple[set[str], list[str]]:
    """Split off switches without a value, such as --dry-run."""
    return {word for word in words if word in known}, [word for word in words if word not in known]


def required(value: str, option: str, fix: str) -> str:
    """A value that a verb cannot do without."""
    if not value:
        raise UserError(f"{option} is missing", where="command line", fix=fix)
    return value


def require_there(folder: Path) -> None:
    """A folder that the user named must be there."""
    if not folder.is_dir():
        raise UserError(
            "there is no such folder", where=str(folder), fix="check the path", exit_code=ExitCode.MISSING_INPUT
        )


def show_result(what: str, folder: Path, *next_commands: Sequence[object]) -> None:
    """Say where the results are and what can be done next; each command as the words after `fairlead`."""
    print(f"\n{what}: {folder}")
    report = folder / "report.html"
    if report.exists():
        print(f"  report: {report}")
    for number, command in enumerate(next_commands):
        print(("  next:   " if number == 0 else "          ") + command_line(*command))


def command_line(*words: object) -> str:
    """A command of ours that can be pasted into a shell."""
    return shlex.join(["fairlead", *map(str, words)])
