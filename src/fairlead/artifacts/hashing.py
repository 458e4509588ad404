"""Digests of files, folders and JSON values, and JSON that carries its own digest."""

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import orjson

from fairlead.errors import ExitCode, UserError

SEAL = "sealed_sha256"
_SEAL_VALUE = re.compile(rb'"sealed_sha256": "([0-9a-f]{64})"')


def canonical_json(value: Any) -> bytes:
    """One value, one spelling: UTF-8, sorted keys, no spaces.

    Raises ValueError that names the field for NaN and infinity (JSON has neither, and orjson would write null).
    """
    if field := _non_finite_field(value, ""):
        raise ValueError(f"{field} is not a finite number; JSON cannot hold it")
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _non_finite_field(value: Any, field: str) -> str:
    """The dotted name of the first NaN or infinity in `value`, or an empty string."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{field or 'the value'}={value}"
    if isinstance(value, dict):
        children = ((f"{field}.{key}" if field else str(key), child) for key, child in value.items())
    elif isinstance(value, list | tuple):
        children = ((f"{field}[{index}]", child) for index, child in enumerate(value))
    else:
        return ""
    return next((found for name, child in children if (found := _non_finite_field(child, name))), "")


def sha256_json(value: Any) -> str:
    """Digest of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """Digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(folder: Path) -> str:
    """Digest of the names and bytes of all files in a folder, at any depth.

    Hidden files and folders are left out: downloads keep clocks and states there.
    """
    names = [name for name in files_in(folder) if not any(part.startswith(".") for part in name.split("/"))]
    return sha256_json({name: sha256_file(folder / name) for name in names})


def files_in(folder: Path) -> list[str]:
    """Sorted names, relative to the folder and with `/`, of all files at any depth.

    Links to files are followed (the hub's cache is made of them). A link to a folder is refused: what is behind it
    would be part of the artifact today and gone tomorrow.
    """
    names: list[str] = []
    for entry in folder.iterdir():
        if not entry.is_dir():
            names.append(entry.name)
        elif entry.is_symlink():
            fix = f"replace {entry} with a copy of the folder it points to"
            raise UserError("a link to a folder is inside", where=str(entry), fix=fix, exit_code=ExitCode.BAD_DATA)
        else:
            names += [f"{entry.name}/{name}" for name in files_in(entry)]
    return sorted(names)


def sealed_json(value: dict[str, Any]) -> bytes:
    """Readable JSON with the digest of its own bytes, so that one flipped bit anywhere is found when it is read.

    The digest is taken while its own 64 characters are zeros, so reading does not depend on how numbers are spelled.
    """
    canonical_json(value)  # for its check of the numbers
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    blank = orjson.dumps({**value, SEAL: "0" * 64}, option=options)
    return _with_seal(blank, hashlib.sha256(blank).hexdigest().encode())


def open_sealed_json(path: Path) -> dict[str, Any]:
    """Read what `sealed_json` wrote. Raises UserError (65) when a byte differs, FileNotFoundError when it is absent."""
    raw = path.read_bytes()
    seals = _SEAL_VALUE.findall(raw)
    if len(seals) != 1:
        raise UserError(f"{path} is damaged: it carries no digest of itself", exit_code=ExitCode.BAD_DATA)
    want, got = seals[0].decode(), hashlib.sha256(_with_seal(raw, b"0" * 64)).hexdigest()
    if got != want:
        raise mismatch(path, want=want, got=got)
    value = orjson.loads(raw)
    del value[SEAL]
    return value


def _with_seal(raw: bytes, digest: bytes) -> bytes:
    return _SEAL_VALUE.sub(b'"%s": "%s"' % (SEAL.encode(), digest), raw)


def mismatch(path: Path, *, want: str, got: str) -> UserError:
    """The error for bytes that are not the ones that were written."""
    what = f"sha256 mismatch in {path} (want {want[:12]}.. got {got[:12]}..)"
    fix = "the file was changed or damaged after it was written: restore a copy, or delete its folder and run again"
    return UserError(what, fix=fix, exit_code=ExitCode.BAD_DATA)
