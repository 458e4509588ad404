"""Whether the chat template keeps what the rows say, and says it in training as it does in chatting. No torch here."""

import unicodedata
from collections.abc import Sequence

from fairlead.data.audit.encoded_rows import AuditedRow, Encoder, Prefix
from fairlead.data.audit.findings import Finding, Shown, Verdict, excerpt, none_wanted, part_of, worst
from fairlead.data.audit.model_facts import ModelFacts

MAX_REFUSED = 0.01  # share of rows above which training stops, see data.max_reject_rate


def round_trip(rows: Sequence[AuditedRow], refused: Sequence[Shown], encoder: Encoder) -> Finding:
    """Decoding a row gives the text of every message back, in order."""
    lost: list[Shown] = []
    changed: list[Shown] = []
    for row in rows:
        decoded = encoder.decode(row.encoded.input_ids, special=True)
        contents = [message.content for message in row.messages]
        missing = first_missing(decoded, contents)
        if missing is None:
            continue
        whole = first_missing(squeezed(decoded), [squeezed(content) for content in contents])
        place = missing if whole is None else whole
        wanted = f"message {place + 1} ({row.messages[place].role}): {excerpt(contents[place])!r}"
        (changed if whole is None else lost).append(
            Shown(row.title, f"the tokens spell {excerpt(decoded, 400)!r}", wanted)
        )
    return _round_trip_finding(lost, changed, list(refused), len(rows) + len(refused))


def _round_trip_finding(lost: list[Shown], changed: list[Shown], refused: list[Shown], total: int) -> Finding:
    verdicts: list[Verdict] = []
    parts: list[str] = []
    if lost:
        verdicts.append("fatal")
        parts.append(f"The tokens of {part_of(len(lost), total)} do not spell every message.")
    if refused:
        verdicts.append("fatal" if len(refused) > MAX_REFUSED * total else "warning")
        parts.append(f"The chat template refuses {part_of(len(refused), total)}.")
    if changed:
        verdicts.append("warning")
        parts.append(f"White space of a message changes in {part_of(len(changed), total)}.")
    found = [*lost, *refused, *changed]
    return none_wanted(
        "template-round-trip", found, total, noun="sequences", verdict=worst(verdicts),
        well="Decoding the tokens of a row gives the text of every message back, in order.", badly=" ".join(parts),
        fix="use a model whose chat template keeps every message as it is, or repair chat_template.jinja beside the "
        "weights; white space alone can stay lost where it means nothing",
    )  # fmt: skip


def generation_prompt(rows: Sequence[AuditedRow], encoder: Encoder) -> Finding:
    """What stands before an answer in training is what the model reads before it answers, token by token."""
    at_the_end: list[Shown] = []
    earlier: list[Shown] = []
    for row in rows:
        for prefix in row.prefixes:
            difference = _difference(row, prefix, encoder)
            if difference is not None:
                (at_the_end if prefix is row.prefixes[-1] else earlier).append(difference)
                break
    asked = [row for row in rows if row.prefixes]
    found = [*at_the_end, *earlier]
    return none_wanted(
        "training-reads-as-chatting", found, len(asked), noun="sequences", verdict="fatal" if at_the_end else "warning",
        well="What stands before an answer in training is, token by token, what the model reads before it answers.",
        badly="In training other tokens stand before an answer than the model reads when it chats"
        + ("." if at_the_end else ", in answers before the last one."),
        fix="make the template write a prompt the same way whether or not the answer follows",
    )  # fmt: skip


def special_tokens_as_text(rows: Sequence[AuditedRow], facts: ModelFacts) -> Finding:
    """A special token's name inside a message is text; it does not end or open a turn."""
    names = [name for name in facts.special_tokens.values() if name]
    suspects = [row for row in rows if any(name in m.content for m in row.messages for name in names)]
    obeyed: list[Shown] = []
    for row in suspects:
        place = _control_inside(row, facts)
        if place is not None:
            token = facts.special_tokens[row.encoded.input_ids[place]]
            came = f"token {place} inside the {row.encoded.roles[place]}'s text is the control token {token}"
            obeyed.append(Shown(row.title, came, f"{token!r} as ordinary text"))
    return none_wanted(
        "special-tokens-in-text", obeyed, len(suspects), noun="sequences that name one", verdict="fatal",
        well="Rows that name a special token hold its name as ordinary text." if suspects
        else "No message names a special token.",
        badly="Names of special tokens become control tokens: a message can end its turn or speak for another role.",
        fix="encode contents with split_special_tokens=True, as fairlead's ChatTemplate does, or clean the rows",
    )  # fmt: skip


def first_missing(text: str, parts: Sequence[str]) -> int | None:
    """The first part that does not stand in the text behind the parts before it; None where all do."""
    at = 0
    for place, part in enumerate(parts):
        found = text.find(part, at)
        if found < 0:
            return place
        at = found + len(part)
    return None


def squeezed(text: str) -> str:
    """Without white space, and in the form that normalising tokenizers write."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def _difference(row: AuditedRow, prefix: Prefix, encoder: Encoder) -> Shown | None:
    trained = row.encoded.input_ids[: len(prefix.ids)]
    if trained == prefix.ids:
        return None
    pairs = zip(trained, prefix.ids, strict=False)
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), len(trained))
    around = slice(max(place - 3, 0), place + 5)
    came, wanted = (repr(encoder.decode(ids[around], special=True)) for ids in (trained, prefix.ids))
    return Shown(row.title, f"from token {place} on, training has …{came}…", f"chatting has …{wanted}…")


def _control_inside(row: AuditedRow, facts: ModelFacts) -> int | None:
    """The first control token within the words of someone; an answer may end with one."""
    encoded = row.encoded
    for place, (token, role) in enumerate(zip(encoded.input_ids, encoded.roles, strict=True)):
        if token not in facts.special_tokens or role == "template":
            continue
        goes_on = place + 1 < len(encoded.roles) and encoded.roles[place + 1] == role
        if role != "assistant" or goes_on:
            return place
    return None
