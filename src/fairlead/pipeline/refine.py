"""`fairlead data refine`: any files to clean, accounted-for rows, as a stage that goes on where it was interrupted."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from fairlead.artifacts.atomic import remove, write_pieces
from fairlead.artifacts.hashing import sha256_file
from fairlead.artifacts.identity import check_identity, files_by_name, inside_run
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import Manifest, package_versions, write_manifest
from fairlead.artifacts.stages import is_finished, stage_folder
from fairlead.config.refine import RefineConfig
from fairlead.data.benchmark_items import read_benchmarks
from fairlead.data.decontaminate import Benchmarks
from fairlead.data.language import is_chinese
from fairlead.data.load import check_rejections
from fairlead.data.parquet_rows import parquet_pieces
from fairlead.data.refine.decide import STEPS, Decisions, decide
from fairlead.data.refine.shards import READING, Reader, Shard, loss
from fairlead.data.sources import expand
from fairlead.data.starter import licences, resolve_paths
from fairlead.data.streams import sha256_stored
from fairlead.data.views import answer_texts, whole_text
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.refine_page import refine_page
from fairlead.evaluate.refine_summary import RefineSummary, StepCount
from fairlead.pipeline.first_pass import FirstPass
from fairlead.records import Record, Rejection
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.interrupts import Interrupts, exit_at_once
from fairlead.runtime.messages import say

EXAMPLES = 8  # of what each step dropped, on the page
WORK = "work"
_FREE_OPTIONS = {"executor", "max_reject_rate"}  # who does the work and when it stops do not change the result


def refine(config: RefineConfig) -> Path:
    """Run or resume the stage; returns its folder, a dataset artifact: train, held_out and dropped rows."""
    folder = stage_folder(Path(config.output), "refine")
    sources = _sources(config)
    digests = {str(path): sha256_stored(path) for paths in sources.values() for path in paths}
    benchmark_files = expand(resolve_paths(config.contamination.against, cache_folder()))
    against = {str(path): sha256_stored(path) for path in benchmark_files}
    options = config.model_dump(mode="json", exclude=_FREE_OPTIONS)
    identity = inside_run({"config": options, "data": files_by_name(digests | against)}, Path(config.output))
    if is_finished(folder):
        check_identity(folder, identity)
        say(f"refine: {folder} is finished and unchanged, skipped")
        return folder
    began = time.monotonic()
    with lock(folder), Interrupts() as interrupts:
        check_identity(folder, identity)
        shards = _filtered(config, sources, folder / WORK, interrupts)
        say(f"refine: {sum(shard.rows_out for shard in shards)} rows left by the filters; comparing them")
        with _stopped_at_once():
            benchmarks = Benchmarks(read_benchmarks(benchmark_files)) if benchmark_files else None
            decisions = decide(shards, config, benchmarks, _grouping(config))
            summary = _write(folder, shards, decisions, config)
        if not summary.num_train + summary.num_held_out:
            raise _nothing_left(folder, summary)
        for count in summary.steps:
            say(f"refine: {count.name}: {count.rows_in} rows in, {count.rows_in - count.rows_out} out")
        if sum(map(bool, summary.by_kind.values())) > 1:
            mixed = ", ".join(f"{count} × {kind}" for kind, count in summary.by_kind.items() if count)
            say(f"warning: the rows are of several kinds ({mixed}), and a training takes one: refine them apart")
        told = replace(summary, steps=[replace(step, examples=[]) for step in summary.steps])  # those are on the page
        facts: dict[str, Any] = {"refined": asdict(told), "licences": licences([], digests)}
        facts["sizes"] = {"rows": summary.num_train + summary.num_held_out}
        refine_page(folder, summary)
        remove(folder / WORK)
        write_manifest(folder, Manifest(
            kind="dataset", stage="refine", config=config.model_dump(mode="json"), data_digests=digests | against,
            facts=facts, seed=config.seed, wall_seconds=time.monotonic() - began, versions=package_versions(),
        ))  # fmt: skip
    return folder


def _sources(config: RefineConfig) -> dict[str, list[Path]]:
    """The files of each entry of `data`."""
    if not config.data:
        raise UserError("no rows were named", where="data", fix="fairlead data refine --data FILE")
    return {name: expand(resolve_paths([name], cache_folder()), texts=True) for name in config.data}


def _filtered(config: RefineConfig, sources: dict[str, list[Path]], work: Path, interrupts: Interrupts) -> list[Shard]:
    """All rows read and filtered, a shard at a time."""
    files = tuple((name, path) for name, paths in sources.items() for path in paths)
    first_pass = FirstPass(config, files, work)
    if config.executor.kind and not first_pass.is_done:
        _in_tasks(first_pass)

    def tell(shard: Shard) -> None:
        say(f"refine: {shard.source}: {shard.rows_in} rows read, {shard.rows_out} left")
        if interrupts.received is not None:
            say("refine: stopped behind a shard; the same command goes on from there")
            raise SystemExit(interrupts.exit_code)

    shards = first_pass.run(say, after_shard=tell)
    for name in sources:
        _check_unreadable([shard for shard in shards if shard.source == name], config)
    return shards


def _nothing_left(folder: Path, summary: RefineSummary) -> UserError:
    gone = sorted(summary.steps, key=lambda step: step.rows_out - step.rows_in)[:3]
    return UserError(
        "no row is left", where=str(folder / "dropped.jsonl"),
        got="; ".join(f"{step.rows_in - step.rows_out} × {step.name}" for step in gone if step.rows_in > step.rows_out),
        fix="see there what went and why; loosen that step, with another --output", exit_code=ExitCode.BAD_DATA,
    )  # fmt: skip


@contextmanager
def _stopped_at_once() -> Generator[None]:
    """For the second pass, which saves nothing before its end: there is nothing to wait for."""
    try:
        with exit_at_once():
            yield
    except SystemExit:
        say("refine: stopped; the same command goes on from the finished shards")
        raise


def _in_tasks(first_pass: FirstPass) -> None:
    """The first pass by datatrove's executor; what it finished is then found in the shards."""
    try:
        from fairlead.pipeline.refine_tasks import run_tasks  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        kind = first_pass.config.executor.kind
        raise UserError(
            f"a package is not installed ({error})", where=f"executor.kind={kind}",
            fix="pip install 'fairlead[datatrove]'",
        ) from error  # fmt: skip
    run_tasks(first_pass, say)


def _check_unreadable(shards: Sequence[Shard], config: RefineConfig) -> None:
    rejected = [
        Rejection(*_place(one["source"]), one["reason"])
        for shard in shards if shard.dropped[READING] for one in shard.losses() if one["step"] == READING
    ]  # fmt: skip
    num_rows = sum(shard.rows_in for shard in shards)
    fix = "mend those rows, or raise max_reject_rate"
    check_rejections(rejected, num_rows, max_reject_rate=config.max_reject_rate, fix=fix)


def _place(source: str) -> tuple[str, int]:
    path, _, line = source.rpartition(":")
    return path, int(line)


def _grouping(config: RefineConfig) -> Callable[[Record, str], str]:
    """What group of the mix a record of a source belongs to."""
    match config.mix.by:
        case "source":
            return lambda _, source: source
        case "kind":
            return lambda record, _: type(record).__name__.lower()
        case "language":
            return lambda record, _: language_of(record)


def language_of(record: Record) -> str:
    """`zh`, or `other`, of what is learnt."""
    return "zh" if is_chinese("\n".join(answer_texts(record)) or whole_text(record)) else "other"


def _write(folder: Path, shards: Sequence[Shard], decisions: Decisions, config: RefineConfig) -> RefineSummary:
    """The rows that stay and the account of the others; returns what is told of them."""
    reader = Reader(shards)
    _write_rows(folder / "train", shards, decisions.kept & ~decisions.held_out, config.format)
    if config.held_out:
        _write_rows(folder / "held_out", shards, decisions.held_out, config.format)
    examples: dict[str, list[dict[str, str]]] = {}
    write_pieces(folder / "dropped.jsonl", _account(shards, decisions, reader, examples))
    if config.contamination.against:
        write_pieces(folder / "contamination.jsonl", _hits(decisions, reader))
    return _summary(folder, shards, decisions, examples)


