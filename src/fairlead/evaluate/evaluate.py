"""`fairlead eval`: one model beside its parent, on the same held-out rows, prompts and random numbers."""

import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from fairlead.artifacts.atomic import write_text
from fairlead.artifacts.hashing import sha256_file
from fairlead.artifacts.journal import Journal
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import (
    Manifest,
    Parent,
    package_versions,
    read_manifest,
    require_kind,
    write_manifest,
)
from fairlead.artifacts.stages import is_finished, stage_folder
from fairlead.config.stages import EvalConfig
from fairlead.data.starter import licences
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.bench import Bench
from fairlead.evaluate.card import model_card
from fairlead.evaluate.report import stage_report
from fairlead.evaluate.summary import (
    Evaluation,
    read_evaluation,
    write_evaluation,
)
from fairlead.models.sources import Source, recorded, resolve
from fairlead.runtime.machine import peak_memory_bytes
from fairlead.runtime.start import start

DEFAULT_RUN = Path("runs/default")  # for a model that lies in no run
NAMES = {"model", "parent", "reward_model", "output"}  # of models: their digests are compared instead


def evaluate(config: EvalConfig) -> Path:
    """Measure, write `evaluation.json` and the report; returns the folder.

    A finished report that says the same already is kept, one of another model or of other options stays beside it.
    """
    if not config.model:
        raise UserError("no model was named", where="model", fix="fairlead eval RUN_OR_MODEL --prompts FILE")
    runtime = start(config.runtime)
    subject = resolve(config.model)
    parent = _parent_of(config, subject)
    reward = _reward_of(config)
    run = Path(config.output) if config.output else subject.artifact.parent if subject.artifact else DEFAULT_RUN
    judges = {"reward": reward} if reward else {}
    folder = _folder_of_report(run, config, {"model": subject, **({"parent": parent} if parent else {}), **judges})
    if is_finished(folder):
        runtime.say(f"eval: {folder} says this already, skipped")
        return folder
    began = time.monotonic()
    known = None
    if parent is not None:
        earlier = _folder_of_report(run, config, {"model": parent, **judges})
        if is_finished(earlier):
            known = read_evaluation(earlier / "evaluation.json")
    bench = Bench.of(config, runtime, subject, parent, reward, known)
    for note in bench.roles.notes:
        runtime.say(f"eval: {note}")
    evaluation, digests = bench.measure()
    if runtime.is_main:
        with lock(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _save(folder, _report_name(subject), bench, evaluation, digests, time.monotonic() - began)
    runtime.ranks.barrier()
    return folder


def _save(
    folder: Path, name: str, bench: Bench, evaluation: Evaluation, digests: Mapping[str, str], seconds: float
) -> None:
    """The numbers, the manifest (the commit) and the pages."""
    write_evaluation(evaluation, folder / "evaluation.json")
    with Journal(folder / "samples.jsonl") as samples:
        samples.truncate(0)
        for row in evaluation.answers:
            samples.append({"step": 0, "prompt": row.prompt, "response": row.reply, "score": row.score})
    runtime = bench.runtime
    roles = {"model": bench.subject, "parent": bench.parent, "reward": bench.reward}
    models = {role: source for role, source in roles.items() if source is not None}
    manifest = Manifest(
        kind="report", stage=name, config=bench.config.model_dump(mode="json"), data_digests=dict(digests),
        parents={role: Parent(path=source.name, digest=source.digest) for role, source in models.items()},
        versions=package_versions(), num_threads=runtime.num_threads, world_size=runtime.ranks.world_size,
        seed=runtime.seed, wall_seconds=seconds, peak_memory_bytes=peak_memory_bytes(runtime.device),
        facts={"licences": licences([source.name for source in models.values()], digests)},
    )  # fmt: skip
    write_manifest(folder, manifest)
    write_text(folder / "README.md", model_card(folder))
    stage_report(folder, None)


def _report_name(subject: Source) -> str:
    return f"eval-{subject.manifest.stage}" if subject.manifest else "eval"


def _folder_of_report(run: Path, config: EvalConfig, models: Mapping[str, Source]) -> Path:
    """The finished report that tells what is asked for, else where a new one goes; none is ever written over."""
    name = _report_name(models["model"])
    folders = (stage_folder(run, name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(folder for folder in folders if not is_finished(folder) or _tells(folder, config, models))


def _tells(folder: Path, config: EvalConfig, models: Mapping[str, Source]) -> bool:
    """Whether this is a finished report of these models, by digest, with the same options on the same rows."""
    manifest = read_manifest(folder)
    options = config.model_dump(mode="json", exclude=NAMES)
    return (
        options == {key: value for key, value in manifest.config.items() if key not in NAMES}
        and all(role in manifest.parents and manifest.parents[role].digest == m.digest for role, m in models.items())
        and all(Path(path).is_file() and sha256_file(Path(path)) == d for path, d in manifest.data_digests.items())
    )


def _parent_of(config: EvalConfig, subject: Source) -> Source | None:
    if config.parent:
        return resolve(config.parent)
    if subject.manifest is None or subject.artifact is None or "model" not in subject.manifest.parents:
        return None
    named, base = subject.manifest.parents["model"], subject.manifest.base
    revision = base.revision or None if base and base.name == named.path else None
    parent = recorded(named.path, named.digest, subject.artifact, revision=revision)
    if parent.digest != named.digest:
        raise UserError(
            "the parent is not the model any more that this one was made from", where=named.path,
            got=f"digest {parent.digest[:12]}", want=f"digest {named.digest[:12]}, as {subject.name} says",
            fix="restore it, or name what to compare with: --parent MODEL", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return parent


def _reward_of(config: EvalConfig) -> Source | None:
    if not config.reward_model:
        return None
    require_kind(Path(config.reward_model), ("reward",), wanted_for="eval's reward_model")
    return resolve(config.reward_model)
