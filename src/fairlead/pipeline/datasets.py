"""Stages that make datasets: their folder, held by one rank, and the first of them, sharing rows out by prompt."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from fairlead.artifacts.atomic import write_bytes
from fairlead.artifacts.identity import check_identity, files_by_name, inside_run
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import Manifest, package_versions, write_manifest
from fairlead.artifacts.stages import is_finished, stage_folder
from fairlead.config.journey import SplitConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.load import read_conversations, write_rejections
from fairlead.data.split import split_by_prompt, split_digest, without_prompts_of
from fairlead.data.starter import licences, resolve_paths
from fairlead.models.loading import load_tokenizer
from fairlead.records import Conversation, plain
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.start import Runtime

PARTS = ("sft", "preference", "ppo", "held_out")


def split_rows(config: SplitConfig, run: Path, runtime: Runtime) -> Path:
    """Write sft.jsonl, preference.jsonl, ppo.jsonl and held_out.jsonl (messages layout); returns the stage's folder.

    No prompt stands in two parts, nor twice in one, over all sources.
    """
    seed = runtime.seed
    folder = stage_folder(run, "split")
    paths = resolve_paths(config.sources, cache_folder(), "conversations")
    loaded = {path: read_conversations([path]) for path in paths}
    rejected = [rejection for rows in loaded.values() for rejection in rows.rejections]
    digests = {path: digest for rows in loaded.values() for path, digest in rows.digests.items()}
    identity = inside_run({"config": config.model_dump(mode="json"), "seed": seed, "data": files_by_name(digests)}, run)
    if finished(folder, identity, runtime):
        return folder
    began = time.monotonic()
    template = ChatTemplate(load_tokenizer(config.tokenizer))
    parts: dict[str, list[Conversation]] = {name: [] for name in PARTS}
    duplicates = too_long = 0
    for path, rows in loaded.items():
        new = without_prompts_of(rows.records, [record for part in parts.values() for record in part])
        short = [record for record in new if len(template.encode_prompt(record.prompt)) <= config.max_prompt_tokens]
        too_long += len(new) - len(short)
        counts = {name: getattr(config, name) for name in PARTS}
        split = split_by_prompt(short, parts=counts, seed=seed, one_per_prompt=True)
        duplicates += len(rows.records) - len(new) + split.num_duplicates
        for name in PARTS:
            parts[name] += split.parts[name]
        runtime.say(f"split: {path}: {', '.join(rows.layouts.values())}, {len(rows.records)} rows")
    digest = split_digest(parts)
    sizes = ", ".join(f"{len(records)} {name}" for name, records in parts.items())
    runtime.say(
        f"split: {sizes}; {duplicates} duplicate prompts, {too_long} long prompts and {len(rejected)} unusable rows "
        f"left out; digest {digest[:12]}"
    )
    with held(folder, identity, runtime):
        if runtime.is_main:
            for name, records in parts.items():
                write_json_lines(folder / f"{name}.jsonl", ({"messages": plain(r.messages)} for r in records))
            if rejected:
                write_rejections(folder / "rejects.jsonl", rejected)
            facts: dict[str, Any] = {"split_digest": digest, "duplicates": duplicates, "prompts_too_long": too_long}
            facts["licences"] = licences([], digests)
            facts["sizes"] = {"rows": sum(map(len, parts.values()))}
            write_manifest(folder, Manifest(
                kind="dataset", stage="split", config=config.model_dump(mode="json"), data_digests=digests, facts=facts,
                seed=seed, wall_seconds=time.monotonic() - began, versions=package_versions(),
            ))  # fmt: skip
    return folder


def finished(folder: Path, identity: dict[str, Any], runtime: Runtime) -> bool:
    """Whether the stage is done; UserError by name when it was done with other options, rows or parents."""
    done = is_finished(folder)
    runtime.ranks.barrier()  # all have looked before any writes
    if done:
        check_identity(folder, identity)
        runtime.say(f"{folder.name.partition('-')[2]}: {folder} is finished and unchanged, skipped")
    return done


@contextmanager
def held(folder: Path, identity: dict[str, Any], runtime: Runtime) -> Iterator[None]:
    """The first rank holds the folder and writes into it; the others wait at the end."""
    with ExitStack() as stack:
        if runtime.is_main:
            stack.enter_context(lock(folder))
            check_identity(folder, identity)
        yield
    runtime.ranks.barrier()


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object per row, atomically."""
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))
