"""The labels of a store become a dataset: a folder with a file for each kind of rows, and a manifest of its lineage."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import orjson

from fairlead.artifacts.atomic import new_folder, write_bytes, write_pieces
from fairlead.artifacts.hashing import sha256_file
from fairlead.artifacts.manifest import Manifest, package_versions, write_manifest
from fairlead.config.common import RowKind
from fairlead.data.parquet_rows import parquet_pieces
from fairlead.errors import ExitCode, UserError
from fairlead.feedback import PREFIX
from fairlead.feedback.rows import address_and_choice, rows_of, state_of
from fairlead.feedback.store import open_store

_COLUMNS = {
    "conversations": ("messages", "source"),
    "preferences": ("prompt", "responses", "scores", "source"),
    "judgements": ("prompt", "responses", "desirable", "source"),
    "prompts": ("messages", "source"),
}


@dataclass(frozen=True)
class Exported:
    """What was written: `address` names the same rows for ever."""

    address: str
    rows: dict[RowKind, int]
    files: dict[RowKind, str]


def export(address: str, folder: Path, *, parquet: bool) -> Exported:
    """Write what the address names into a new folder; kinds without rows get no file. UserError (66) for none."""
    began = time.monotonic()
    where, choice = address_and_choice(address)
    store = open_store(where)
    try:
        if choice.until is None:
            state = "-".join(map(str, state_of(store)))
            address = f"{address}{'&' if '?' in address else '?'}until={state}"
            _, choice = address_and_choice(address)
        found = {kind: [orjson.dumps(row) for row in rows_of(store, kind, choice)] for kind in get_args(RowKind)}
    finally:
        store.close()
    address = PREFIX + address.removeprefix(PREFIX)
    rows = {kind: len(lines) for kind, lines in found.items() if lines}
    if not rows:
        raise UserError(
            "this store holds no labels yet", where=address, fix="let people label, or choose less narrowly",
            exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip
    files: dict[RowKind, str] = {kind: f"{kind}.{'parquet' if parquet else 'jsonl'}" for kind in rows}
    with new_folder(folder) as new:
        for kind, name in files.items():
            if parquet:
                write_pieces(new / name, parquet_pieces(found[kind], _COLUMNS[kind]))
            else:
                write_bytes(new / name, b"".join(line + b"\n" for line in found[kind]))
        digests = {name: sha256_file(new / name) for name in files.values()}
        write_manifest(new, Manifest(
            kind="dataset", stage="feedback", config={"address": address}, data_digests=digests,
            facts={"address": address, "sizes": {"rows": sum(rows.values())}, "rows": dict(rows)}, seed=0,
            wall_seconds=time.monotonic() - began, versions=package_versions(),
        ))  # fmt: skip
    return Exported(address, rows, files)
