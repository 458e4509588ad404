"""Whether the model has a row for every token, and how long the sequences are. No torch here."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from fairlead.data.audit.encoded_rows import AuditedRow
from fairlead.data.audit.findings import Bar, Finding, Shown, none_wanted
from fairlead.data.audit.model_facts import ModelFacts

Decode = Callable[[Sequence[int]], str]  # special tokens included

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_EDGES = (0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def ids_beyond_embedding(rows: Sequence[AuditedRow], decode: Decode, facts: ModelFacts) -> Finding:
    """Every token id is a row of the model's embedding."""
    limit = facts.num_embeddings
    if limit is None:
        return Finding("ids-beyond-embedding", "ok", "not counted", "The size of this model's embedding is not known.")
    found = [shown for row in rows if (shown := _beyond(row, limit, decode)) is not None]
    fix = "use the tokenizer this model was trained with, or resize the embedding to the tokenizer"
    if not found and facts.highest_token_id >= limit:
        sentence = (
            f"No row has such an id, but the tokenizer knows ids up to {facts.highest_token_id} and the embedding has "
            f"{limit} rows: the model will not be loaded."
        )
        highest = facts.highest_token_id
        shown = (Shown(facts.name, f"token id {highest}", f"ids below {limit}"),)
        return Finding("ids-beyond-embedding", "fatal", f"highest id {highest}", sentence, fix, shown)
    return none_wanted(
        "ids-beyond-embedding", found, len(rows), noun="sequences", verdict="fatal", fix=fix,
        well=f"Every token id is below {limit}, the rows of the embedding.",
        badly=f"Token ids reach beyond the embedding of {limit} rows; on a GPU that is a crash nobody can read.",
    )  # fmt: skip


def lengths(rows: Sequence[AuditedRow], max_length: int) -> Finding:
    """How many tokens the sequences have."""
    counts = sorted(len(row.encoded.input_ids) for row in rows)
    if not counts:
        return Finding("lengths", "ok", "0 sequences", "There is nothing to measure.")
    spread = ", ".join(f"{100 * share:.0f} %: {quantile(counts, share):.0f}" for share in QUANTILES)
    longer = sum(count > max_length for count in counts)
    sentence = f"Tokens of a sequence by quantile: {spread}, longest: {counts[-1]}. {longer} of {len(counts)} are cut."
    edges = [edge for edge in _EDGES if edge <= counts[-1]]
    bars = [
        Bar(f"{low} to {high - 1}", sum(low <= count < high for count in counts))
        for low, high in pairwise([*edges, max(counts[-1] + 1, edges[-1] + 1)])
    ]
    first = next(i for i, bar in enumerate(bars) if bar.count)
    number = f"median {quantile(counts, 0.5):.0f} tokens"
    return Finding("lengths", "ok", number, sentence, bars=tuple(bars[first:]))


def quantile(ascending: Sequence[float], share: float) -> float:
    """The value below which this share lies, interpolated (Hyndman and Fan 1996, type 7)."""
    place = share * (len(ascending) - 1)
    low = int(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (place - low) * (ascending[high] - ascending[low])


def _beyond(row: AuditedRow, limit: int, decode: Decode) -> Shown | None:
    ids = row.encoded.input_ids
    if not ids or (min(ids) >= 0 and max(ids) < limit):
        return None
    place = next(i for i, token in enumerate(ids) if not 0 <= token < limit)
    before = decode(ids[max(place - 6, 0) : place])
    return Shown(row.title, f"token {place} has id {ids[place]}, behind …{before!r}", f"ids from 0 to {limit - 1}")
