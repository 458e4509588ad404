"""Datasets of a hub, by the addresses that huggingface_hub gives them: `hf://datasets/OWNER/NAME`. No torch here."""

import re
from pathlib import Path
from urllib.parse import unquote

from fairlead.errors import ExitCode, UserError

HUB = "hf://"
_ADDRESS = re.compile(r"hf://datasets/(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<path>.+))?")
_FORM = "hf://datasets/OWNER/NAME, with @REVISION and /FOLDER/FILE where wanted"


def hub_path(address: str) -> Path:
    """The folder or file in the hub's cache (HF_HOME), fetched where it is not there; only files of rows are fetched.

    HF_ENDPOINT and HF_HUB_OFFLINE are honoured. Raises UserError: 2 for another form of address, 66 where it cannot be
    had.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415  it takes its time, and few need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UserError("this is no address of a dataset", got=address, want=_FORM, fix="write it like this")
    inside = found["path"]
    wanted = [inside, *(f"{inside}/{pattern}" for pattern in _patterns())] if inside else _patterns()
    revision = unquote(found["revision"]) if found["revision"] else None
    try:
        folder = snapshot_download(found["id"], repo_type="dataset", revision=revision, allow_patterns=wanted)
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise UserError(
            "the hub's dataset could not be had", where=address, got="no answer, or none with this name",
            want="a reachable hub, or the dataset in HF_HOME", fix="check the address, or name a file on disk",
            exit_code=ExitCode.MISSING_INPUT,
        ) from error  # fmt: skip
    path = Path(folder, inside or "")
    if not path.exists():
        raise UserError(
            "the dataset has no such file", where=address, fix="look at its files in the hub",
            exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip
    return path


def _patterns() -> list[str]:
    """Files of rows; plain texts among them are notes and licences."""
    from fairlead.data.sources import SUFFIXES  # noqa: PLC0415  pyarrow, which looking for starter rows does without
    from fairlead.data.streams import ARCHIVE, COMPRESSIONS  # noqa: PLC0415

    suffixes = [suffix for suffix in SUFFIXES if suffix != ".txt"]
    return [f"*{suffix}{packed}" for suffix in suffixes for packed in ("", *COMPRESSIONS)] + [f"*{ARCHIVE}"]
