"""The findings that training does not go on with, cheap enough for every start of a stage. No torch here."""

from collections.abc import Collection, Sequence

from fairlead.data.audit.findings import Finding, Shown, none_wanted
from fairlead.data.examples import Example
from fairlead.errors import ExitCode, UserError


def fatal_findings(
    rows: Sequence[Example], *, num_embeddings: int | None = None, end_token_ids: Collection[int] = ()
) -> list[Finding]:
    """What makes training on these rows pointless or impossible: the verdicts are all fatal; none is good news.

    A row without a trained token; an id that the embedding of `num_embeddings` rows has no row for; end tokens that no
    row trains. Without `end_token_ids` (a reward model may score responses that have none) the last is not looked for.
    """
    findings = [_untrained(rows), _beyond(rows, num_embeddings), _endless(rows, frozenset(end_token_ids))]
    return [finding for finding in findings if finding.verdict == "fatal"]


def refuse_fatal(
    findings: Sequence[Finding], *, accepted: Collection[str] = (), option: str = "data.accept"
) -> list[str]:
    """Raise UserError for the first finding that is not accepted by name; return a warning for each that is."""
    for finding in findings:
        if finding.name in accepted:
            continue
        example = finding.shown[0] if finding.shown else Shown("", "")
        raise UserError(
            finding.sentence.removesuffix("."), where=example.source, got=example.came, want=example.wanted,
            fix=f"{finding.fix}; to train all the same: {option}=[{finding.name}]", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return [f"warning: {finding.name}, {finding.number}: {finding.sentence}" for finding in findings]


def _untrained(rows: Sequence[Example]) -> Finding:
    found = [
        Shown(row.source, f"none of {len(row.input_ids)} tokens is trained", "a trained token")
        for row in rows
        if not any(row.trained[1:])
    ]
    return none_wanted(
        "no-trained-token", found, len(rows), verdict="fatal", well="Every row has a trained token.",
        badly="All of a row is masked, so it teaches nothing.", fix="look at the rows: fairlead data audit FILE",
    )  # fmt: skip


def _beyond(rows: Sequence[Example], limit: int | None) -> Finding:
    found: list[Shown] = []
    for row in rows:
        highest, lowest = max(row.input_ids, default=0), min(row.input_ids, default=0)
        if limit is not None and (highest >= limit or lowest < 0):
            token = highest if highest >= limit else lowest
            came = f"token {row.input_ids.index(token)} has id {token}"
            found.append(Shown(row.source, came, f"ids from 0 to {limit - 1}"))
    return none_wanted(
        "ids-beyond-embedding", found, len(rows), verdict="fatal", well="Every token id is a row of the embedding.",
        badly="Token ids reach beyond the embedding of the model.",
        fix="use the tokenizer this model was trained with, or resize the embedding to the tokenizer",
    )  # fmt: skip


def _endless(rows: Sequence[Example], ends: frozenset[int]) -> Finding:
    name, number = "end-token-trained", f"0 of {len(rows)} rows"
    if not ends or not rows or any(_trains_an_end(row, ends) for row in rows):
        return Finding(name, "ok", number, "An end token is trained.")
    tail = ", ".join(map(str, rows[0].input_ids[-4:]))
    shown = Shown(rows[0].source, f"the last ids {tail}", f"a trained end token ({', '.join(map(str, sorted(ends)))})")
    return Finding(
        name, "fatal", number, "No answer has a trained end token, so nothing teaches the model to stop.",
        "use a chat template that ends every answer, or raise data.max_length if all answers are cut", (shown,),
    )  # fmt: skip


def _trains_an_end(row: Example, ends: frozenset[int]) -> bool:
    return not ends.isdisjoint(row.input_ids) and any(
        trained and token in ends for token, trained in zip(row.input_ids, row.trained, strict=True)
    )