def _write_rows(path: Path, shards: Sequence[Shard], chosen: Any, form: str) -> None:
    lines = partial(_lines, shards, chosen)
    if form == "jsonl":
        write_pieces(path.with_suffix(".jsonl"), lines())
    else:
        columns = {name for line in lines() for name in orjson.loads(line)}
        write_pieces(path.with_suffix(".parquet"), parquet_pieces(lines(), columns))


def _lines(shards: Sequence[Shard], chosen: Any) -> Iterator[bytes]:
    position = 0
    for shard in shards:
        for line in shard.lines():
            if chosen[position]:
                yield line
            position += 1


def _account(
    shards: Sequence[Shard], decisions: Decisions, reader: Reader, examples: dict[str, list[dict[str, str]]]
) -> Iterator[bytes]:
    """Every row that went, in the order of the files and then of the steps."""
    position = 0
    for shard in shards:
        yield from (_told(one, examples) for one in shard.losses())
        for record in shard.records():
            if not decisions.kept[position]:
                step, reason = decisions.reason(position, lambda index: reader.records([index])[0].source)
                yield _told(loss(step, reason, record.source, whole_text(record)), examples)
            position += 1


def _told(one: dict[str, str], examples: dict[str, list[dict[str, str]]]) -> bytes:
    shown = examples.setdefault(one["step"], [])
    if len(shown) < EXAMPLES:
        shown.append(one)
    return orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE)


def _hits(decisions: Decisions, reader: Reader) -> Iterator[bytes]:
    """Every question that was found, with the row that holds it."""
    for hit in decisions.hits:
        row = {"source": reader.records([hit.index])[0].source, "question": hit.item.source, "text": hit.item.text}
        row |= {"shared": hit.num_shared, "of": hit.num_runs}
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _summary(
    folder: Path, shards: Sequence[Shard], decisions: Decisions, examples: dict[str, list[dict[str, str]]]
) -> RefineSummary:
    left = sum(shard.rows_in for shard in shards)
    dropped = Counter[str]()
    for shard in shards:
        dropped.update(shard.dropped)
    dropped.update({step: int((decisions.step == 1 + number).sum()) for number, step in enumerate(STEPS)})
    changed = Counter[str]()
    for shard in shards:
        changed.update(shard.changed)
    steps = []
    for name in dict.fromkeys([READING, *(step for shard in shards for step in shard.dropped), *STEPS]):
        steps.append(StepCount(
            name=name, rows_in=left, rows_out=left - dropped[name], changed=changed[name],
            examples=examples.get(name, []),
        ))  # fmt: skip
        left -= dropped[name]
    kept = decisions.kept
    return RefineSummary(
        steps=steps, num_train=int((kept & ~decisions.held_out).sum()), num_held_out=int(decisions.held_out.sum()),
        by_source=_shares(shards, kept), by_group=_counts(decisions.groups, decisions.group[kept]),
        by_kind=_counts(decisions.kinds, decisions.kind[kept]),
        num_contaminated=len({hit.index for hit in decisions.hits}),
        digests={
            path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.suffix in (".jsonl", ".parquet")
        },
    )  # fmt: skip


def _counts(names: Sequence[str], numbers: Any) -> dict[str, int]:
    return {name: int((numbers == number).sum()) for number, name in enumerate(names)}


def _shares(shards: Sequence[Shard], kept: Any) -> dict[str, tuple[int, int]]:
    """Rows in and rows that stay, by source."""
    found: dict[str, tuple[int, int]] = {}
    position = 0
    for shard in shards:
        rows_in, rows_out = found.get(shard.source, (0, 0))
        stays = int(kept[position : position + shard.rows_out].sum())
        found[shard.source] = rows_in + shard.rows_in, rows_out + stays
        position += shard.rows_out
    return found
