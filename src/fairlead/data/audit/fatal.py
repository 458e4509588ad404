"""The findings that training does not go on with, cheap enough for every start of a stage. No torch here."""

from collections.abc import Collection, Sequence
from typing import get_args

from fairlead.config.common import FatalFinding
from fairlead.data.audit.audit import token_findings
from fairlead.data.audit.duplicate_checks import contamination
from fairlead.data.audit.encoded_rows import Encoder, encode_rows
from fairlead.data.audit.findings import Finding, Shown
from fairlead.data.audit.model_facts import ModelFacts
from fairlead.data.audit.samples import pick
from fairlead.data.benchmark_items import BenchmarkItem
from fairlead.errors import ExitCode, UserError
from fairlead.records import Record

NUM_ENCODED = 256  # rows whose tokens are checked


def fatal_findings(
    records: Sequence[Record], encoder: Encoder, facts: ModelFacts, *, items: Sequence[BenchmarkItem] = (),
    max_length: int, seed: int,
) -> list[Finding]:  # fmt: skip
    """The fatal ones of the audit's findings on what is about to be trained on; empty when all is well.

    Tokens are checked of `NUM_ENCODED` records, drawn by the seed, and questions of evaluations are looked for in all.
    Records that cannot be encoded or have nothing left within `max_length` are no finding: they are never trained on,
    and data.max_reject_rate says how many may go.
    """
    rows, _ = encode_rows([records[place] for place in pick(len(records), NUM_ENCODED, seed)], encoder)
    rows = [row for row in rows if not row.answers or any(row.encoded.trained[1:max_length])]
    findings = token_findings(rows, (), encoder, facts, max_length=max_length)
    if items:
        findings.append(contamination(records, items))
    return [finding for finding in findings if finding.verdict == "fatal"]


def refuse_fatal(
    findings: Sequence[Finding], *, accepted: Collection[str] = (), option: str = "data.accept"
) -> list[str]:
    """Raise UserError for the first finding that is not accepted by name; return a warning for each that is."""
    for finding in findings:
        if finding.name in accepted:
            continue
        example = finding.shown[0] if finding.shown else Shown("", "")
        fix = finding.fix
        if finding.name in get_args(FatalFinding):  # ids beyond the embedding can never be trained
            fix += f"; to train all the same: {option}=[{','.join(sorted({finding.name, *accepted}))}]"
        raise UserError(
            f"{finding.name}: {finding.sentence.removesuffix('.')}", where=example.source,
            got="; ".join(filter(None, [finding.number, example.came])), want=example.wanted,
            fix=fix, exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return [f"warning: {finding.name}, {finding.number}: {finding.sentence}" for finding in findings]
