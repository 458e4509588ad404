"""Recipe and command line to one checked configuration.

A recipe is YAML 1.2 (`1e-5` is a number, `no` is a string, a key stands once). Every mistake ends in one UserError that
names the file with its line, or the command line, and the dotted path of the option.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fairlead.config.document import is_list, option_groups, options, section_of, show_value
from fairlead.config.journey import STAGES
from fairlead.errors import ExitCode, UserError

Model = TypeVar("Model", bound=BaseModel)
Keys = tuple[str | int, ...]

SHORT_OPTIONS = {"data": "data.train", "model": "model.name"}
"""`--data X` is `--data.train X`, wherever `data` is a section; in a journey also `--sft.data X`."""

_FOREIGN_NAMES = {
    "learning_rate": "optim.lr",
    "lr_scheduler_type": "optim.schedule",
    "epochs": "num_epochs",
    "num_train_epochs": "num_epochs",
    "batch_size": "batch.rows",
    "per_device_train_batch_size": "batch.rows",
    "model_name_or_path": "model.name",
    "dataset": "data.train",
    "max_seq_length": "data.max_length",
    "cutoff_len": "data.max_length",
    "output_dir": "output",
    "lora_rank": "model.lora.rank",
    "lora_alpha": "model.lora.alpha",
    "kl_coef": "kl.coef",
}
"""What other projects call our options: only for the hint, never accepted."""

_PLAIN = {"tuple_type": "a list", "model_type": "a section of options", "bool_type": "true or false"}
"""Python's names of types, in the user's words."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The values of a recipe with the place of each key: `recipe.yaml:12`, or `command line`.

    `empty` holds the keys with nothing behind the colon, which YAML cannot tell from `null`: a section written so takes
    its defaults.
    """

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, str] = field(default_factory=dict)
    name: str = "configuration"
    empty: set[Keys] = field(default_factory=set)

    def place(self, keys: Keys) -> str:
        """Where the key, or the nearest parent that was written, stands."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places.get(keys, self.name)


def load(model_class: type[Model], recipe: Path | None, overrides: Sequence[str]) -> Model:
    """Read a recipe, if any, lay the command line over it and check the whole.

    overrides: `optim.lr=1e-5`, `--optim.lr=1e-5` or `--optim.lr` `1e-5`, in any mixture; the later wins, but a list
    option that is repeated collects its values.
    Raises UserError: exit 66 for a recipe that is not there, 2 for anything in it that cannot be used.
    """
    read = read_recipe(recipe) if recipe is not None else Recipe()
    return check(model_class, with_overrides(model_class, read, overrides))


def parse_mapping(model_class: type[Model], mapping: Mapping[str, Any], where: str) -> Model:
    """Check values that were already read, e.g. one stage of a journey; `where` heads the messages."""
    return check(model_class, Recipe(dict(mapping), name=where))


