"""What a model folder must look like before anything parses it.

Loaders have run code from plain configuration files (CVE-2026-4372, CVE-2026-5241) and from weights (CVE-2025-32434).
So a folder passes an allow-list first: JSON and safetensors, no code, no names of code, sizes that fit the files.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from fairlead.artifacts.hashing import files_in
from fairlead.errors import ExitCode, UserError

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
WEIGHTS, INDEX, ADAPTER_WEIGHTS = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CHECKED_JSON = (CONFIG, ADAPTER_CONFIG, "tokenizer_config.json", "generation_config.json")
_PARSED = (".json", ".safetensors", ".model", ".txt", ".jinja")
_LFS = b"version https://git-lfs.github.com/spec"
# Bits of one element, of the dtypes that safetensors 0.8 knows.
_DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that may be handed to a loader."""

    path: Path
    kind: Literal["base", "adapter"]
    config: dict[str, Any]
    """config.json, or adapter_config.json of an adapter."""
    weights: tuple[str, ...]
    """Names of the safetensors files that hold the weights."""
    size_bytes: int
    """Bytes of weights."""


def may_be_hub_id(name: str) -> bool:
    """Whether a name that is no folder can be asked for at the hub: `owner/name`."""
    return name.count("/") == 1 and not name.startswith((".", "~", "/")) and not name.endswith("/")


def check_model_folder(folder: Path) -> ModelFolder:
    """Facts of a model or adapter folder that is safe to parse.

    Raises UserError: 66 when it or a file of it is missing, 65 for content that cannot be used, 2 for another kind of
    thing.
    """
    if not folder.exists():
        fix = "give a folder with config.json and *.safetensors, a starter name, or a hub id"
        raise UserError(f"there is no model at {folder}", fix=fix, exit_code=ExitCode.MISSING_INPUT)
    if not folder.is_dir():
        raise UserError(
            f"{folder} is a file", want="a model folder", fix="give a folder with config.json and *.safetensors"
        )
    kind = "adapter" if (folder / ADAPTER_CONFIG).is_file() else "base"
    config_path = folder / (ADAPTER_CONFIG if kind == "adapter" else CONFIG)
    if not config_path.is_file():
        raise _no_config(folder)
    _refuse_code(folder)
    _refuse_placeholders(folder)
    for name in _CHECKED_JSON:
        if (folder / name).is_file():
            _refuse_names_of_code(folder / name, _json(folder / name))
    config = _json(config_path)
    key = "peft_type" if kind == "adapter" else "model_type"
    if not isinstance(config.get(key), str):
        fix = "give a folder that transformers or PEFT saved"
        raise _bad(f"{config_path} names no {key}", fix=fix)
    weights = _weights(folder, kind)
    size_bytes = sum((folder / name).stat().st_size for name in weights)
    return ModelFolder(folder, kind, config, weights, size_bytes)


def _bad(what: str, *, fix: str) -> UserError:
    return UserError(what, fix=fix, exit_code=ExitCode.BAD_DATA)


def _no_config(folder: Path) -> UserError:
    if (folder / "model" / CONFIG).is_file() or (folder / "model" / ADAPTER_CONFIG).is_file():
        return UserError(f"{folder} is a stage, its model is one folder below", fix=f"give {folder / 'model'}")
    fix = "download the whole folder; it needs config.json and *.safetensors"
    return UserError(f"{folder} has no {CONFIG}", fix=fix, exit_code=ExitCode.MISSING_INPUT)


def _refuse_code(folder: Path) -> None:
    for name in files_in(folder):
        if name.endswith((".py", ".pyc", ".so")):
            fix = "fairlead never runs code of a model; use a model whose architecture is part of transformers"
            raise _bad(f"{folder / name} is code inside a model folder", fix=fix)


def _refuse_placeholders(folder: Path) -> None:
    """Downloads that left a pointer or an error page where a file should be."""
    for path in sorted(folder.iterdir()):
        if path.suffix not in _PARSED or not path.is_file():
            continue
        with path.open("rb") as file:
            start = file.read(256).lstrip().lower()
        if start.startswith(_LFS):
            raise _bad(f"{path} is a Git-LFS pointer, not the file itself", fix=f"git -C {folder} lfs pull")
        if start.startswith((b"<!doctype html", b"<html")):
            raise _bad(f"{path} is a web page, not the file itself", fix="download the file again")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise _bad(f"{path} is not JSON ({error})", fix="download the file again") from None
    if not isinstance(value, dict):
        raise _bad(f"{path} is not a JSON object", fix="download the file again")
    return value


