"""The options of a configuration as a flat list, for `--help`, docs/options.md and the did-you-mean of parse.py."""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_TYPE_NAMES = {int: "integer", float: "number", bool: "true | false", str: "text", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Option:
    """One leaf of a configuration: `path` is dotted, `kind` names type and range, `default` is as written in YAML."""

    path: str
    kind: str
    default: str
    help: str


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """The options of one section, in the order of the code; `path` is empty for the top."""

    path: str
    help: str
    options: tuple[Option, ...]


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field's annotation names, also as `Section | None`; None for a leaf."""
    candidates = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def is_list(annotation: Any) -> bool:
    """Whether a field takes several values."""
    return get_origin(annotation) in (tuple, list)


def option_groups(model: type[BaseModel], path: str = "", help_text: str = "") -> Iterator[OptionGroup]:
    """The sections of a configuration, parents before children."""
    leaves, sections = [], []
    for name, field in model.model_fields.items():
        dotted = f"{path}.{name}" if path else name
        section = section_of(field.annotation)
        if section is None:
            leaves.append(Option(dotted, _kind(field), show_value(field.get_default()), field.description or ""))
        else:
            sections.append((section, dotted, field))
    # A section may be given defaults of its own where it is used, so they are read from the instance.
    if leaves:
        yield OptionGroup(path, help_text or _first_line(model), tuple(leaves))
    for section, dotted, field in sections:
        yield from _with_defaults(option_groups(section, dotted, field.description or ""), dotted, field.get_default())


def options(model: type[BaseModel]) -> list[Option]:
    """All leaves of a configuration, in the order of the code."""
    return [option for group in option_groups(model) for option in group.options]


def show_value(value: Any) -> str:
    """A default as it would be written in a recipe."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return "[" + ", ".join(show_value(item) for item in value) + "]"
        case str():
            return value or '""'
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def help_text(verb: str, model: type[BaseModel], usage: str, short: dict[str, str]) -> str:
    """The page of `fairlead VERB --help`: every option with its default, type, range and docstring."""
    lines = [f"fairlead {verb}: {_first_line(model)}", "", f"Usage: {usage}", ""]
    groups = list(option_groups(model))
    named = {option.path for group in groups for option in group.options}
    name, value = ("optim.lr", "1e-5") if "optim.lr" in named else ("sampling.temperature", "0.7")
    lines += [
        f"Options are written `--{name} {value}`, `--{name}={value}` or `{name}={value}`; they win over the recipe.",
        "Lists are written `a,b` or `[a, b]`.",
    ]
    if short:
        lines.append("Short: " + ", ".join(f"--{name} for --{path}" for name, path in short.items()) + ".")
    for group in groups:
        lines += ["", f"{group.path}: {group.help}" if group.path else "General"]
        for option in group.options:
            lines.append(f"  --{option.path}  <{option.kind}>  default {option.default}")
            lines.append(f"      {option.help}")
    return "\n".join(lines)


def options_page(models: dict[str, type[BaseModel]]) -> str:
    """docs/options.md: a table per section for each verb. Sections that verbs share are printed once."""
    seen: dict[tuple[str, tuple[Option, ...]], str] = {}
    parts = [
        "# Options",
        "",
        "Generated from `src/fairlead/config/` by `make docs`; edit the docstrings there.",
        "Each option is a key of a recipe (`optim: {lr: 1e-5}`) and of the command line (`--optim.lr 1e-5` or",
        "`optim.lr=1e-5`).",
    ]
    for verb, model in models.items():
        parts += ["", f"## fairlead {verb}", "", _first_line(model)]
        for group in option_groups(model):
            title = group.path or "General"
            if group.path.partition(".")[0] in models:  # a journey's stage has the options of its verb
                if group.path in models:
                    parts += ["", f"`{title}`: the options of `fairlead {title}`. {group.help}"]
                continue
            key = (group.path, group.options)
            if group.path and key in seen:
                parts += ["", f"`{title}`: as for `{seen[key]}`."]
                continue
            seen[key] = verb
            parts += ["", f"### {verb}: {title}", "", *([group.help, ""] if group.path else [])]
            parts += ["| option | type | default | meaning |", "|---|---|---|---|"]
            parts += [
                f"| `{option.path}` | {_cell(option.kind)} | `{option.default}` | {_cell(option.help)} |"
                for option in group.options
            ]
    return "\n".join(parts) + "\n"


def _with_defaults(groups: Iterator[OptionGroup], root: str, instance: Any) -> Iterator[OptionGroup]:
    for group in groups:
        section = instance
        for name in group.path.removeprefix(root).strip(".").split(".") if group.path != root else ():
            section = getattr(section, name, None)
        if section is None:
            yield group
            continue
        options = tuple(
            Option(o.path, o.kind, show_value(getattr(section, o.path.rpartition(".")[2])), o.help)
            for o in group.options
        )
        yield OptionGroup(group.path, group.help, options)


def _kind(field: FieldInfo) -> str:
    parts = [_type_name(field.annotation)]
    for bound in field.metadata:
        match bound:
            case annotated_types.Gt(gt=limit):
                parts.append(f"> {limit}")
            case annotated_types.Ge(ge=limit):
                parts.append(f">= {limit}")
            case annotated_types.Lt(lt=limit):
                parts.append(f"< {limit}")
            case annotated_types.Le(le=limit):
                parts.append(f"<= {limit}")
            case _:
                pass
    return ", ".join(parts)


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(str(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(_type_name(argument) for argument in arguments)
    if origin in (tuple, list):
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return "mapping"
    return _TYPE_NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0] if model.__doc__ else ""