def check(model_class: type[Model], recipe: Recipe) -> Model:
    """Values to a configuration; the first mistake, in the order of the code, becomes the UserError."""
    values = _lists_for_single_values(model_class, recipe.values)
    try:
        return model_class.model_validate(values)
    except ValidationError as problem:
        # An unknown key is often the cause of the other mistakes, so it is told first.
        details = sorted(problem.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise _explain(model_class, recipe, details[0], len(details) - 1) from None


def read_recipe(path: Path) -> Recipe:
    """Read a YAML file with the line of every key. Nothing is checked but the syntax."""
    text = _read_text(path)
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        values = _copy(YAML(typ="safe", pure=True).load(text))
    except MarkedYAMLError as problem:
        raise _syntax_error(path, problem) from None
    except (YAMLError, RecursionError) as problem:
        raise UserError(
            "this cannot be read as YAML",
            where=str(path),
            got=str(problem).partition("\n")[0],
            fix="see recipes/ for examples",
        ) from None
    if values is None:
        return Recipe(name=str(path))
    if not isinstance(values, dict):
        raise UserError(
            "a recipe is a mapping of options",
            where=f"{path}:1",
            got=type(values).__name__,
            want="lines such as `num_epochs: 2`",
            fix="see recipes/ for examples",
        )
    recipe = Recipe(values, name=str(path))
    _note_lines(recipe, root, (), set())
    return recipe


def with_overrides(model_class: type[BaseModel], recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Lay the options of the command line over a recipe; the recipe itself stays as it is."""
    values, places = _copy(recipe.values), dict(recipe.places)
    for keys in recipe.empty:
        if section_of(_annotation(model_class, keys)) is not None:
            _parent(values, keys)[keys[-1]] = {}
    given: set[Keys] = set()
    for written, text in _split_overrides(model_class, overrides):
        keys = _resolve(model_class, written)
        annotation = _annotation(model_class, keys)
        value = _parse_value(annotation, text, written)
        section = _parent(values, keys)
        if not isinstance(section, dict):
            raise UserError(
                f"{'.'.join(keys[:-1])} is no section in the recipe, so {written} cannot be set",
                where=recipe.place(keys),
                fix=f"write {'.'.join(keys[:-1])} as a mapping",
            )
        repeated = keys in given and isinstance(value, list)
        section[keys[-1]] = section[keys[-1]] + value if repeated else value
        given.add(keys)
        places = {k: v for k, v in places.items() if k[: len(keys)] != keys} | {keys: "command line"}
    return Recipe(values, places, recipe.name)


def _split_overrides(model_class: type[BaseModel], tokens: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Command-line words to (option as written, value)."""
    has_data = "data" in model_class.model_fields
    waiting = iter(tokens)
    for token in waiting:
        name, equals, value = token.partition("=")
        if not equals:
            if not token.startswith("--"):
                raise UserError(
                    f"{token!r} is neither an option nor a value of one",
                    where="command line",
                    want="key=value or --key value",
                    fix=f"write the option's name before it: {'--data' if has_data else '--OPTION'} {token}",
                )
            value = next(waiting, "--")
            if value.startswith("--"):
                written = token.removeprefix("--").replace("-", "_")
                _resolve(model_class, written)  # a name that is no option is the mistake to tell
                raise UserError(f"{token} has no value", where="command line", fix=f"write {token}=VALUE")
        yield name.removeprefix("--").replace("-", "_"), value


def did_you_mean(model_class: type[BaseModel], word: str) -> str:
    """The nearest option or section, or an empty string; `lr` and `learning_rate` are near to `optim.lr`."""
    known = [option.path for option in options(model_class)]
    known += [group.path for group in option_groups(model_class) if group.path]
    names = {alias: name for alias, name in _FOREIGN_NAMES.items() if name in known}
    names |= {name.rpartition(".")[2]: name for name in reversed(known)} | {name: name for name in known}
    for attempt in (word, word.rpartition(".")[2]):
        near = difflib.get_close_matches(attempt, names, n=1, cutoff=0.7)
        if near:
            return names[near[0]]
    return ""


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise UserError(
            "this recipe does not exist",
            where=str(path),
            fix="check the path",
            exit_code=ExitCode.MISSING_INPUT,
        ) from None
    except IsADirectoryError:
        raise UserError(
            "a recipe is a file", where=str(path), got="a folder", fix="name the .yaml file in it"
        ) from None
    except UnicodeDecodeError as problem:
        raise UserError(
            "this recipe is not UTF-8 text", where=str(path), got=f"byte {problem.start}", fix="save it as UTF-8"
        ) from None


def _syntax_error(path: Path, problem: MarkedYAMLError) -> UserError:
    mark = problem.problem_mark or problem.context_mark
    where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    snippet = mark.get_snippet() if mark else None
    what = (problem.problem or problem.context or "this is not YAML").strip()
    if "duplicate key" in what:
        fix = "keep one of the two"
    elif "\\t" in what:
        fix = "indent with spaces, not tabs"
    elif "constructor" in what:
        fix = "remove the tag: recipes hold plain values"
    else:
        fix = "mend the line; strings with : or # in them need quotes"
    return UserError(f"{what}\n{snippet}" if snippet else what, where=where, fix=fix)


def _note_lines(recipe: Recipe, node: Node | None, keys: Keys, seen: set[int]) -> None:
    """Fill in the place of every key below a node."""
    if node is None or id(node) in seen:  # an alias: the first place is the one to mend
        return
    seen.add(id(node))
    match node:
        case MappingNode():
            for key, value in node.value:
                recipe.places[*keys, str(key.value)] = f"{recipe.name}:{key.start_mark.line + 1}"
                _note_lines(recipe, value, (*keys, str(key.value)), seen)
        case SequenceNode():
            for index, value in enumerate(node.value):
                recipe.places[*keys, index] = f"{recipe.name}:{value.start_mark.line + 1}"
                _note_lines(recipe, value, (*keys, index), seen)
        case ScalarNode(value="", style=None):
            recipe.empty.add(keys)
        case _:
            pass


def _parent(values: Any, keys: Keys) -> Any:
    """The section that holds a key, made where there is none; something else where the recipe wrote something else."""
    for key in keys[:-1]:
        if not isinstance(values, dict):
            return None
        if values.get(key) is None:
            values[key] = {}
        values = values[key]
    return values


def _resolve(model_class: type[BaseModel], written: str) -> tuple[str, ...]:
    """A written option to its keys; unknown ones are refused with the nearest name."""
    keys = tuple(written.split("."))
    if keys[-1] in SHORT_OPTIONS and section_of(_annotation(model_class, keys)) is not None:
        keys = (*keys[:-1], *SHORT_OPTIONS[keys[-1]].split("."))
    if _annotation(model_class, keys) is None:
        near = did_you_mean(model_class, written)
        raise UserError(
            f"unknown option {written}",
            where="command line",
            fix=f"did you mean {near}?" if near else "--help lists all options",
        )
    return keys


def _annotation(model_class: type[BaseModel], keys: Keys) -> Any:
    """The type of an option, None when there is no such option. Inside a free mapping everything is allowed."""
    section: type[BaseModel] = model_class
    for depth, key in enumerate(keys):
        if key not in section.model_fields:
            return None
        annotation = section.model_fields[key].annotation
        inner = section_of(annotation)
        if depth == len(keys) - 1:
            return annotation
        if inner is None:
            return Any if getattr(annotation, "__origin__", annotation) in (dict, Any) else None
        section = inner
    return None


def _parse_value(annotation: Any, text: str, written: str) -> Any:
    """A word of the command line as YAML would read it, except that text stays text (`--model 007`)."""
    if annotation is str:
        return text[1:-1] if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] else text
    if is_list(annotation) and not text.startswith("["):
        return [part for part in text.split(",") if part]
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError):
        raise UserError(
            f"{written} cannot be read as YAML", where="command line", got=text, fix="quote it for your shell"
        ) from None


