"""The two stages that make datasets: sharing rows out by prompt, and pairs from a model's own replies."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from fairlead.artifacts.atomic import write_bytes
from fairlead.artifacts.identity import check_identity, inside_run
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import Manifest, Parent, package_versions, write_manifest
from fairlead.artifacts.stages import is_finished, stage_folder
from fairlead.config.journey import RepliesConfig, SplitConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.load import read_conversations
from fairlead.data.split import split_by_prompt, split_digest
from fairlead.data.starter import licences, resolve_paths
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen
from fairlead.models.loading import load_tokenizer
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.records import Conversation, Message, Preference
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.machine import peak_memory_bytes
from fairlead.runtime.start import start
from fairlead.synthesize.own_replies import own_reply_pairs
from fairlead.train.stage import FREE_MACHINE_OPTIONS

PARTS = ("sft", "preference", "ppo", "held_out")


def split_rows(config: SplitConfig, run: Path, *, seed: int) -> Path:
    """Write sft.jsonl, preference.jsonl, ppo.jsonl and held_out.jsonl (messages layout); returns the stage's folder."""
    folder = stage_folder(run, "split")
    paths = resolve_paths(config.sources, cache_folder())
    loaded = {path: read_conversations([path]) for path in paths}
    digests = {str(path): rows.digests[str(path)] for path, rows in loaded.items()}
    identity = inside_run({"config": config.model_dump(mode="json"), "seed": seed, "data": digests}, run)
    if _finished(folder, identity):
        return folder
    began = time.monotonic()
    template = ChatTemplate(load_tokenizer(config.tokenizer))
    parts: dict[str, list[Conversation]] = {name: [] for name in PARTS}
    duplicates = too_long = 0
    for rows in loaded.values():
        short = [r for r in rows.records if len(template.encode_prompt(r.prompt)) <= config.max_prompt_tokens]
        too_long += len(rows.records) - len(short)
        counts = {name: getattr(config, name) for name in PARTS}
        split = split_by_prompt(short, parts=counts, seed=seed)
        duplicates += split.num_duplicates
        for name in PARTS:
            parts[name] += split.parts[name]
    digest = split_digest(parts)
    with lock(folder):
        check_identity(folder, identity)
        for name, records in parts.items():
            _write(folder / f"{name}.jsonl", ({"messages": _plain(r.messages)} for r in records))
        facts: dict[str, Any] = {"split_digest": digest, "duplicates": duplicates, "prompts_too_long": too_long}
        facts["licences"] = licences(config.sources)
        facts["sizes"] = {"rows": sum(map(len, parts.values()))}
        write_manifest(folder, Manifest(
            kind="dataset", stage="split", config=config.model_dump(mode="json"), data_digests=digests, facts=facts,
            seed=seed, wall_seconds=time.monotonic() - began, versions=package_versions(),
        ))  # fmt: skip
    return folder


def make_pairs(config: RepliesConfig, run: Path) -> Path:
    """Write train.jsonl and held_out.jsonl (prompt, chosen, rejected); returns the stage's folder."""
    folder = stage_folder(run, "replies")
    source = resolve(config.model)
    files = {"train": config.train, "held_out": config.held_out}
    loaded = {name: read_conversations(resolve_paths(paths, cache_folder())) for name, paths in files.items() if paths}
    digests = {path: digest for rows in loaded.values() for path, digest in rows.digests.items()}
    options = config.model_dump(mode="json", exclude={"runtime": FREE_MACHINE_OPTIONS})
    identity = inside_run({"config": options, "parents": {"model": source.digest}, "data": digests}, run)
    if _finished(folder, identity):
        return folder
    began = time.monotonic()
    runtime = start(config.runtime)
    template = ChatTemplate(load_tokenizer(config.model))
    roles = Roles()
    add_frozen(roles, "policy", source, "logprobs", runtime)
    engine = Engine(roles, "policy", template.end_token_ids, runtime)
    with lock(folder):
        check_identity(folder, identity)
        counts = {}
        for position, (name, rows) in enumerate(loaded.items()):
            pairs = own_reply_pairs(
                engine, template, rows.records, config.sampling, max_tokens=config.max_tokens,
                min_tokens=config.min_tokens, seed=runtime.seed + position,
            )  # fmt: skip
            counts[name] = len(pairs)
            _write(folder / f"{name}.jsonl", map(_pair, pairs))
        write_manifest(folder, Manifest(
            kind="dataset", stage="replies", config=config.model_dump(mode="json"), data_digests=digests,
            parents={"model": Parent(path=source.name, digest=source.digest)},
            facts={"sizes": {"pairs": sum(counts.values())}}, seed=runtime.seed,
            num_threads=runtime.num_threads, wall_seconds=time.monotonic() - began, versions=package_versions(),
            peak_memory_bytes=peak_memory_bytes(runtime.device),
        ))  # fmt: skip
    return folder


def _finished(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether the stage is done; UserError by name when it was done with other options, rows or parents."""
    if not is_finished(folder):
        return False
    check_identity(folder, identity)
    return True


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _pair(pair: Preference) -> dict[str, Any]:
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    return {"prompt": _plain(pair.prompt)} | {
        side: [{"role": "assistant", "content": text}] for side, text in sides.items()
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))
