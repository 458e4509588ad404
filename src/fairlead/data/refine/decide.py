"""Second pass: which of the filtered rows stay, for reasons that lie in other rows or in evaluations."""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import orjson

from fairlead.config.refine import DuplicatesConfig, RefineConfig
from fairlead.data.decontaminate import Benchmarks, Hit
from fairlead.data.dedup import Keys, band_keys, clusters, near_duplicates
from fairlead.data.refine.mix import rows_to_keep
from fairlead.data.refine.shards import Reader, Shard
from fairlead.data.rows import from_row
from fairlead.data.shingles import hash_tokens, some_at_a_time
from fairlead.data.views import answer_texts, prompt_text, whole_text
from fairlead.records import Record

EXACT, NEAR, CONTAMINATED, MIXED = "duplicates", "near-duplicates", "contamination", "mix"
STEPS = (EXACT, NEAR, CONTAMINATED, MIXED)
LIKE_PROMPTS = 0.8  # similarity of prompts that must not be parted, where near-duplicates are left


@dataclass
class Decisions:
    """What becomes of each row, by its position in all shards."""

    step: npt.NDArray[np.uint8]  # [N], 0 where the row stays, else 1 + the position in STEPS
    of: npt.NDArray[np.int64]  # [N], the row that a duplicate is like, -1 elsewhere
    similarity: npt.NDArray[np.float32]  # [N], of near-duplicates
    held_out: npt.NDArray[np.bool_]  # [N]
    groups: list[str]  # names of the groups of the mix
    group: npt.NDArray[np.int32]  # [N]
    kind: npt.NDArray[np.uint8]  # [N], position in `kinds`
    kinds: list[str] = field(default_factory=list)  # of records: conversation, preference ...
    hits: list[Hit] = field(default_factory=list)  # in the order of the rows

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Rows that stay."""
        return self.step == 0

    def reason(self, index: int, source_of: Callable[[int], str]) -> tuple[str, str]:
        """Step and words for a row that goes."""
        step = STEPS[int(self.step[index]) - 1]
        match step:
            case "duplicates":
                return step, f"says the same as {source_of(int(self.of[index]))}"
            case "near-duplicates":
                return step, f"{self.similarity[index]:.2f} like {source_of(int(self.of[index]))}"
            case "contamination":
                hit = self.hits[bisect_left(self.hits, index, key=lambda hit: hit.index)]
                return step, f"holds {hit.num_shared} of {hit.num_runs} runs of {hit.item.source}"
            case _:
                return step, f"the share of {self.groups[int(self.group[index])]} is full"


def decide(
    shards: Sequence[Shard], config: RefineConfig, benchmarks: Benchmarks | None, group_of: Callable[[Record, str], str]
) -> Decisions:
    """Duplicates, near-duplicates, contamination, the mix and what is held out, in this order."""
    number = sum(shard.rows_out for shard in shards)
    decisions = Decisions(
        np.zeros(number, dtype=np.uint8), np.full(number, -1, dtype=np.int64), np.zeros(number, dtype=np.float32),
        np.zeros(number, dtype=np.bool_), [], np.zeros(number, dtype=np.int32), np.zeros(number, dtype=np.uint8),
    )  # fmt: skip
    keys, prompt_keys, order = _look(shards, config, benchmarks, group_of, decisions)
    reader = Reader(shards)
    if config.duplicates.threshold:
        keys[decisions.step > 0] = 0
        _near(keys, reader, config.duplicates, decisions)
    if config.contamination.action == "drop":
        found = np.array(sorted({hit.index for hit in decisions.hits}), dtype=np.int64)
        _drop(decisions, found[decisions.kept[found]] if len(found) else found, CONTAMINATED)
    if config.mix.weights or config.mix.rows or config.mix.temperature != 1.0:
        kept = rows_to_keep(decisions.kept, decisions.group, decisions.groups, order, config.mix)
        _drop(decisions, np.flatnonzero(decisions.kept & ~kept), MIXED)
    if config.held_out:
        prompt_keys[decisions.step > 0] = 0
        _hold_out(prompt_keys, reader, config, order, decisions)
    return decisions


def _look(
    shards: Sequence[Shard], config: RefineConfig, benchmarks: Benchmarks | None,
    group_of: Callable[[Record, str], str], decisions: Decisions,
) -> tuple[Keys, Keys, npt.NDArray[np.uint64]]:  # fmt: skip
    """Everything that is seen of the rows in one pass: band keys of texts and of prompts, and an order by seed.

    Exact duplicates, hits and groups go into `decisions`.
    """
    first: dict[bytes, int] = {}
    names: dict[str, int] = {}
    kinds: dict[str, int] = {}
    keys, prompt_keys, order = [], [], []
    near, hold = config.duplicates.threshold > 0, config.held_out > 0
    position = 0
    for source, records in _batches(shards):
        texts = [_compared(record, config.duplicates) for record in records]
        if config.duplicates.exact:
            for place, digest in enumerate(_digests(texts), start=position):
                decisions.of[place] = first.setdefault(digest, place)
        if benchmarks is not None:
            hits = benchmarks.hits([whole_text(record) for record in records])
            decisions.hits += [replace(hit, index=position + hit.index) for hit in hits]
        keys += [band_keys(texts, width=config.duplicates.shingle)] if near else []
        prompts = [_prompt(record) for record in records] if hold else []
        prompt_keys += [band_keys(prompts, width=config.duplicates.shingle)] if hold else []
        for place, record in enumerate(records, start=position):
            decisions.group[place] = names.setdefault(group_of(record, source), len(names))
            decisions.kind[place] = kinds.setdefault(type(record).__name__.lower(), len(kinds))
            seeded = f"{config.seed}\n{record.source}".encode("utf-8", "surrogatepass")
            order.append(int.from_bytes(hashlib.blake2b(seeded, digest_size=8).digest()))
        position += len(records)
    decisions.groups, decisions.kinds = list(names), list(kinds)
    if config.duplicates.exact:
        same = decisions.of < np.arange(position)
        decisions.of[~same] = -1
        _drop(decisions, np.flatnonzero(same), EXACT)
    none = band_keys([], width=config.duplicates.shingle)
    return np.concatenate([none, *keys]), np.concatenate([none, *prompt_keys]), np.array(order, dtype=np.uint64)


def _near(keys: Keys, reader: Reader, config: DuplicatesConfig, decisions: Decisions) -> None:
    found = near_duplicates(
        keys, lambda indices: [_compared(record, config) for record in reader.records(indices)],
        threshold=config.threshold, width=config.shingle,
    )  # fmt: skip
    for duplicate in found:
        decisions.of[duplicate.index] = duplicate.of
        decisions.similarity[duplicate.index] = duplicate.similarity
    _drop(decisions, np.array([duplicate.index for duplicate in found], dtype=np.int64), NEAR)


def _hold_out(
    keys: Keys, reader: Reader, config: RefineConfig, order: npt.NDArray[np.uint64], decisions: Decisions
) -> None:
    """Whole clusters of prompts, in the order of the seed, until the share is reached."""
    linked = clusters(
        keys, lambda indices: [_prompt(record) for record in reader.records(indices)],
        threshold=config.duplicates.threshold or LIKE_PROMPTS, width=config.duplicates.shingle,
    )  # fmt: skip
    kept = np.flatnonzero(decisions.kept)
    sizes = np.bincount(linked[kept], minlength=len(linked))
    wanted = round(config.held_out * len(kept))
    chosen = np.zeros(len(linked), dtype=np.bool_)
    heads = np.unique(linked[kept])
    for head in heads[np.argsort(order[heads], kind="stable")].tolist():
        if sizes[head] <= wanted:
            chosen[head] = True
            wanted -= int(sizes[head])
    decisions.held_out = chosen[linked] & decisions.kept


def _drop(decisions: Decisions, indices: npt.NDArray[np.int64], step: str) -> None:
    decisions.step[indices] = 1 + STEPS.index(step)


def _compared(record: Record, config: DuplicatesConfig) -> str:
    match config.of:
        case "whole":
            return whole_text(record)
        case "prompt":
            return _prompt(record)
        case "answer":
            return "\n".join(answer_texts(record)) or whole_text(record)


def _prompt(record: Record) -> str:
    return prompt_text(record) or whole_text(record)


def _digests(texts: Sequence[str]) -> Iterator[bytes]:
    """Equal where all tokens are; of a text without tokens the text itself counts."""
    tokens = hash_tokens(texts)
    for index, text in enumerate(texts):
        own = tokens.of(index).tobytes() or text.encode("utf-8", "surrogatepass")
        yield hashlib.blake2b(own, digest_size=16).digest()


def _batches(shards: Sequence[Shard]) -> Iterator[tuple[str, list[Record]]]:
    """Records of one source, some at a time."""
    for shard in shards:
        for lines in some_at_a_time(shard.lines(), len):
            yield shard.source, [from_row(orjson.loads(line)) for line in lines]
