"""What pairs of responses teach beside what they should: length, and nothing at all. No torch here."""

from collections.abc import Sequence

from fairlead.algos.intervals import wilson
from fairlead.data.audit.encoded_rows import AuditedRow
from fairlead.data.audit.findings import Finding, Shown, excerpt, none_wanted
from fairlead.data.audit.template_checks import MAX_REFUSED
from fairlead.data.shingles import folded
from fairlead.data.split import normalise_prompt
from fairlead.records import Preference, Rejection

MAX_LENGTH_RULE = 0.6  # a rule that looks at nothing but length should not be right more often


def length_bias(records: Sequence[Preference]) -> Finding:
    """How often the longer response is the better one, and whether that alone would go far."""
    pairs = [(len(r.chosen), len(r.rejected)) for r in records if not _tied(r) and len(r.chosen) != len(r.rejected)]
    longer = sum(chosen > rejected for chosen, rejected in pairs)
    if not pairs:
        return Finding("length-bias", "ok", "0 pairs", "No pair has responses of different length.")
    low, high = wilson(longer, len(pairs))
    share = longer / len(pairs)
    rule, right = ("the longer", share) if share >= 0.5 else ("the shorter", 1 - share)
    sure = low if share >= 0.5 else 1 - high
    interval = f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    number = f"longer is better in {100 * share:.1f} %"
    biased = sure > MAX_LENGTH_RULE
    sentence = f"The longer response is the better one in {longer} of {len(pairs)} pairs ({interval})."
    if not biased:
        return Finding("length-bias", "ok", number, sentence)
    return Finding(
        "length-bias", "warning", number,
        f"{sentence} A model that only prefers {rule} one is right in {100 * right:.1f} %.",
        "add pairs that go the other way, and read a reward model's accuracy beside this rule's",
    )  # fmt: skip


def same_responses(
    records: Sequence[Preference], rejections: Sequence[Rejection], rows: Sequence[AuditedRow], max_length: int
) -> Finding:
    """Chosen and rejected that are the same: as text, but for case and white space, or once they are cut."""
    found = [
        Shown(f"{r.path}:{r.line}", r.reason, "two different responses") for r in rejections if "the same" in r.reason
    ]
    for record in records:
        if len(record.responses) > 1 and _folded(record.chosen) == _folded(record.rejected):
            came = f"both say {excerpt(record.chosen)!r}, but for case and white space"
            found.append(Shown(record.source, came, "two different responses"))
    known = {shown.source for shown in found}
    seen: dict[tuple[int, tuple[int, ...]], int] = {}
    for row in rows:
        if not any(row.encoded.trained[:max_length]):
            continue  # a check of its own
        cut = row.record, row.encoded.input_ids[:max_length]
        if seen.setdefault(cut, row.response) != row.response and row.source not in known:
            known.add(row.source)
            found.append(
                Shown(row.source, f"the same {max_length} tokens", "responses that differ before they are cut")
            )
    total = len(records) + len(rejections)
    return none_wanted(
        "chosen-is-rejected", found, total, verdict="fatal" if len(found) > MAX_REFUSED * total else "warning",
        well="The responses of every row differ.", badly="Rows whose responses are the same teach nothing.",
        fix="take these rows out, or raise max_length",
    )  # fmt: skip


def contradictions(records: Sequence[Preference]) -> Finding:
    """Two rows that rank the same two responses the other way round."""
    ranked: dict[tuple[str, str, str], str] = {}
    found: list[Shown] = []
    for record in records:
        if len(record.responses) < 2 or _tied(record):
            continue
        prompt, better, worse = normalise_prompt(record.prompt), _folded(record.chosen), _folded(record.rejected)
        against = ranked.get((prompt, worse, better))
        if against is not None:
            found.append(Shown(record.source, f"ranks two responses the other way round than {against}", "one order"))
        ranked.setdefault((prompt, better, worse), record.source)
    return none_wanted(
        "contradicting-pairs", found, len(records), verdict="warning",
        well="No two rows rank the same two responses differently.",
        badly="Rows rank the same two responses the other way round: they cancel each other.",
        fix="keep the ranking that most people gave",
    )  # fmt: skip


def _tied(record: Preference) -> bool:
    return len(record.responses) < 2 or (bool(record.grades) and record.grades[0] == record.grades[-1])


def _folded(text: str) -> str:
    return " ".join(folded(text).split())
