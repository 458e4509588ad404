"""What can be said of rows without a model: which could be read, what language they are in, empty answers. No torch."""

from collections import Counter
from collections.abc import Sequence

from fairlead.data.audit.findings import Bar, Finding, Shown, excerpt, none_wanted, part_of
from fairlead.data.audit.scripts import script_of
from fairlead.data.audit.template_checks import MAX_REFUSED
from fairlead.data.views import answer_texts, whole_text
from fairlead.records import Record, Rejection


def unreadable_rows(rejections: Sequence[Rejection], num_rows: int) -> Finding:
    """Rows that no record could be made of, by reason; too many of them stop training."""
    reasons = Counter(rejection.reason for rejection in rejections)
    firsts = {rejection.reason: rejection for rejection in reversed(rejections)}
    shown = tuple(
        Shown(f"{firsts[reason].path}:{firsts[reason].line}", f"{count} × {reason}", "a row of the file's layout")
        for reason, count in reasons.most_common(5)
    )
    number = part_of(len(rejections), num_rows)
    if not rejections:
        return Finding("unreadable-rows", "ok", number, "Every row could be read.")
    disordered = sum("out of order" in rejection.reason for rejection in rejections)
    roles = f" In {disordered} of them roles are out of order." if disordered else ""
    grave = len(rejections) > MAX_REFUSED * num_rows
    stops = f" Above {100 * MAX_REFUSED:.0f} % training stops." if grave else ""
    return Finding(
        "unreadable-rows", "fatal" if grave else "warning", number,
        f"Rows that cannot be used are set aside.{roles}{stops}",
        "mend these rows, or take them out; data.max_reject_rate says how many training puts up with", shown,
    )  # fmt: skip


def empty_answers(records: Sequence[Record], rejections: Sequence[Rejection]) -> Finding:
    """Answers that say nothing: empty ones, and those without a letter or digit."""
    found = [Shown(f"{r.path}:{r.line}", r.reason, "an answer") for r in rejections if _is_empty(r.reason)]
    for record in records:
        mute = next((text for text in answer_texts(record) if not any(c.isalnum() for c in text)), None)
        if mute is not None:
            found.append(Shown(record.source, f"the answer is {excerpt(mute)!r}", "an answer with words"))
    return none_wanted(
        "empty-answers", found, len(records) + len(rejections), verdict="warning",
        well="Every answer has a letter or a digit.", badly="Answers say nothing.", fix="take these rows out",
    )  # fmt: skip


def languages(records: Sequence[Record]) -> Finding:
    """The writing systems of the rows."""
    counts = Counter(script_of(whole_text(record)) for record in records)
    bars = tuple(Bar(name, count) for name, count in counts.most_common())
    shares = ", ".join(f"{bar.label} {100 * bar.count / len(records):.1f} %" for bar in bars)
    number = bars[0].label if bars else "0 rows"
    return Finding("languages", "ok", number, f"Rows by writing system: {shares or 'none'}.", bars=bars)


def _is_empty(reason: str) -> bool:
    return reason.endswith("is empty") and "user" not in reason