def _lists_for_single_values(model_class: type[BaseModel], values: Any) -> Any:
    """`train: a.jsonl` is read as `train: [a.jsonl]`."""
    if not isinstance(values, dict):
        return values
    result = dict(values)
    for name, field_info in model_class.model_fields.items():
        value = result.get(name)
        section = section_of(field_info.annotation)
        if section is not None:
            result[name] = _lists_for_single_values(section, value) if name in result else None
            if name not in values:
                del result[name]
        elif is_list(field_info.annotation) and isinstance(value, str):
            result[name] = [value]
    return result


def _explain(model_class: type[BaseModel], recipe: Recipe, detail: ErrorDetails, others: int) -> UserError:
    keys: Keys = tuple(detail["loc"])
    path = ".".join(str(key) for key in keys)
    where = recipe.place(keys)
    more = f" ({others} more after this one)" if others else ""
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return cause
    if isinstance(cause, ValueError):  # one field against another: the validator's own words
        what, _, fix = str(cause).rpartition("; ")
        return UserError(what or fix, where=where, fix=fix if what else "")
    if detail["type"] == "extra_forbidden":
        near = did_you_mean(model_class, path)
        fix = f"did you mean {near}?" if near else "see docs/options.md or --help for all options"
        if path in STAGES:
            fix = f"a recipe with stages is a journey: fairlead run {recipe.name}"
        return UserError(f"unknown option {path}{more}", where=where, fix=fix)
    if detail["type"] == "missing":
        return UserError(f"{path} is missing{more}", where=where, fix=f"add {path}")
    default = next((option.default for option in options(model_class) if option.path == path), "")
    return UserError(
        f"{path} cannot be used{more}",
        where=where,
        got=show_value(detail["input"]),
        want=_PLAIN.get(detail["type"], detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")),
        fix=f"change {path}" + (f", or remove it to take the default {default}" if default else ""),
    )


def _copy(values: Any) -> Any:
    """A deep copy of the containers, aliases resolved; one that contains itself ends in RecursionError."""
    match values:
        case dict():
            return {key: _copy(value) for key, value in values.items()}
        case list():
            return [_copy(value) for value in values]
        case _:
            return values
