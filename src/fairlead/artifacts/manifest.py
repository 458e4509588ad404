"""The manifest of an artifact: what it is, what it was made from, and the digest of every file in it."""

import platform
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fairlead.artifacts.atomic import explain_disk_errors, fsync_tree, write_bytes
from fairlead.artifacts.hashing import files_in, mismatch, open_sealed_json, sealed_json, sha256_file, sha256_json
from fairlead.artifacts.identity import IDENTITY_NAME
from fairlead.artifacts.lock import LOCK_NAME
from fairlead.errors import ExitCode, UserError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1

Kind = Literal["dataset", "policy", "reward", "critic", "report"]
KIND_NAMES: dict[Kind, str] = {
    "dataset": "a dataset",
    "policy": "a policy",
    "reward": "a reward model",
    "critic": "a critic",
    "report": "a report",
}
_MADE_BY: dict[Kind, str] = {
    "dataset": "a data step of `fairlead run`",
    "policy": "`fairlead sft`, `dpo`, `kto`, `grpo` or `ppo`",
    "reward": "`fairlead reward`",
    "critic": "`fairlead ppo`",
    "report": "`fairlead eval`",
}
# Top-level files that hold clock figures or names of folders, or are drawn from other files: they never decide if two
# artifacts are equal.
CLOCK_FILES = ("timings.jsonl", "report.html", "README.md", "evaluation.json", "stage.json")
# Not part of the artifact: the manifest itself, the lock, the rows set aside (written before the folder is locked), and
# what `fairlead clean` may delete.
_NOT_LISTED = (MANIFEST_NAME, LOCK_NAME, "rejects.jsonl")
_CHECKPOINTS = "checkpoints/"


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class FileFacts(_Closed):
    """What a file must look like."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Parent(_Closed):
    """An artifact that this one was made from."""

    path: str
    digest: str


class BaseWeights(_Closed):
    """The untouched weights below the adapters."""

    name: str
    """Starter name, hub id or folder."""
    digest: str = ""
    """sha256 of the folder, see `sha256_folder`."""
    revision: str = ""
    """Commit of a hub id."""


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name} leads out of the folder")
    return name


RelativeName = Annotated[str, AfterValidator(_inside)]


class Manifest(_Closed):
    """Everything that is needed to trust an artifact and to make it again."""

    kind: Kind
    stage: str
    """Name of the stage that made it: sft, reward, dpo, kto, ppo, eval ..."""
    format_version: int = FORMAT_VERSION
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """UTC, ISO 8601."""
    files: dict[RelativeName, FileFacts] = {}
    """Every file by its relative path; filled in by `write_manifest`."""
    parents: dict[str, Parent] = {}
    """By role: policy, reference, reward, dataset ..."""
    config: dict[str, Any] = {}
    """The resolved options of the stage."""
    config_digest: str = ""
    """sha256_json of config; filled in by `write_manifest`."""
    data_digests: dict[str, str] = {}
    """sha256 of each file of rows, by the path it was read from."""
    base: BaseWeights | None = None
    versions: dict[str, str] = {}
    """See `package_versions`."""
    num_threads: int = 0
    world_size: int = 1
    seed: int = 0
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    facts: dict[str, Any] = {}
    """Small JSON values for the next stage, such as `score_at`."""


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Make the files of a folder durable, then write their digests. The artifact is finished once this returns."""
    with explain_disk_errors(folder):
        fsync_tree(folder)
    names = [name for name in files_in(folder) if name not in _NOT_LISTED and not name.startswith(_CHECKPOINTS)]
    filled = {"files": file_facts(folder, names), "config_digest": sha256_json(manifest.config)}
    complete = manifest.model_copy(update=filled)
    write_bytes(folder / MANIFEST_NAME, sealed_json(complete.model_dump(mode="json")))
    return complete


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished artifact, checked against its own digest. Raises UserError: 66 absent, 65 damaged."""
    path = folder / MANIFEST_NAME
    try:
        value = open_sealed_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise _absent(folder) from None
    found = value.get("format_version")
    if isinstance(found, int) and found > FORMAT_VERSION:
        want = f"format {FORMAT_VERSION} or older"
        fix = "upgrade fairlead"
        raise UserError("made by a newer fairlead", where=str(path), want=want, fix=fix, exit_code=ExitCode.BAD_DATA)
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        fix = "run the stage again"
        where = f"{path}: {field}"
        raise UserError(first["msg"], where=where, fix=fix, exit_code=ExitCode.BAD_DATA) from None


def is_begun(folder: Path) -> bool:
    """Whether a stage was begun in this folder, be it finished or not."""
    return (folder / IDENTITY_NAME).is_file()


def _absent(folder: Path) -> UserError:
    code = ExitCode.MISSING_INPUT
    if not folder.exists():
        return UserError(f"{folder} does not exist", fix="see `fairlead runs` for what there is", exit_code=code)
    if is_begun(folder) or (folder / "checkpoints").is_dir():
        fix = "give the command that made it once more: it goes on from its last checkpoint"
        return UserError(f"{folder} is not finished", want=MANIFEST_NAME, fix=fix, exit_code=code)
    fix = "give the folder of a finished stage; `fairlead runs` lists them"
    return UserError(f"{folder} is not an artifact: it has no {MANIFEST_NAME}", fix=fix, exit_code=code)


def verify(folder: Path) -> Manifest:
    """Compare every file with the manifest. Raises UserError (65) that names the first file that differs."""
    manifest = read_manifest(folder)
    check_files(folder, manifest.files)
    return manifest


def digest(folder: Path) -> str:
    """What a child records of this parent: equal for equal kind, facts and content, wherever and whenever it was made.

    The content is what a child reads: the model where there is one, else every file but CLOCK_FILES. How it came about
    (options, metrics, samples) does not count: a child of equal weights is an equal child.
    """
    manifest = read_manifest(folder)
    model = {name: entry.sha256 for name, entry in manifest.files.items() if name.startswith("model/")}
    rest = {name: entry.sha256 for name, entry in manifest.files.items() if name not in CLOCK_FILES}
    facts = {key: value for key, value in manifest.facts.items() if key != "licences"}  # they name files
    return sha256_json({"kind": manifest.kind, "facts": facts, "files": model or rest})


def require_kind(folder: Path, kinds: Collection[Kind], *, wanted_for: str) -> Manifest:
    """Refuse an artifact of the wrong kind by name, before anything in it is loaded. `wanted_for` names the option."""
    assert kinds
    assert set(kinds) <= set(get_args(Kind))
    manifest = read_manifest(folder)
    if manifest.kind in kinds:
        return manifest
    want = " or ".join(KIND_NAMES[kind] for kind in kinds)
    fix = f"pass a folder made by {' or '.join(_MADE_BY[kind] for kind in kinds)}"
    raise UserError(f"{folder} is {KIND_NAMES[manifest.kind]}", want=f"{want} for {wanted_for}", fix=fix)


def file_facts(folder: Path, names: Collection[str]) -> dict[str, FileFacts]:
    """Digest and size of the named files."""
    return {
        name: FileFacts(sha256=sha256_file(folder / name), size_bytes=(folder / name).stat().st_size) for name in names
    }


def check_files(folder: Path, files: Mapping[str, FileFacts]) -> None:
    """Raise UserError (65) for the first file that is missing, too short, too long or changed."""
    for name, want in files.items():
        path = folder / name
        if not path.is_file():
            what, fix = f"{path} is missing", "restore a copy, or delete the folder and run again"
            raise UserError(what, fix=fix, exit_code=ExitCode.BAD_DATA)
        got = sha256_file(path)
        if got != want.sha256:
            raise mismatch(path, want=want.sha256, got=got)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    versions = {"python": platform.python_version()}
    for name in ("fairlead", "torch", "transformers", "peft", "safetensors", "numpy", "pyarrow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions
