"""Rows for a training stage: read, split by prompt, encoded. Every rank reads all; the sampler deals them out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from fairlead.artifacts.manifest import require_kind
from fairlead.artifacts.stages import is_taken, stage_folder
from fairlead.config.common import DataConfig, ModelConfig, RowKind
from fairlead.config.online import PromptsConfig
from fairlead.data.audit.fatal import fatal_findings, refuse_fatal
from fairlead.data.audit.model_facts import ModelFacts, facts_of
from fairlead.data.benchmark_items import read_benchmarks
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import (
    Example,
    JudgedExample,
    PairExample,
    RankedExample,
    Task,
    conversation_examples,
    judged_examples,
    preference_examples,
    ranked_examples,
    task_examples,
)
from fairlead.data.language import is_chinese
from fairlead.data.load import READERS, Loaded, check_rejections, write_rejections
from fairlead.data.sampler import Mixture
from fairlead.data.sources import expand
from fairlead.data.split import split_by_prompt, without_prompts_of
from fairlead.data.starter import resolve_paths
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.summary import CHINESE_REPLIES, ENGLISH_REPLIES
from fairlead.models.loading import num_embeddings_in, require_context, tokenizer_in
from fairlead.models.sources import Source, resolve
from fairlead.records import Conversation, Judgement, Preference, Prompt, Rejection
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.start import Runtime

E = TypeVar("E")


@dataclass(frozen=True)
class Rows(Generic[E]):
    """Encoded rows of a stage. Held-out rows are grouped by the language of the response."""

    train: list[E]
    mixture: Mixture  # which of them an epoch draws
    held_out: dict[str, list[E]]
    digests: dict[str, str]
    notes: list[str]  # for the user: layouts guessed, rows set aside, rows held out


@dataclass(frozen=True)
class RowEncoder:
    """What makes tokens of rows for one model, and what that model takes."""

    template: ChatTemplate
    facts: ModelFacts


def encoder_of(source: Source) -> RowEncoder:
    """That of the model's own tokenizer and embedding."""
    folder = source.base.folder
    tokenizer = tokenizer_in(folder)
    return RowEncoder(ChatTemplate(tokenizer), facts_of(source.name, tokenizer, num_embeddings_in(folder)))


def policy_source(model: ModelConfig, max_tokens: int) -> Source:
    """Where the named policy is; UserError for another kind of artifact, or one whose context has no such length."""
    source = resolve(model.name, revision=model.revision)
    if source.manifest is not None and source.artifact is not None:
        require_kind(source.artifact, ("policy",), wanted_for="model.name")
    require_context(source, max_tokens)
    return source


def rejects_path(output: str, stage: str, runtime: Runtime) -> Path | None:
    """Where rows set aside are listed; None on other ranks, and for a folder that is finished or in use."""
    folder = stage_folder(Path(output), stage)
    return folder / "rejects.jsonl" if runtime.is_main and not is_taken(folder) else None


def padding_token(template: ChatTemplate) -> int | None:
    """A special token that never ends a response, for batches of a sequence classifier; None if there is none."""
    return next((i for i in template.special_token_ids if i not in template.end_token_ids), None)


def load_conversations(data: DataConfig, encoder: RowEncoder, *, rejects: Path | None, seed: int) -> Rows[Example]:
    """Conversations with every assistant turn trained."""

    def encode(records: Sequence[Conversation]) -> tuple[list[Example], list[Rejection]]:
        return conversation_examples(records, encoder.template, data.max_length)

    return _load(data, encoder, "conversations", encode, _last_words, rejects, seed)


def load_preferences(
    data: DataConfig, encoder: RowEncoder, *, end_token: bool, rejects: Path | None, seed: int
) -> Rows[PairExample]:
    """Preference pairs with the response tokens trained."""

    def encode(records: Sequence[Preference]) -> tuple[list[PairExample], list[Rejection]]:
        return preference_examples(records, encoder.template, data.max_length, end_token=end_token)

    return _load(data, encoder, "preferences", encode, lambda record: record.chosen, rejects, seed)


def load_judgements(
    data: DataConfig, encoder: RowEncoder, *, end_token: bool, rejects: Path | None, seed: int
) -> Rows[JudgedExample]:
    """Responses, each desirable or not, with the response tokens trained."""

    def encode(records: Sequence[Judgement]) -> tuple[list[JudgedExample], list[Rejection]]:
        return judged_examples(records, encoder.template, data.max_length, end_token=end_token)

    return _load(data, encoder, "judgements", encode, lambda record: record.responses[0], rejects, seed)


def load_ranked(
    data: DataConfig,
    encoder: RowEncoder,
    *,
    end_token: bool,
    graded: bool,
    paired: bool,
    rejects: Path | None,
    seed: int,
) -> Rows[RankedExample]:
    """Prompts with all their responses, those tokens trained; `graded` and `paired` as in `ranked_examples`."""

    def encode(records: Sequence[Preference]) -> tuple[list[RankedExample], list[Rejection]]:
        wanted = {"end_token": end_token, "graded": graded, "paired": paired}
        return ranked_examples(records, encoder.template, data.max_length, **wanted)

    return _load(data, encoder, "preferences", encode, lambda record: record.chosen, rejects, seed)


def load_tasks(data: PromptsConfig, encoder: RowEncoder, *, rejects: Path | None, seed: int) -> Rows[Task]:
    """Prompts with their reference answers, from rows of any layout; none is held out."""

    def encode(records: Sequence[Prompt]) -> tuple[list[Task], list[Rejection]]:
        return task_examples(records, encoder.template, data.max_length, cut_long=data.long_prompts == "cut")

    all_of_them = DataConfig(**data.model_dump(exclude={"long_prompts"}), held_out_rows=0)
    return _load(all_of_them, encoder, "prompts", encode, _last_words, rejects, seed)


def _last_words(record: Conversation | Prompt) -> str:
    return record.messages[-1].content


def _load(
    data: DataConfig,
    encoder: RowEncoder,
    kind: RowKind,
    encode: Callable[[Sequence], tuple[list[E], list[Rejection]]],
    response_of: Callable[..., str],
    rejects: Path | None,
    seed: int,
) -> Rows[E]:
    if not data.train:
        raise UserError("no training rows were named", where="data.train", fix="--data FILE")
    loaded = READERS[kind](resolve_paths(data.train, cache_folder(), kind), rejects=rejects, **data.reading)
    records, held_out, digests, notes = _apart(data, loaded, kind, seed)
    encoded = [encode(group) for group in _by_entry(data, records, kind)]
    train = [example for examples, _ in encoded for example in examples]
    unusable = [rejection for _, rejections in encoded for rejection in rejections]
    groups: dict[str, list[E]] = {}
    for name, chinese in ((ENGLISH_REPLIES, False), (CHINESE_REPLIES, True)):
        group, lost = encode([record for record in held_out if is_chinese(response_of(record)) == chinese])
        unusable += lost
        if group:
            groups[name] = group
    if rejects is not None and unusable:
        write_rejections(rejects, (*loaded.rejections, *unusable))
    if not train:
        raise UserError(
            "no usable training row is left", where=", ".join(data.train),
            got=unusable[0].reason if unusable else "0 rows",
            fix="look at the rows; if they are too long, raise data.max_length", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    mixture = _mixture(data, [len(examples) for examples, _ in encoded], notes)
    check_rejections(unusable, len(records) + len(held_out), max_reject_rate=data.max_reject_rate, rejects=rejects)
    notes += _audited(records, encoder, data, seed)
    held = sum(map(len, groups.values()))
    notes.append(f"{len(train)} rows to train on, {held} held out, {len(loaded.rejections) + len(unusable)} set aside")
    return Rows(train, mixture, groups, digests, notes)


def _audited(records: Sequence[Any], encoder: RowEncoder, data: DataConfig, seed: int) -> list[str]:
    """Refuse what `fairlead data audit` calls fatal; warnings where that was accepted."""
    items = read_benchmarks(resolve_paths(data.against, cache_folder())) if data.against else []
    findings = fatal_findings(
        records, encoder.template, encoder.facts, items=items, max_length=data.max_length, seed=seed
    )
    return refuse_fatal(findings, accepted=data.accept)


def _by_entry(data: DataConfig, records: Sequence[Any], kind: RowKind) -> list[list[Any]]:
    """The records of each entry of `data.train` if each has a weight, else all together."""
    if not data.weights:
        return [list(records)]
    files = [{str(path) for path in expand(resolve_paths([entry], cache_folder(), kind))} for entry in data.train]
    return [[record for record in records if record.source.rpartition(":")[0] in names] for names in files]


def _mixture(data: DataConfig, sizes: list[int], notes: list[str]) -> Mixture:
    mixture = Mixture(tuple(sizes), data.weights)
    if not data.weights:
        return mixture
    for entry, size, share in zip(data.train, sizes, mixture.shares, strict=True):
        if not size:
            raise UserError(
                "no usable row is left of one of the files that are mixed", where=entry,
                fix="leave it out with its weight, or look at its rows", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        notes.append(f"{entry}: every epoch draws {share} rows, {share / size:.2f} times its {size}")
    return mixture


def _apart(data: DataConfig, loaded: Loaded, kind: RowKind, seed: int) -> tuple[list, list, dict[str, str], list[str]]:
    """Records to train on and to hold out, so that no prompt is among both; digests of the files; notes."""
    records = loaded.records[: data.max_rows] if data.max_rows else loaded.records
    notes = [f"{path}: {layout}" for path, layout in loaded.layouts.items()] + loaded.told
    files = READERS[kind](resolve_paths(data.held_out, cache_folder(), kind), **data.reading)
    known = without_prompts_of(records, files.records)
    if records and not known:
        raise UserError(
            "the prompt of every training row is held out", where=", ".join(data.train), got=", ".join(data.held_out),
            fix="hold out other rows, or leave data.held_out away: some are split off", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    if len(known) < len(records):
        notes.append(f"{len(records) - len(known)} training rows left out: their prompts are held out")
    num_held_out = 0 if data.held_out else min(data.held_out_rows, len(known) // 5)
    split = split_by_prompt(known, parts={"held_out": num_held_out, "train": 1.0}, seed=seed)
    notes.append(f"split by prompt, {split.num_duplicates} duplicate rows removed, digest {split.digest[:12]}")
    held_out = [*files.records, *split.parts["held_out"]]
    return split.parts["train"], held_out, {**loaded.digests, **files.digests}, notes
