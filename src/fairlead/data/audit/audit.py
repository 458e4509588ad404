"""`fairlead data audit`: every check on a file of rows. No torch here.

Rows are counted, compared and searched all; what needs tokens is checked on `limit` of them, drawn by the seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairlead.data.audit import duplicate_checks, mask_checks, preference_checks, template_checks, text_checks
from fairlead.data.audit.encoded_rows import AuditedRow, Encoder, encode_documents, encode_rows
from fairlead.data.audit.findings import Finding, Shown, Verdict, worst
from fairlead.data.audit.model_facts import ModelFacts
from fairlead.data.audit.samples import Sample, pick, sample_rows
from fairlead.data.audit.token_checks import ids_beyond_embedding, lengths
from fairlead.data.benchmark_items import BenchmarkItem, read_benchmarks
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.layouts import Kind
from fairlead.data.load import read_all
from fairlead.errors import UserError
from fairlead.records import Document, Preference, Record, Rejection


@dataclass(frozen=True, slots=True)
class Audit:
    """What was looked at and what was found."""

    path: str
    kind: Kind
    layouts: tuple[str, ...]
    model: str
    template: str  # where the chat template comes from
    num_rows: int  # unreadable ones too
    num_encoded: int  # rows whose tokens were checked
    max_length: int
    seed: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()  # on how the files were read
    not_checked: tuple[str, ...] = ()  # sentences: what, and why not
    samples: tuple[Sample, ...] = ()
    sampled: tuple[Record, ...] = ()  # the records of the samples

    @property
    def verdict(self) -> Verdict:
        """The gravest of all verdicts."""
        return worst(finding.verdict for finding in self.findings)

    @property
    def counts(self) -> str:
        """How many checks came to each verdict, in words."""
        warnings = self.count("warning")
        return f"{self.count('fatal')} fatal, {warnings} warning{'s' * (warnings != 1)}, {self.count('ok')} ok"

    def brief(self, text: str) -> str:
        """A text without the folder of the rows, where it is named from the root; the head says it once."""
        folder = Path(self.path).parent
        return text.replace(f"{folder}/", "") if folder.is_absolute() else text

    def count(self, verdict: Verdict) -> int:
        """How many checks came to this verdict."""
        return sum(finding.verdict == verdict for finding in self.findings)


def audit_file(
    path: Path | str, tokenizer: Any, facts: ModelFacts, *, against: Iterable[Path | str], max_length: int,
    num_samples: int, limit: int, seed: int, columns: Mapping[str, str] | None = None, encoding: str | None = None,
) -> Audit:  # fmt: skip
    """All checks on a file or folder, for the model of this tokenizer; `against` are files of evaluation questions."""
    items = read_benchmarks(against)
    kind, loaded = read_all(path, columns, encoding)
    records = loaded.records
    drawn = [records[place] for place in pick(len(records), limit, seed)]
    tokens = _of_tokens(drawn, kind, tokenizer, facts, max_length, str(path))
    findings = [
        *tokens.findings,
        *text_findings(records, loaded.rejections, loaded.num_rows),
        *preference_findings(records, loaded.rejections, tokens.rows, max_length),
    ]
    if items:
        findings.append(duplicate_checks.contamination(records, items))
    usable = sorted({row.record for row in tokens.rows})
    sampled = [usable[place] for place in pick(len(usable), num_samples, seed)]
    rows = [row for row in tokens.rows if row.record in sampled]
    return Audit(
        str(path), kind, tuple(dict.fromkeys(loaded.layouts.values())), facts.name, tokens.template, loaded.num_rows,
        len(drawn), max_length, seed, tuple(findings), tuple(loaded.told), (*tokens.not_checked, *_not_checked(items)),
        sample_rows(rows, tokenizer, max_length=max_length), tuple(drawn[place] for place in sampled),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _OfTokens:
    """What the rows look like as tokens, and what was found in them."""

    rows: Sequence[AuditedRow]
    findings: Sequence[Finding]
    template: str
    not_checked: tuple[str, ...] = ()


def _of_tokens(
    records: Sequence[Record], kind: Kind, tokenizer: Any, facts: ModelFacts, max_length: int, path: str
) -> _OfTokens:
    if kind == "documents":
        rows = encode_documents([record for record in records if isinstance(record, Document)], tokenizer)
        found = [ids_beyond_embedding(rows, tokenizer.decode, facts), lengths(rows, max_length)]
        return _OfTokens(rows, found, "none", ("Template, mask and end tokens: documents have none.",))
    try:
        encoder = ChatTemplate(tokenizer)
    except UserError as refusal:
        finding = _unusable_template(refusal, path, len(records))
        return _OfTokens((), [finding], "none", ("Tokens, masks and lengths: the chat template cannot be used.",))
    rows, refused = encode_rows(records, encoder)
    return _OfTokens(rows, token_findings(rows, refused, encoder, facts, max_length=max_length), encoder.source)


def token_findings(
    rows: Sequence[AuditedRow], refused: Sequence[Shown], encoder: Encoder, facts: ModelFacts, *, max_length: int
) -> list[Finding]:
    """The checks that need tokens."""
    return [
        template_checks.round_trip(rows, refused, encoder),
        template_checks.generation_prompt(rows, encoder),
        mask_checks.trained_is_the_answers(rows, encoder),
        mask_checks.end_token_trained(rows, encoder, facts),
        mask_checks.no_trained_token(rows, max_length),
        mask_checks.truncated_answers(rows, max_length),
        template_checks.special_tokens_as_text(rows, facts),
        ids_beyond_embedding(rows, partial(encoder.decode, special=True), facts),
        lengths(rows, max_length),
    ]


def text_findings(records: Sequence[Record], rejections: Sequence[Rejection], num_rows: int) -> list[Finding]:
    """The checks that need no model."""
    return [
        text_checks.unreadable_rows(rejections, num_rows),
        text_checks.empty_answers(records, rejections),
        text_checks.languages(records),
        duplicate_checks.exact_duplicates(records),
        duplicate_checks.near_duplicate_rows(records),
    ]


def preference_findings(
    records: Sequence[Record], rejections: Sequence[Rejection], rows: Sequence[AuditedRow], max_length: int
) -> list[Finding]:
    """The checks of ranked responses; none for rows of other kinds."""
    ranked = [record for record in records if isinstance(record, Preference)]
    if not ranked:
        return []
    return [
        preference_checks.length_bias(ranked),
        preference_checks.same_responses(ranked, rejections, rows, max_length),
        preference_checks.contradictions(ranked),
    ]


def _unusable_template(refusal: UserError, path: str, total: int) -> Finding:
    return Finding(
        "template-round-trip", "fatal", f"all {total} rows", f"No row can be encoded: {refusal.what}.",
        refusal.fix, (Shown(path, refusal.got, refusal.want),),
    )  # fmt: skip


def _not_checked(items: Sequence[BenchmarkItem]) -> tuple[str, ...]:
    return () if items else ("Contamination: name evaluation files with --against.",)
