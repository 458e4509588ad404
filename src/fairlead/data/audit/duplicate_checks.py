"""Rows that say the same as others, or that hold questions of an evaluation. No torch here."""

import hashlib
from collections.abc import Sequence

from fairlead.data.audit.findings import Finding, Shown, Verdict, excerpt, none_wanted
from fairlead.data.benchmark_items import BenchmarkItem
from fairlead.data.decontaminate import Benchmarks, Hit
from fairlead.data.dedup import all_band_keys, near_duplicates
from fairlead.data.shingles import folded, some_at_a_time
from fairlead.data.views import whole_text
from fairlead.records import Record

WIDTH, THRESHOLD = 5, 0.8  # as `fairlead data refine` has them
MAX_EXACT, MAX_NEAR = 0.01, 0.05  # shares from which on duplicates are worth a warning


def exact_duplicates(records: Sequence[Record]) -> Finding:
    """Rows that are equal to an earlier one but for case, width and white space."""
    shown = [_pair(records, index, of) for index, of in equal_to(records).items()]
    return _few(
        "exact-duplicates", shown, len(records), MAX_EXACT,
        "Rows are equal to an earlier one but for case, width and white space", "counted twice, they are learnt twice",
    )  # fmt: skip


def near_duplicate_rows(records: Sequence[Record]) -> Finding:
    """Rows that are like an earlier one; exact duplicates are not counted again."""
    known = equal_to(records)
    keys = all_band_keys(map(whole_text, records), width=WIDTH)
    found = near_duplicates(
        keys, lambda places: [whole_text(records[place]) for place in places], threshold=THRESHOLD, width=WIDTH
    )
    shown = [_pair(records, one.index, one.of, one.similarity) for one in found if one.index not in known]
    return _few(
        "near-duplicates", shown, len(records), MAX_NEAR,
        f"Rows share {100 * THRESHOLD:.0f} % or more of their {WIDTH}-token runs with an earlier one",
        "held-out numbers will look better than they are",
    )  # fmt: skip


def contamination(records: Sequence[Record], items: Sequence[BenchmarkItem]) -> Finding:
    """Rows that hold a question of an evaluation file, whole or in part."""
    benchmarks = Benchmarks(items)
    hits: list[Hit] = []
    start = 0
    for batch in some_at_a_time(map(whole_text, records), len):
        hits += [Hit(hit.index + start, hit.item, hit.num_shared, hit.num_runs) for hit in benchmarks.hits(batch)]
        start += len(batch)
    best: dict[int, Hit] = {}
    for hit in hits:
        if hit.index not in best or _share(hit) > _share(best[hit.index]):
            best[hit.index] = hit
    ordered = sorted(best.values(), key=lambda hit: (-_share(hit), hit.index))
    whole = sum(_share(hit) == 1 for hit in ordered)
    num_items = len({hit.item.source for hit in hits})
    questions = f"{num_items} of {len(items)} questions"
    return none_wanted(
        "contamination", [_hit(records, hit) for hit in ordered], len(records), verdict="fatal" if whole else "warning",
        well=f"None of {len(items)} questions stands in a row.",
        badly=f"{questions} stand in rows; rows that hold one whole: {whole}. What is measured there was trained on.",
        fix="take the rows out with `fairlead data refine --contamination.against FILES`",
    )  # fmt: skip


def equal_to(records: Sequence[Record]) -> dict[int, int]:
    """Each row that is equal to an earlier one, and the first such."""
    first: dict[bytes, int] = {}
    found: dict[int, int] = {}
    for index, record in enumerate(records):
        text = " ".join(folded(whole_text(record)).split())
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if first.setdefault(key, index) != index:
            found[index] = first[key]
    return found


def _few(name: str, shown: list[Shown], total: int, limit: float, sentence: str, why: str) -> Finding:
    """A few are ok."""
    verdict: Verdict = "warning" if len(shown) > limit * total else "ok"
    return none_wanted(
        name, shown, total, verdict=verdict, well="No row is like an earlier one in this way.",
        badly=f"{sentence}: {why}." if verdict == "warning" else f"{sentence}; no more than {100 * limit:.0f} %.",
        fix="`fairlead data refine` keeps the first of each" if verdict == "warning" else "",
    )  # fmt: skip


def _pair(records: Sequence[Record], index: int, of: int, similarity: float = 1.0) -> Shown:
    alike = (
        f"{100 * similarity:.0f} % like {records[of].source}" if similarity < 1 else f"equal to {records[of].source}"
    )
    return Shown(records[index].source, f"{alike}: {excerpt(whole_text(records[index]), 120)!r}", "a row of its own")


def _hit(records: Sequence[Record], hit: Hit) -> Shown:
    came = f"{hit.num_shared} of {hit.num_runs} runs of {hit.item.source}: {excerpt(hit.item.text, 120)!r}"
    return Shown(records[hit.index].source, came, "no question of an evaluation")


def _share(hit: Hit) -> float:
    return hit.num_shared / hit.num_runs
