"""Records become token sequences ready to train on; what cannot be used is returned with a reason. No torch here."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

from fairlead.data.chat_template import ChatTemplate
from fairlead.errors import UserError
from fairlead.records import Conversation, Message, Preference, Prompt, Rejection


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


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt with what a verifier needs to judge an answer: the user's last words and the reference answer."""

    input_ids: tuple[int, ...]
    prompt: str
    answer: str


def task_examples(
    records: Sequence[Prompt], template: ChatTemplate, max_length: int, *, cut_long: bool
) -> tuple[list[Task], list[Rejection]]:
    """As `prompt_examples`, with the text beside the tokens. `cut_long` shortens the last message of a long prompt to
    the last line end at which it fits, so that it stops where a thought does (Stiennon et al. 2020, appendix B)."""
    tasks: list[Task] = []
    rejections: list[Rejection] = []
    for record in [_cut(record, template, max_length) for record in records] if cut_long else records:
        prompts, rejected = prompt_examples([record], template, max_length)
        tasks += [Task(ids, record.messages[-1].content, record.answer) for ids in prompts]
        rejections += rejected
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
    """One pair per preference, or all K(K-1)/2 pairs of K ranked responses, each sequence cut at the end.

    `end_token` puts the end token after each response and trains it; a response that is cut has none.
    """
    examples: list[PairExample] = []
    rejections: list[Rejection] = []
    for record in records:
        try:
            ranked = _response_examples(record, template, max_length, end_token=end_token)
        except UserError as error:
            rejections.append(_rejection(record.source, error.what))
            continue
        reason = _unusable(ranked, max_length)
        if reason:
            rejections.append(_rejection(record.source, reason))
        else:
            pairs = list(combinations(ranked, 2))
            examples += [PairExample(better, worse, 1.0 / len(pairs)) for better, worse in pairs]
    return examples, rejections


def prompt_examples(
    records: Sequence[Prompt], template: ChatTemplate, max_length: int
) -> tuple[list[tuple[int, ...]], list[Rejection]]:
    """Token ids of each prompt, ready to be answered. A prompt longer than `max_length` tokens is rejected, not cut."""
    prompts: list[tuple[int, ...]] = []
    rejections: list[Rejection] = []
    for record in records:
        try:
            ids = template.encode_prompt(record.messages)
        except UserError as error:
            rejections.append(_rejection(record.source, error.what))
            continue
        if len(ids) <= max_length:
            prompts.append(ids)
        else:
            rejections.append(_rejection(record.source, f"the prompt has {len(ids)} tokens, more than {max_length}"))
    return prompts, rejections


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


def _response_examples(
    record: Preference, template: ChatTemplate, max_length: int, *, end_token: bool
) -> list[Example]:
    examples: list[Example] = []
    for response in record.responses:
        prompt_ids, response_ids = template.encode_response(record.prompt, response, end_token=end_token)
        trained = (False,) * len(prompt_ids) + (True,) * len(response_ids)
        examples.append(Example((prompt_ids + response_ids)[:max_length], trained[:max_length], record.source))
    return examples


def _unusable(ranked: list[Example], max_length: int) -> str:
    if not all(example.num_trained for example in ranked):
        return f"no response token is left within max_length={max_length}"
    if len({example.input_ids for example in ranked}) < len(ranked):
        return f"two responses are the same within max_length={max_length}"
    return ""


def _rejection(source: str, reason: str) -> Rejection:
    path, _, line = source.rpartition(":")
    return Rejection(path, int(line), reason) if line.isdigit() else Rejection(source, 0, reason)
