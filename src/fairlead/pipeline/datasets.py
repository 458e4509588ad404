"""The two stages that make datasets: sharing rows out by prompt, and pairs from a model's own replies."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from fairlead.artifacts.atomic import write_bytes
from fairlead.artifacts.identity import check_identity, files_by_name, inside_run
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import Manifest, Parent, package_versions, write_manifest
from fairlead.artifacts.stages import is_finished, stage_folder
from fairlead.config.common import ModelConfig
from fairlead.config.journey import RepliesConfig, SplitConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.load import read_conversations, write_rejections
from fairlead.data.split import split_by_prompt, split_digest, without_prompts_of
from fairlead.data.starter import licences, resolve_paths
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen, ready
from fairlead.models.loading import load_tokenizer
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.records import Conversation, Message, Preference
from fairlead.rollout.sample import sample_responses
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.machine import peak_memory_bytes
from fairlead.runtime.start import Runtime, start
from fairlead.synthesize.own_replies import own_reply_pairs
from fairlead.train.stage import FREE_MACHINE_OPTIONS

PARTS = ("sft", "preference", "ppo", "held_out")


def split_rows(config: SplitConfig, run: Path, runtime: Runtime) -> Path:
    """Write sft.jsonl, preference.jsonl, ppo.jsonl and held_out.jsonl (messages layout); returns the stage's folder.

    No prompt stands in two parts, nor twice in one, over all sources.
    """
    seed = runtime.seed
    folder = stage_folder(run, "split")
    paths = resolve_paths(config.sources, cache_folder())
    loaded = {path: read_conversations([path]) for path in paths}
    rejected = [rejection for rows in loaded.values() for rejection in rows.rejections]
    digests = {path: digest for rows in loaded.values() for path, digest in rows.digests.items()}
    identity = inside_run({"config": config.model_dump(mode="json"), "seed": seed, "data": files_by_name(digests)}, run)
    if _finished(folder, identity, runtime):
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
    with _held(folder, identity, runtime):
        if runtime.is_main:
            for name, records in parts.items():
                _write(folder / f"{name}.jsonl", ({"messages": _plain(r.messages)} for r in records))
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


def make_pairs(config: RepliesConfig, run: Path) -> Path:
    """Write train.jsonl and held_out.jsonl (prompt, chosen, rejected); returns the stage's folder."""
    folder = stage_folder(run, "replies")
    source = resolve(config.model)
    files = {"train": config.train, "held_out": config.held_out}
    loaded = {name: read_conversations(resolve_paths(paths, cache_folder())) for name, paths in files.items() if paths}
    digests = {path: digest for rows in loaded.values() for path, digest in rows.digests.items()}
    options = config.model_dump(mode="json", exclude={"runtime": FREE_MACHINE_OPTIONS})
    identity = inside_run({"config": options, "parents": {"model": source.digest}, "data": files_by_name(digests)}, run)
    runtime = start(config.runtime)
    if _finished(folder, identity, runtime):
        return folder
    began = time.monotonic()
    template = ChatTemplate(load_tokenizer(config.model))
    roles = Roles()
    add_frozen(roles, "policy", source, "logprobs", runtime)
    ready(roles, ModelConfig(), runtime)
    engine = Engine(roles, "policy", template.end_token_ids, runtime)
    with _held(folder, identity, runtime):
        counts = {}
        for position, (name, rows) in enumerate(loaded.items()):
            prompts = [template.encode_prompt(record.prompt) for record in rows.records]
            seeds = [(runtime.seed + position) * 65_536 + row for row in range(len(prompts))]
            runtime.say(f"replies: {name}: {len(prompts)} replies of at most {config.sampling.max_new_tokens} tokens")
            replies = sample_responses(engine, prompts, config.sampling, seeds=seeds, runtime=runtime)
            pairs = own_reply_pairs(
                template, rows.records, [reply.tokens for reply in replies], max_tokens=config.max_tokens,
                min_tokens=config.min_tokens,
            )  # fmt: skip
            counts[name] = len(pairs)
            runtime.say(f"replies: {name}: {len(pairs)} pairs of {len(prompts)} prompts")
            if runtime.is_main:
                _write(folder / f"{name}.jsonl", map(_pair, pairs))
        if runtime.is_main:
            write_manifest(folder, Manifest(
                kind="dataset", stage="replies", config=config.model_dump(mode="json"), data_digests=digests,
                parents={"model": Parent(path=source.name, digest=source.digest)},
                facts={"sizes": {"pairs": sum(counts.values())}, "licences": licences([source.name], digests)},
                seed=runtime.seed, num_threads=runtime.num_threads, world_size=runtime.ranks.world_size,
                wall_seconds=time.monotonic() - began, versions=package_versions(),
                peak_memory_bytes=peak_memory_bytes(runtime.device),
            ))  # fmt: skip
    return folder


def _finished(folder: Path, identity: dict[str, Any], runtime: Runtime) -> bool:
    """Whether the stage is done; UserError by name when it was done with other options, rows or parents."""
    done = is_finished(folder)
    runtime.ranks.barrier()  # all have looked before any writes
    if done:
        check_identity(folder, identity)
        runtime.say(f"{folder.name.partition('-')[2]}: {folder} is finished and unchanged, skipped")
    return done


@contextmanager
def _held(folder: Path, identity: dict[str, Any], runtime: Runtime) -> Iterator[None]:
    """The first rank holds the folder and writes into it; the others wait at the end."""
    with ExitStack() as stack:
        if runtime.is_main:
            stack.enter_context(lock(folder))
            check_identity(folder, identity)
        yield
    runtime.ranks.barrier()


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _pair(pair: Preference) -> dict[str, Any]:
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    return {"prompt": _plain(pair.prompt)} | {
        side: [{"role": "assistant", "content": text}] for side, text in sides.items()
    }


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_bytes(path, b"".join(orjson.dumps(row) + b"\n" for row in rows))
