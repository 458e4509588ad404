"""A model's name becomes a folder: starter name, folder, stage artifact, run, or hub id. Nothing is loaded here."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open

from fairlead.artifacts.hashing import sha256_folder
from fairlead.artifacts.manifest import Manifest, digest, verify
from fairlead.artifacts.model_folder import ModelFolder, check_model_folder
from fairlead.artifacts.stages import is_run, policy_of
from fairlead.data.starter import STARTER_MODELS, starter
from fairlead.errors import ExitCode, UserError
from fairlead.models.convert import converted_gguf
from fairlead.runtime.environment import cache_folder

ALLOWED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]


@dataclass(frozen=True)
class BaseWeights:
    """A folder of whole weights. `name` and `revision` say where it came from, `digest` what it holds.

    The name is a starter name, a hub id or an absolute path, so that it means the same in every working folder.
    """

    name: str
    folder: Path
    digest: str
    revision: str | None = None

    def facts(self) -> dict[str, str | None]:
        """What a manifest says of it."""
        return {"name": self.name, "digest": self.digest, "revision": self.revision}


@dataclass(frozen=True)
class Source:
    """Base weights, and on top of them the adapter or head of a stage artifact, when the name is one.

    A plain folder of a sequence classifier has a head too.
    """

    name: str
    base: BaseWeights
    adapter: Path | None = None  # a PEFT folder
    head: Path | None = None  # safetensors file that holds score.weight
    artifact: Path | None = None  # the stage folder
    manifest: Manifest | None = None

    @property
    def kind(self) -> str:
        """What the artifact is; plain weights are a policy, or with a head a reward model."""
        if self.manifest:
            return self.manifest.kind
        return "reward" if self.head else "policy"

    @property
    def digest(self) -> str:
        """Identity of the artifact, or of the plain weights."""
        return digest(self.artifact) if self.artifact else self.base.digest


def resolve(name: str, *, revision: str | None = None) -> Source:
    """Where the model of this name is; what is on disk is checked against its manifest."""
    if name in STARTER_MODELS:
        return Source(name, _starter(name))
    path = Path(name)
    if (path / "manifest.json").is_file():
        return _artifact(path)
    if is_run(path):
        return _artifact(policy_of(path))
    if path.is_dir():
        facts = check_model_folder(path)
        if facts.kind == "adapter":
            raise UserError(
                "this folder holds an adapter without the manifest that names its base", where=name,
                want="a stage folder made by fairlead, or a folder of whole weights",
                fix="merge it into its base first, or pass the base",
            )  # fmt: skip
        place = str(path.absolute())
        return Source(place, BaseWeights(place, path, sha256_folder(path)), head=_score_layer(facts))
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise UserError(
            "there is no such model", where=name,
            want=f"a folder, a hub id (owner/name) or {', '.join(STARTER_MODELS)}",
            fix="check the path, or leave --model away to use the starter model", exit_code=ExitCode.MISSING_INPUT,
        )  # fmt: skip
    base = _hub(name, revision)
    return Source(name, base, head=_score_layer(check_model_folder(base.folder)))


def recorded(name: str, want: str, artifact: Path, *, revision: str | None = None) -> Source:
    """The model of digest `want` that an artifact was made from, by the name it has in the manifest.

    It is looked for beside the artifact first, for a run may have been moved or copied. The caller compares digests:
    where the name leads to other weights, those are returned.
    """
    beside = artifact.absolute().with_name(Path(name).name)
    if beside != artifact.absolute() and (beside / "manifest.json").is_file():
        found = resolve(str(beside))
        if want in (found.digest, found.base.digest):
            return found
    return resolve(name, revision=revision)


def _score_layer(folder: ModelFolder) -> Path | None:
    """The file with the layer that gives a sequence classifier's one number; None for a language model."""
    if not any(name.endswith("ForSequenceClassification") for name in folder.config.get("architectures") or ()):
        return None
    shapes = {}
    for name in folder.weights:
        with safe_open(folder.path / name, "np") as file:
            found = [key for key in file.keys() if key.rpartition(".")[0].endswith("score")]  # noqa: SIM118 - not a dict
            shapes |= {key: (folder.path / name, file.get_slice(key).get_shape()) for key in found}
    match list(shapes.items()):
        case [("score.weight", (path, [1, _]))]:
            return path
    raise UserError(
        "this sequence classifier is no reward model", where=str(folder.path),
        got=f"score layer {({key: shape for key, (_, shape) in shapes.items()}) or 'missing'}",
        want="score.weight alone, of one row", fix="use a classifier with num_labels=1, or a causal language model",
        exit_code=ExitCode.BAD_DATA,
    )  # fmt: skip


def _starter(name: str) -> BaseWeights:
    cache = cache_folder()
    folder = cache / "models" / name
    return BaseWeights(name, folder, converted_gguf(starter(cache).gguf, folder))


def _hub(name: str, revision: str | None) -> BaseWeights:
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=ALLOWED))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise UserError(
            "there is no such folder, and as a hub id (owner/name) it could not be had", where=name,
            got="no answer, or none with this name", want="a folder that is there, a reachable hub, or it in HF_HOME",
            fix=f"check the path, or name a folder on disk, or a starter model: {', '.join(STARTER_MODELS)}",
            exit_code=ExitCode.MISSING_INPUT,
        ) from error  # fmt: skip
    return BaseWeights(name, folder, sha256_folder(folder), revision=folder.name)


def _artifact(folder: Path) -> Source:
    manifest = verify(folder)
    place = str(folder.absolute())
    model = folder / "model"
    if not model.is_dir():
        raise UserError(
            f"this is a {manifest.kind} of stage {manifest.stage}, without weights", where=str(folder),
            want="a stage that trained a model", fix="pass the folder of an sft, reward, dpo, kto, ppo or grpo stage",
        )  # fmt: skip
    facts = check_model_folder(model)
    head = model / ("adapter_model.safetensors" if facts.kind == "adapter" else "model.safetensors")
    scores = head if manifest.kind in ("reward", "critic") else None
    if facts.kind == "base":
        base = BaseWeights(place, model, sha256_folder(model))
        return Source(place, base, head=scores, artifact=folder, manifest=manifest)
    named = manifest.base
    assert named is not None, f"{folder} holds an adapter and names no base"
    found = recorded(named.name, named.digest, folder, revision=named.revision or None).base
    if found.digest != named.digest:
        raise UserError(
            "the adapter was trained on other base weights", where=str(folder),
            got=f"base {named.name} with digest {found.digest[:12]}", want=f"digest {named.digest[:12]}",
            fix="restore the base folder it was trained on, or train the adapter again", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return Source(place, found, adapter=model, head=scores, artifact=folder, manifest=manifest)