def _refuse_names_of_code(path: Path, config: dict[str, Any]) -> None:
    """Keys that make a loader import code, at any depth."""
    for key, value in _entries(config):
        # Older transformers wrote `_attn_implementation_autoset: true`: a flag names no code.
        names_kernel = key.startswith("_attn_implementation") and not isinstance(value, bool | None)
        parent = value.get("parent_library") if key == "auto_mapping" and isinstance(value, dict) else None
        foreign = parent is not None and not str(parent).startswith("transformers.")
        if (key == "auto_map" and value) or names_kernel or foreign:
            fix = f"delete the key if you trust the model without it, or use one that is part of transformers: {key}"
            raise _bad(f"{path} names code to run: {key}={value}", fix=fix)


def _entries(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth; a stack, because a file may nest deeper than Python calls."""
    stack: list[Any] = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield from value.items()
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def _weights(folder: Path, kind: Literal["base", "adapter"]) -> tuple[str, ...]:
    """Names of the weight files, each with a header that fits it."""
    single = ADAPTER_WEIGHTS if kind == "adapter" else WEIGHTS
    if (folder / single).is_file():
        _tensor_names(folder / single)
        return (single,)
    if kind == "base" and (folder / INDEX).is_file():
        return _shards(folder)
    found = sorted(path.name for path in folder.iterdir())
    if pickles := [name for name in found if name.endswith(_PICKLES)]:
        fix = (
            "where foreign code can do no harm, load it with transformers (or PEFT) and call "
            f"save_pretrained('{folder.name}-safe'), which writes safetensors; then give that folder"
        )
        raise _bad(f"{folder / pickles[0]} is a pickle, which can run any code when read; want *.safetensors", fix=fix)
    shards = [name for name in found if name.endswith(".safetensors")]
    what = f"{folder} has shards but no {INDEX}" if shards else f"{folder} has no weights: {single} is missing"
    raise UserError(what, fix="download the whole folder again", exit_code=ExitCode.MISSING_INPUT)


def _shards(folder: Path) -> tuple[str, ...]:
    index = _json(folder / INDEX).get("weight_map")
    again = "download the file again"
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise _bad(f"{folder / INDEX} has no weight_map", fix=again)
    names = tuple(sorted(set(index.values())))
    for name in names:
        if "/" in name or not name.endswith(".safetensors"):
            raise _bad(f"{folder / INDEX} names {name}; want a *.safetensors file of the same folder", fix=again)
        if not (folder / name).is_file():
            what = f"{folder / name} is missing; {INDEX} names it"
            raise UserError(what, fix=f"download {name} again", exit_code=ExitCode.MISSING_INPUT)
        if lost := {tensor for tensor, place in index.items() if place == name} - _tensor_names(folder / name):
            raise _bad(f"{folder / name} lacks {min(lost)}, which {INDEX} places there", fix=f"download {name} again")
    return names


def _tensor_names(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file, each inside the file and as long as its shape says."""
    again = "download the file again"
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if size_bytes < 8 or header_bytes > min(MAX_HEADER_BYTES, size_bytes - 8):
            what = f"{path} is not safetensors: a header of {header_bytes} bytes in a file of {size_bytes}"
            raise _bad(what, fix=again)
        raw = file.read(header_bytes)
    try:
        header = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _bad(f"{path} is not safetensors: its header is not JSON ({error})", fix=again) from None
    if not isinstance(header, dict):
        raise _bad(f"{path} is not safetensors: its header is no object", fix=again)
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in tensors.items():
        if not _fits(entry, size_bytes - 8 - header_bytes):
            raise _bad(f"{path} is cut off or damaged: {name} does not fit it ({entry})", fix=again)
    return set(tensors)


def _fits(entry: Any, data_bytes: int) -> bool:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            counts = all(isinstance(length, int) and length >= 0 for length in shape)
            known = dtype in _DTYPE_BITS and counts and 0 <= begin <= end <= data_bytes
            return known and (end - begin) * 8 == math.prod(shape) * _DTYPE_BITS[dtype]
        case _:
            return False
