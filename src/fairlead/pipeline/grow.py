"""`fairlead data grow`: new prompts and rows as a stage, invented or translated by a model, or collected from chats.

Every answer of the model is journalled: a stage that was cut off goes on from there and asks nothing twice.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairlead.artifacts.identity import files_by_name, inside_run
from fairlead.artifacts.manifest import Manifest, Parent, package_versions, write_manifest
from fairlead.artifacts.stages import stage_folder
from fairlead.config.common import ModelConfig
from fairlead.config.endpoint import FREE_ENDPOINT_OPTIONS
from fairlead.config.grow import GrowConfig
from fairlead.data.chats import prompts_of_chats
from fairlead.data.load import Loaded, read_prompts
from fairlead.data.rows import to_row
from fairlead.data.starter import licences, resolve_paths
from fairlead.errors import ExitCode, UserError
from fairlead.models.sources import Source
from fairlead.pipeline.author import open_author
from fairlead.pipeline.datasets import finished, held, write_json_lines
from fairlead.records import Conversation, Prompt
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.machine import peak_memory_bytes
from fairlead.runtime.start import Runtime, start
from fairlead.synthesize.author import Author, Grown, answered
from fairlead.synthesize.self_instruct import invented, seed_of, shown_answers
from fairlead.synthesize.translate import translated
from fairlead.train.rows import policy_source, rejects_path
from fairlead.train.stage import FREE_MACHINE_OPTIONS

_FREE_OPTIONS = {"output": True, "author": FREE_ENDPOINT_OPTIONS, "runtime": FREE_MACHINE_OPTIONS}


def grow(config: GrowConfig) -> Path:
    """Run or resume the stage; returns its folder, a dataset artifact: train.jsonl and dropped.jsonl."""
    runtime = start(config.runtime)
    run = Path(config.output)
    folder = stage_folder(run, "grow")
    source = _model(config)
    loaded = _read(config, runtime)
    parents = {"model": source} if source else {}
    options = config.model_dump(mode="json", exclude=_FREE_OPTIONS)
    identity: dict[str, Any] = {"config": options, "data": files_by_name(loaded.digests)}
    identity = inside_run(identity | {"parents": {role: one.digest for role, one in parents.items()}}, run)
    if finished(folder, identity, runtime):
        return folder
    began = time.monotonic()
    with held(folder, identity, runtime):
        for note in loaded.told:
            _teller(runtime)(note)
        if source is None and not runtime.is_main:  # an endpoint is asked by the first rank alone
            return folder
        records, grown = _grown(config, source, loaded, folder, runtime)
        if runtime.is_main:
            _write(folder, records, grown.refused)
            _teller(runtime)(f"{len(records)} rows; {len(grown.refused)} refused, see {folder / 'dropped.jsonl'}")
            write_manifest(folder, Manifest(
                kind="dataset", stage="grow", config=config.model_dump(mode="json"), data_digests=dict(loaded.digests),
                parents={role: Parent(path=one.name, digest=one.digest) for role, one in parents.items()},
                facts={
                    "sizes": {"rows": len(records)},
                    "refused": dict(Counter(f"{one['step']}: {one['reason']}" for one in grown.refused).most_common()),
                    "licences": licences([one.name for one in parents.values()], loaded.digests),
                },
                seed=runtime.seed, num_threads=runtime.num_threads, world_size=runtime.ranks.world_size,
                wall_seconds=time.monotonic() - began, versions=package_versions(),
                peak_memory_bytes=peak_memory_bytes(runtime.device),
            ))  # fmt: skip
    return folder


def _model(config: GrowConfig) -> Source | None:
    """The model that writes; refused by name when it is something else. None where an endpoint writes, or nobody."""
    longest = max(config.sampling.max_new_tokens, config.answer_sampling.max_new_tokens if config.answer else 0)
    return policy_source(ModelConfig(name=config.model), longest) if config.model else None


def _read(config: GrowConfig, runtime: Runtime) -> Loaded[Prompt]:
    if not config.data:
        raise UserError("no rows were named", where="data", fix="fairlead data grow --data FILE")
    rejects = rejects_path(config.output, "grow", runtime)
    paths = resolve_paths(config.data, cache_folder(), "prompts")
    return read_prompts(paths, rejects=rejects, **config.reading)


def _grown(
    config: GrowConfig, source: Source | None, loaded: Loaded[Prompt], folder: Path, runtime: Runtime
) -> tuple[Sequence[Prompt | Conversation], Grown]:
    """The rows that the method makes, and the account of the others."""
    rows = loaded.records[: config.max_rows] if config.max_rows else loaded.records
    if not config.asks:
        grown = _collected(config, rows)
        return grown.prompts, grown
    with open_author(config, source, folder, runtime, _teller(runtime)) as author:
        return _written(config, rows, author, runtime)


def _written(
    config: GrowConfig, rows: Sequence[Prompt], author: Author, runtime: Runtime
) -> tuple[Sequence[Prompt | Conversation], Grown]:
    """As `_grown`, where a model writes."""
    seeds, seed, say = [seed_of(row) for row in rows], runtime.seed, _teller(runtime)
    match config.method:
        case "self_instruct":
            grown = invented(
                seeds, config.self_instruct, config.sampling, author, min_words=config.min_words, seed=seed, say=say
            )
        case "translate":
            grown = translated(rows, author, config.sampling, seed=seed, say=say)
        case "chats":
            grown = _collected(config, rows)
    if not config.answer:
        return grown.prompts, grown
    say(f"{len(grown.prompts)} prompts to answer")
    num_shown = config.self_instruct.num_answered
    shown = shown_answers(grown.prompts, seeds, num_answered=num_shown, seed=seed) if num_shown else ()
    return answered(grown, author, config.answer_sampling, seed=seed, shown=shown), grown


def _collected(config: GrowConfig, rows: Sequence[Prompt]) -> Grown:
    return Grown(*prompts_of_chats(rows, config.chats, min_words=config.min_words))


def _teller(runtime: Runtime) -> Callable[[str], None]:
    return lambda text: runtime.say(f"grow: {text}")


def _write(folder: Path, records: Sequence[Prompt | Conversation], refused: Sequence[dict[str, Any]]) -> None:
    """The rows and the account of the others. UserError (65) when there is no row."""
    write_json_lines(folder / "dropped.jsonl", refused)
    if not records:
        commonest = Counter(one["reason"] for one in refused).most_common(3)
        raise UserError(
            "no new row came of it", where=str(folder / "dropped.jsonl"),
            got="; ".join(f"{count} × {reason}" for reason, count in commonest) or "nothing that could be read",
            fix="see there what was refused and why; raise sampling.max_new_tokens, take another model, or loosen what "
            "is refused, with another --output", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    write_json_lines(folder / "train.jsonl", map(to_row, records))
