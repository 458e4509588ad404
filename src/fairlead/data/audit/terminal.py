"""The verdicts as lines for a terminal. No torch here."""

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from fairlead.data.audit.audit import Audit
from fairlead.data.audit.findings import Finding, Verdict
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.show import show_rows

_STYLES = {"ok": "green", "warning": "bold yellow", "fatal": "bold red"}
_MOST_SHOWN = 3


def lines(audit: Audit) -> Iterator[Text]:
    """What was looked at, then each verdict, the gravest last, so that it stands above the prompt."""
    layouts = ", ".join(audit.layouts) or "unknown"
    yield Text(f"{audit.path}: {audit.num_rows:,} rows of {audit.kind}, layout {layouts}", style="bold")
    yield Text(
        f"tokens of {audit.num_encoded:,} rows checked for {audit.model}, chat template: {audit.template}, "
        f"max_length {audit.max_length}, seed {audit.seed}"
    )
    yield from map(Text, audit.notes)
    verdicts: tuple[Verdict, ...] = ("ok", "warning", "fatal")
    for verdict in verdicts:
        for finding in audit.findings:
            if finding.verdict == verdict:
                yield _finding(finding, audit)
    for sentence in audit.not_checked:
        yield Text(f"not checked  {sentence}", style="dim")
    yield Text(f"{audit.verdict}: {audit.counts}", style=_STYLES[audit.verdict])


def sampled_rows(audit: Audit, tokenizer: Any) -> Iterator[Text]:
    """The drawn rows, token by token."""
    if audit.template == "none":  # documents have no roles; without a usable template there is nothing to show
        return
    template = ChatTemplate(tokenizer)
    for text in show_rows(
        audit.sampled, template, len(audit.sampled), max_length=audit.max_length, tokenizer=tokenizer
    ):
        yield text.append("\n")


def _finding(finding: Finding, audit: Audit) -> Text:
    text = Text(f"{finding.verdict:8}", style=_STYLES[finding.verdict])
    text.append(f" {finding.title}: {finding.number}. {finding.sentence}", style="not bold default")
    if finding.verdict == "ok":
        return text
    for shown in finding.shown[:_MOST_SHOWN]:
        wanted = f"; want {shown.wanted}" if shown.wanted else ""
        where = audit.brief(f"{shown.source}: {shown.came}")
        text.append(f"\n           {where}{wanted}", style="not bold default")
    if finding.fix:
        text.append(f"\n           fix: {finding.fix}", style="not bold default")
    return text
