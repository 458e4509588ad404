"""Records become token sequences ready to train on; what cannot be used is returned with a reason. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from fairlead.data.chat_template import ChatTemplate
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Judgement, Preference, Prompt, Rejection


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


def task_examples(
    records: Sequence[Prompt], template: ChatTemplate, max_length: int
) -> tuple[list[Task], list[Rejection]]:
    """As `prompt_examples`, with the text beside the tokens."""
    tasks: list[Task] = []
    rejections: list[Rejection] = []
    for record in records:
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


def judged_examples(
    records: Sequence[Judgement], template: ChatTemplate, max_length: int, *, end_token: bool
) -> tuple[list[JudgedExample], list[Rejection]]:
    """One sequence per response, cut at the end; otherwise as `preference_examples`."""
    examples: list[JudgedExample] = []
    rejections: list[Rejection] = []
    for record in records:
        try:
            responses = _response_examples(record, template, max_length, end_token=end_token)
        except UserError as error:
            rejections.append(_rejection(record.source, error.what))
            continue
        reason = _unusable(responses, max_length)
        if reason:
            rejections.append(_rejection(record.source, reason))
        else:
            judged = zip(responses, record.desirable, strict=True)
            examples += [JudgedExample(response, desirable) for response, desirable in judged]
    return examples, rejections


def mismatched_examples(examples: Sequence[Example], max_length: int) -> list[Example]:
    """For each example its prompt with the response of the next one that has another prompt, cut to `max_length`.

    The next one of the last is the first. Raises UserError when all have the same prompt.
    """
    parts = [_parts(example) for example in examples]
    found: list[Example] = []
    for i, (prompt, _) in enumerate(parts):
        others = (parts[(i + k) % len(parts)] for k in range(1, len(parts)))
        response = next((response for other, response in others if other != prompt), None)
        if response is None:
            raise UserError(
                "every row has the same prompt, so none can be read with the response to another one",
                got=examples[i].source, want="rows of two prompts or more", fix="give more rows",
                exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip
        trained = (False,) * len(prompt) + (True,) * len(response)
        found.append(Example((*prompt, *response)[:max_length], trained[:max_length], examples[i].source))
    return found


def _parts(example: Example) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt and response tokens."""
    cut = example.trained.index(True)
    return example.input_ids[:cut], example.input_ids[cut:]


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


def _response_examples(
    record: Preference | Judgement, template: ChatTemplate, max_length: int, *, end_token: bool
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
