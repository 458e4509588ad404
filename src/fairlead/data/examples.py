"""Records become token sequences ready to train on; what cannot be used is returned with a reason. No torch here."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import TypeVar

from fairlead.data.chat_template import ChatTemplate
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Judgement, Message, Preference, Prompt, Rejection

R = TypeVar("R", Preference, Judgement)


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence of T tokens. `trained` marks the tokens whose log-probability matters; `source` is `file:line`."""

    input_ids: tuple[int, ...]
    trained: tuple[bool, ...]
    source: str = ""

    @property
    def trained_turns(self) -> list[int]:
        """Trained tokens of each assistant turn: the runs of trained tokens, in order."""
        return [sum(1 for _ in run) for trained, run in groupby(self.trained[1:]) if trained]

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens before the first trained one; all of them where none is trained."""
        return self.input_ids[: self.trained.index(True)] if any(self.trained) else self.input_ids

    @property
    def num_trained(self) -> int:
        """Trained tokens; the first token of a sequence cannot be one, because nothing predicts it."""
        return sum(self.trained[1:])


@dataclass(frozen=True, slots=True)
class PairExample:
    """Two responses to one prompt, each with the prompt in front; trained are the response tokens.

    The weights of all pairs of one row sum to 1, so that a prompt with K ranked responses counts as much as one with
    two (Ouyang et al. 2022, eq. 1).
    """

    chosen: Example
    rejected: Example
    weight: float = 1.0

    @property
    def num_tokens(self) -> int:
        """Tokens of both sequences."""
        return len(self.chosen.input_ids) + len(self.rejected.input_ids)

    @property
    def sides(self) -> tuple[Example, Example]:
        """Chosen and rejected."""
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class RankedExample:
    """K responses to one prompt, best first, each with the prompt in front; trained are the response tokens.

    `grades` holds one number per response, higher is better, or nothing. Responses of one grade make no pair.
    """

    responses: tuple[Example, ...]
    grades: tuple[float, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences, the prompt counted with each."""
        return sum(len(response.input_ids) for response in self.responses)

    @property
    def shared_lengths(self) -> list[int]:
        """Tokens that each response, prompt included, begins with as the first one does; one at least is its own."""
        first, *others = self.responses
        return [0, *(min(_in_common(first.input_ids, o.input_ids), len(o.input_ids) - 1) for o in others)]

    @property
    def pair_indices(self) -> list[tuple[int, int]]:
        """(better, worse) of all pairs, as positions in `responses`."""
        pairs = combinations(range(len(self.responses)), 2)
        return [(i, j) for i, j in pairs if not self.grades or self.grades[i] != self.grades[j]]

    @property
    def pairs(self) -> list[PairExample]:
        """All pairs of different rank; their weights sum to 1."""
        found = self.pair_indices
        return [PairExample(self.responses[i], self.responses[j], 1.0 / len(found)) for i, j in found]


@dataclass(frozen=True, slots=True)
class JudgedExample:
    """A response with its prompt in front, the response tokens trained, and whether it is desirable."""

    response: Example
    desirable: bool


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt with what a verifier needs to judge an answer: the user's last words and the reference answer."""

    input_ids: tuple[int, ...]
    prompt: str
    answer: str
    source: str = ""


def task_examples(
    records: Sequence[Prompt], template: ChatTemplate, max_length: int, *, cut_long: bool = False
) -> tuple[list[Task], list[Rejection]]:
    """Each prompt as token ids, ready to be answered. One longer than `max_length` tokens is rejected.

    `cut_long` shortens the last message of a long prompt to the last line end at which it fits, so that it stops where
    a thought does (Stiennon et al. 2020, appendix B).
    """
    tasks: list[Task] = []
    rejections: list[Rejection] = []
    for whole in records:
        try:
            record = _cut(whole, template, max_length) if cut_long else whole
            ids = template.encode_prompt(record.messages)
        except UserError as error:
            rejections.append(_rejection(whole.source, error.what))
            continue
        if len(ids) <= max_length:
            tasks.append(Task(ids, record.messages[-1].content, record.answer, record.source))
        else:
            rejections.append(_rejection(whole.source, f"the prompt has {len(ids)} tokens, more than {max_length}"))
    return tasks, rejections


def conversation_examples(
    records: Sequence[Conversation], template: ChatTemplate, max_length: int
) -> tuple[list[Example], list[Rejection]]:
    """One sequence per conversation, cut at the end to `max_length` tokens."""
    examples: list[Example] = []
    rejections: list[Rejection] = []
    for record in records:
        try:
            encoded = template.encode(record.messages, max_length)
        except UserError as error:
            rejections.append(_rejection(record.source, error.what))
            continue
        example = Example(encoded.input_ids, encoded.trained, record.source)
        if example.num_trained:
            examples.append(example)
        else:
            rejections.append(_rejection(record.source, f"no trained token is left within max_length={max_length}"))
    return examples, rejections


def preference_examples(
    records: Sequence[Preference], template: ChatTemplate, max_length: int, *, end_token: bool
) -> tuple[list[PairExample], list[Rejection]]:
    """All pairs of the ranked responses of each preference; otherwise as `ranked_examples`."""
    ranked, rejections = ranked_examples(records, template, max_length, end_token=end_token)
    return [pair for row in ranked for pair in row.pairs], rejections


