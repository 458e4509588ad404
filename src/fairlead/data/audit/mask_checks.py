"""Whether the tokens that are trained are the answers, all of them, with their ends. No torch here."""

from collections.abc import Sequence

from fairlead.data.audit.encoded_rows import AuditedRow, Encoder
from fairlead.data.audit.findings import Finding, Shown, excerpt, none_wanted, part_of
from fairlead.data.audit.model_facts import ModelFacts
from fairlead.data.audit.template_checks import MAX_REFUSED, squeezed

MAX_TRUNCATED = 0.01  # share of answers without their end from which on a model may learn not to stop


def trained_is_the_answers(rows: Sequence[AuditedRow], encoder: Encoder) -> Finding:
    """The trained tokens spell the answers and nothing else. End tokens have a check of their own."""
    answered = [row for row in rows if row.answers]
    found = [shown for row in answered if (shown := _mask_problem(row, encoder)) is not None]
    return none_wanted(
        "trained-is-the-answers", found, len(answered), noun="sequences", verdict="fatal",
        well="The trained tokens of every row spell its answers and nothing else." if answered
        else "These rows have no answers to train.",
        badly="What is trained is not the answers: others' words are taught, or parts of an answer are not.",
        fix="derive the mask from the chat template's own spans, as fairlead's ChatTemplate does; look for a mask "
        "that is shifted by one",
    )  # fmt: skip


def end_token_trained(rows: Sequence[AuditedRow], encoder: Encoder, facts: ModelFacts) -> Finding:
    """Every answer ends with a trained end token, whether or not the padding token is the same."""
    ends = set(encoder.end_token_ids)
    num_answers, num_ended = 0, 0
    without: list[Shown] = []
    for row in rows:
        if not row.trained_runs:
            continue  # a check of its own
        ended = sum(
            trained and token in ends and row.is_learned(place)
            for place, (token, trained) in enumerate(zip(row.encoded.input_ids, row.encoded.trained, strict=True))
        )
        num_answers += len(row.answers)
        num_ended += min(ended, len(row.answers))
        if ended < len(row.answers):
            tail = encoder.decode(row.encoded.input_ids[-6:], special=True)
            came = f"{ended} trained end tokens; the row ends …{tail!r}"
            without.append(Shown(row.title, came, f"{len(row.answers)}, one behind each answer"))
    number = part_of(num_ended, num_answers, "answers")
    same = facts.pad_token_id in ends
    if not without:
        although = f" The padding token is the same (id {facts.pad_token_id}) and does not hide it." if same else ""
        well = (
            f"Every answer ends with an end token that is trained.{although}"
            if num_answers
            else "There are no answers."
        )
        return Finding("end-token-trained", "ok", number, well)
    why = f" The padding token is the same (id {facts.pad_token_id}): a mask made by token id hides it." if same else ""
    return Finding(
        "end-token-trained", "warning" if num_ended else "fatal", number,
        f"{'Not every' if num_ended else 'No'} answer teaches the model to stop.{why}",
        "let the template end every assistant turn with the end token, and mask padding by length, not by token id",
        tuple(without[:5]),
    )  # fmt: skip


def no_trained_token(rows: Sequence[AuditedRow], max_length: int) -> Finding:
    """A row teaches something: a trained token is left within the longest sequence."""
    answered = [row for row in rows if row.answers]
    masked: list[Shown] = []
    cut: list[Shown] = []
    for row in answered:
        if any(row.encoded.trained[1:max_length]):
            continue
        whole = any(row.encoded.trained[1:])
        prompt, length = row.encoded.trained.index(True) if whole else 0, len(row.encoded.input_ids)
        came = f"{prompt} tokens before the answer, {length} in all" if whole else f"none of {length} tokens is trained"
        wanted = f"fewer than {max_length} before the answer" if whole else "the answers trained"
        (cut if whole else masked).append(Shown(row.title, came, wanted))
    found = [*masked, *cut]
    grave = bool(masked) or len(cut) > MAX_REFUSED * len(answered)
    return none_wanted(
        "no-trained-token", found, len(answered), noun="sequences", verdict="fatal" if grave else "warning",
        well="Every row has a trained token within the longest sequence.",
        badly="All of a row is masked: it teaches nothing." if masked
        else f"The prompt alone fills max_length={max_length} tokens: nothing of the answer is left.",
        fix="look at how the mask is made" if masked else "raise max_length, or leave the longest prompts out",
    )  # fmt: skip


