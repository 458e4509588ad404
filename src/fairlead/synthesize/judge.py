"""A judge behind an OpenAI-style endpoint: which of two replies is better, asked in both orders (Zheng et al. 2023).

A judge prefers what stands first, so a reply wins only where both orders agree; anything else is a tie. Text is all
that is sent. Verdicts are kept as they come, so that a stage that was cut off goes on with those it has.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal

from fairlead.artifacts.hashing import sha256_json
from fairlead.artifacts.journal import Journal, read
from fairlead.config.replies import JudgeConfig
from fairlead.errors import ExitCode, UserError
from fairlead.records import Message
from fairlead.synthesize.endpoint import Endpoint

Verdict = Literal["first", "second", "tie", "unreadable"]

QUESTION = """\
Two assistants answered the same user. Say which answer helps the user more: it does what was asked, its facts are
right, it is clear and no longer than it needs to be, and it is in the user's language. The order in which the answers
stand means nothing.

[The user]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

[Your task]
Compare the two answers in one or two sentences. Then end with [[A]] if A is better, [[B]] if B is better, or [[C]] if
neither is.
"""
"""What the judge is asked unless a file of the user's says otherwise."""

FIELDS = ("prompt", "first", "second")
MAX_UNREADABLE, MAX_UNREADABLE_RATE = 3, 0.05  # answers without a verdict, above which the judge is no judge

_VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]", re.IGNORECASE)
_MEANING: Mapping[str, Verdict] = {"A": "first", "B": "second", "C": "tie"}


@dataclass(frozen=True, slots=True)
class Question:
    """Two replies to one prompt, in the order in which the judge reads them."""

    prompt: str
    first: str
    second: str


def share_beaten(num_replies: int, verdict: Callable[[int, int], Verdict]) -> list[float]:
    """For each reply the share of the other replies that it beats, a tie counted half; between 0 and 1.

    `verdict(i, j)` is what the judge says where reply i stands first and reply j second.
    """
    points = [0.0] * num_replies
    for i, j in permutations(range(num_replies), 2):
        wins = verdict(i, j) == "first" and verdict(j, i) == "second"
        loses = verdict(i, j) == "second" and verdict(j, i) == "first"
        points[i] += 1.0 if wins else 0.0 if loses else 0.5
    return [total / (num_replies - 1) if num_replies > 1 else 0.5 for total in points]


def dialogue(messages: Sequence[Message]) -> str:
    """The prompt as the judge reads it: the user's words alone, or every turn with its role."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


def verdict_of(answer: str) -> Verdict:
    """The last verdict in the judge's words."""
    found = _VERDICT.findall(answer)
    return _MEANING[found[-1].upper()] if found else "unreadable"


class Judge:
    """Asks, waits and asks again; `journal` keeps each verdict. Raises UserError: 66 unreachable, 65 unreadable."""

    def __init__(self, config: JudgeConfig, question: str, api_key: str, journal: Journal) -> None:
        self._config, self._text, self._journal = config, question, journal
        self._known: dict[str, Verdict] = {row["question"]: row["verdict"] for row in read(journal.path)}
        self._endpoint = Endpoint(config, api_key)

    def scores(self, groups: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """`share_beaten` of the replies of each group, which is a prompt and different replies to it."""
        self._ask_new([Question(prompt, a, b) for prompt, replies in groups for a, b in permutations(replies, 2)])
        return [
            share_beaten(len(replies), lambda i, j, p=prompt, r=replies: self._known[_key(Question(p, r[i], r[j]))])
            for prompt, replies in groups
        ]

    def _ask_new(self, questions: Sequence[Question]) -> None:
        new = [question for question in dict.fromkeys(questions) if _key(question) not in self._known]
        pool = ThreadPoolExecutor(self._config.num_at_once)
        try:
            for question, verdict in zip(new, pool.map(self._verdict, new), strict=True):
                self._known[_key(question)] = verdict
                self._journal.append({"question": _key(question), "verdict": verdict})
                if verdict == "unreadable":
                    self._require_readable()
        finally:
            pool.shutdown(cancel_futures=True)

    def _require_readable(self) -> None:
        unreadable = sum(verdict == "unreadable" for verdict in self._known.values())
        if unreadable > MAX_UNREADABLE + MAX_UNREADABLE_RATE * len(self._known):
            raise UserError(
                "the judge gives no verdict", where=self._endpoint.url,
                got=f"{unreadable} of {len(self._known)} answers without one", want="[[A]], [[B]] or [[C]] at the end",
                fix="ask for it in judge.prompt_file, raise judge.max_answer_tokens, or take another judge.model; "
                "then give another --output", exit_code=ExitCode.BAD_DATA,
            )  # fmt: skip

    def _verdict(self, question: Question) -> Verdict:
        text = re.sub(r"\{(prompt|first|second)\}", lambda field: getattr(question, field[1]), self._text)
        messages = (Message("user", text),)
        return verdict_of(self._endpoint.ask(messages, temperature=0.0, max_tokens=self._config.max_answer_tokens).text)


def question_text(prompt_file: str) -> str:
    """The user's own question, or ours. Raises UserError: 66 when the file is not there, 65 when a field is missing."""
    if not prompt_file:
        return QUESTION
    try:
        text = Path(prompt_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            "the question to the judge cannot be read", where=prompt_file, got=str(error), want="a UTF-8 text file",
            fix="check judge.prompt_file", exit_code=ExitCode.MISSING_INPUT,
        ) from None  # fmt: skip
    missing = [f"{{{name}}}" for name in FIELDS if f"{{{name}}}" not in text]
    if missing:
        raise UserError(
            "the question to the judge lacks a field", where=prompt_file, got=f"no {', '.join(missing)}",
            want="{prompt}, {first} and {second}", fix="put each where its text belongs", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return text


def _key(question: Question) -> str:
    return sha256_json([question.prompt, question.first, question.second])
