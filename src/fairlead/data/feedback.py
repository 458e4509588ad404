"""Labels of a store as files of rows: `feedback:STORE` where rows are asked for. No torch here.

What the store holds now is written once, under the digest of its rows, so that a stage which goes on later finds the
same rows or is refused by name. `until=` in the address names a state of the store for ever.
"""

from pathlib import Path

import orjson

from fairlead.artifacts.atomic import write_bytes
from fairlead.artifacts.hashing import sha256_json
from fairlead.config.common import RowKind
from fairlead.errors import ExitCode, UserError
from fairlead.feedback import PREFIX
from fairlead.feedback.rows import address_and_choice, rows_of
from fairlead.feedback.store import open_store


def feedback_path(address: str, cache: Path, kind: RowKind | None) -> Path:
    """The file of the rows that this address names now. Raises UserError as `open_store`, and 66 for no rows."""
    if kind is None:
        raise UserError(
            "a store holds rows of several kinds", where=address, want="a command that asks for one of them",
            fix=f"fairlead feedback export {address.removeprefix(PREFIX)}, then name the file",
        )  # fmt: skip
    where, choice = address_and_choice(address)
    store = open_store(where)
    try:
        rows = list(rows_of(store, kind, choice))
    finally:
        store.close()
    if not rows:
        raise UserError(
            f"this store holds no {kind} yet", where=address, fix="let people label, or choose less narrowly",
            exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip
    path = cache / "feedback" / f"{kind}-{sha256_json(rows)[:16]}.jsonl"
    if not path.exists():
        write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path
