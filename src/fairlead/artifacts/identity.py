"""What makes a folder the same stage next time: its options, its parents and its rows, kept in `stage.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from fairlead.artifacts.atomic import write_json
from fairlead.errors import UserError

IDENTITY_NAME = "stage.json"


def check_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Note what the stage is at its first beginning; later raise UserError (2) naming every option that changed."""
    path = folder / IDENTITY_NAME
    if not path.is_file():
        write_json(path, identity)
        return
    changed = _differences(orjson.loads(path.read_bytes()), orjson.loads(orjson.dumps(identity)))
    if changed:
        more = f" (and {len(changed) - 5} more)" if len(changed) > 5 else ""
        raise UserError(
            f"this stage was begun with other options or inputs: {'; '.join(changed[:5])}{more}", where=str(folder),
            fix="give the options it was begun with, or another --output",
        )  # fmt: skip


def files_by_name(digests: Mapping[str, str]) -> dict[str, str]:
    """The digest of each file by its name alone: what rows are does not depend on where they lie."""
    found: dict[str, list[str]] = {}
    for path, digest in sorted(digests.items()):
        found.setdefault(Path(path).name, []).append(digest)
    return {name: " ".join(sorted(several)) for name, several in found.items()}


def inside_run(value: Any, run: Path) -> Any:
    """The same value with every path into the run written from the run, so that a moved run stays what it is."""
    match value:
        case dict():
            return {inside_run(key, run): inside_run(item, run) for key, item in value.items()}
        case list() | tuple():
            return [inside_run(item, run) for item in value]
        case str() if value.startswith(f"{run}/"):
            return "." + value.removeprefix(str(run))
    return value


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [text for key in keys for text in _differences(before.get(key), now.get(key), f"{path}.{key}")]
    if before == now:
        return []
    return [f"{path.lstrip('.').removeprefix('config.')} {_short(before)} -> {_short(now)}"]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12] + ".."