def truncated_answers(rows: Sequence[AuditedRow], max_length: int) -> Finding:
    """How many answers lose their end at the longest sequence: a model that learns them learns not to stop."""
    num_answers = sum(len(row.answers) for row in rows)
    cut: list[Shown] = []
    for row in rows:
        cut += [
            Shown(row.title, f"the answer ends at token {last}", f"at most {max_length}")
            for first, last in row.trained_runs
            if first < max_length < last
        ]
    kept = sum(last <= max_length for row in rows for _, last in row.trained_runs)
    share = len(cut) / num_answers if num_answers else 0.0
    if share <= MAX_TRUNCATED:
        few = f"{part_of(len(cut), num_answers, 'answers')} lose their end" if cut else "No answer loses its end"
        sentence = f"{few} at max_length={max_length}."
        return Finding(
            "truncated-answers", "ok", part_of(len(cut), num_answers, "answers"), sentence, "", tuple(cut[:5])
        )
    return none_wanted(
        "truncated-answers", cut, num_answers, noun="answers", verdict="warning" if kept else "fatal", well="",
        badly=f"Answers lose their end at max_length={max_length}: they teach the model not to stop.",
        fix="raise max_length, or leave long rows out",
    )  # fmt: skip


def _mask_problem(row: AuditedRow, encoder: Encoder) -> Shown | None:
    if not row.trained_runs:
        return None  # a check of its own
    return _wrongly_masked(row, encoder) or _misplaced(row, encoder)


def _wrongly_masked(row: AuditedRow, encoder: Encoder) -> Shown | None:
    """The first token whose mask is not what its role says."""
    ends = set(encoder.end_token_ids)
    for place, (token, trained) in enumerate(zip(row.encoded.input_ids, row.encoded.trained, strict=True)):
        learned = row.is_learned(place)
        if trained == learned or (learned and token in ends):
            continue
        named = f"token {place} {encoder.decode([token], special=True)!r} ({row.encoded.roles[place]})"
        return Shown(row.title, f"{named} is {'' if trained else 'not '}trained", "the words of the answer, no others")
    return None


def _misplaced(row: AuditedRow, encoder: Encoder) -> Shown | None:
    """The trained stretches do not spell the answers, or the last does not begin where the model begins to speak."""
    runs = row.trained_runs
    if len(runs) != len(row.answers):
        return Shown(row.title, f"{len(runs)} trained stretches", f"{len(row.answers)}, one for each answer")
    for (first, last), answer in zip(runs, row.answers, strict=True):
        spelt = encoder.decode(_without_end(row.encoded.input_ids[first:last], encoder), special=True)
        content = row.messages[answer].content
        if not (_same(spelt, content) or _same(spelt, _opening(row, answer, encoder) + content)):
            return Shown(row.title, f"trained is {excerpt(spelt)!r}", f"the answer {excerpt(content)!r}")
    prefix = row.prefixes[-1]
    read = len(prefix.ids)
    if row.encoded.input_ids[:read] == prefix.ids and runs[-1][0] != read:
        return Shown(row.title, f"the last answer is trained from token {runs[-1][0]} on", f"from token {read} on")
    return None


def _same(one: str, other: str) -> bool:
    return squeezed(one) == squeezed(other)


def _without_end(ids: Sequence[int], encoder: Encoder) -> Sequence[int]:
    return ids[:-1] if ids and ids[-1] in encoder.end_token_ids else ids


def _opening(row: AuditedRow, answer: int, encoder: Encoder) -> str:
    """What the template itself writes at the beginning of an answer, such as an empty thought."""
    content = row.messages[answer].content
    asked = encoder.render(row.messages[:answer], add_generation_prompt=True)
    answered = encoder.render(row.messages[: answer + 1])
    before, found, _ = answered[len(asked) :].partition(content.strip())
    return before if found and answered.startswith(asked) else ""