def ranked_examples(
    records: Sequence[Preference],
    template: ChatTemplate,
    max_length: int,
    *,
    end_token: bool,
    graded: bool = False,
    paired: bool = True,
) -> tuple[list[RankedExample], list[Rejection]]:
    """The ranked responses of each preference, each sequence cut at the end.

    `end_token` puts the end token after each response and trains it; a response that is cut has none. Rows
    without grades are rejected if `graded`, rows of which no response is ranked above another if `paired`.
    """
    examples: list[RankedExample] = []
    rejections: list[Rejection] = []
    for record, responses in _encoded(records, template, max_length, end_token, rejections):
        row = RankedExample(responses, record.grades)
        if reason := _unranked(row, graded=graded, paired=paired):
            rejections.append(_rejection(record.source, reason))
        else:
            examples.append(row)
    return examples, rejections


def judged_examples(
    records: Sequence[Judgement], template: ChatTemplate, max_length: int, *, end_token: bool
) -> tuple[list[JudgedExample], list[Rejection]]:
    """One sequence per response, cut at the end; otherwise as `preference_examples`."""
    examples: list[JudgedExample] = []
    rejections: list[Rejection] = []
    for record, responses in _encoded(records, template, max_length, end_token, rejections):
        examples += [JudgedExample(*judged) for judged in zip(responses, record.desirable, strict=True)]
    return examples, rejections


def mismatched_examples(examples: Sequence[Example], max_length: int) -> list[Example]:
    """For each example its prompt with the response of the next one that has another prompt, cut to `max_length`.

    The next one of the last is the first. Raises UserError when all have the same prompt.
    """
    parts = [_parts(example) for example in examples]
    if len({prompt for prompt, _ in parts}) < 2:
        raise UserError(
            "every row has the same prompt, so none can be read with the response to another one",
            got=examples[0].source if examples else "0 rows", want="rows of two prompts or more", fix="give more rows",
            exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    found: list[Example] = []
    new_at = next(i for i in range(len(parts)) if parts[i][0] != parts[-1][0])  # where another prompt begins
    for i in reversed(range(len(parts))):
        prompt, following = parts[i][0], (i + 1) % len(parts)
        new_at = following if parts[following][0] != prompt else new_at
        response = parts[new_at][1]
        trained = (False,) * len(prompt) + (True,) * len(response)
        found.append(Example((*prompt, *response)[:max_length], trained[:max_length], examples[i].source))
    return found[::-1]


def _parts(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and response tokens."""
    cut = example.trained.index(True)
    return example.input_ids[:cut], example.input_ids[cut:]


def _cut(record: Prompt, template: ChatTemplate, max_length: int) -> Prompt:
    """With as many whole lines of the last message as fit; unchanged when not even the first does, or all do."""
    *before, last = record.messages
    lines = last.content.split("\n")

    def of_lines(count: int) -> tuple[Message, ...]:
        return (*before, replace(last, content="\n".join(lines[:count])))

    def too_long(count: int) -> bool:
        return len(template.encode_prompt(of_lines(count))) > max_length

    fitting = bisect_left(range(1, len(lines) + 1), True, key=too_long)
    return record if fitting in (0, len(lines)) else replace(record, messages=of_lines(fitting))


def _encoded(
    records: Sequence[R], template: ChatTemplate, max_length: int, end_token: bool, rejections: list[Rejection]
) -> Iterator[tuple[R, tuple[Example, ...]]]:
    """Each record with its responses as sequences; those that cannot be used go to `rejections` instead."""
    for record in records:
        try:
            responses = _response_examples(record, template, max_length, end_token=end_token)
        except UserError as error:
            rejections.append(_rejection(record.source, error.what))
            continue
        if reason := _unusable(responses, max_length):
            rejections.append(_rejection(record.source, reason))
        else:
            yield record, responses


def _response_examples(
    record: Preference | Judgement, template: ChatTemplate, max_length: int, *, end_token: bool
) -> tuple[Example, ...]:
    examples: list[Example] = []
    for response in record.responses:
        prompt_ids, response_ids = template.encode_response(record.prompt, response, end_token=end_token)
        trained = (False,) * len(prompt_ids) + (True,) * len(response_ids)
        examples.append(Example((prompt_ids + response_ids)[:max_length], trained[:max_length], record.source))
    return tuple(examples)


def _unusable(responses: Sequence[Example], max_length: int) -> str:
    if not all(response.num_trained for response in responses):
        return f"no response token is left within max_length={max_length}"
    if len({response.input_ids for response in responses}) < len(responses):
        return f"two responses are the same within max_length={max_length}"
    return ""


def _unranked(row: RankedExample, *, graded: bool, paired: bool) -> str:
    if graded and not row.grades:
        return "the responses have no scores"
    if paired and not row.pair_indices:
        return "no response is ranked above another"
    return ""


def _in_common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _rejection(source: str, reason: str) -> Rejection:
    path, _, line = source.rpartition(":")
    return Rejection(path, int(line), reason) if line.isdigit() else Rejection(source, 0, reason)
