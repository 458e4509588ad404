"""New instructions from seed tasks: a model goes on with a numbered list, and what is new and usable is kept.

Wang et al. 2023, section 2.2. Their numbers are the defaults: eight instructions are shown, two of them new ones, and
ROUGE-L below 0.7 is new. Departures:
1. A request shows instructions of one language, English or Chinese, and asks in it.
2. Of an answer that was cut off the last instruction goes, not all of them (Alpaca, 2023). A heading before the first
   number and what stands behind a blank line are no instructions: chat models write both.
3. Instructions keep their capitals; the published code writes all but the first letter small.
4. Every kept instruction is answered at once: no task is told to be a classification, no input is made beside it.
"""

import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fairlead.config.common import SamplingConfig
from fairlead.config.grow import SelfInstructConfig
from fairlead.data.filters.texts import words_of
from fairlead.data.filters.toxicity import word_list_of
from fairlead.data.language import is_chinese
from fairlead.data.rouge_l import Texts
from fairlead.records import Message, Prompt
from fairlead.synthesize.author import CUT, SEEDS_APART, Author, Grown, Request
from fairlead.synthesize.endpoint import Answer

STEP = "self_instruct"

_NUMBER = re.compile(r"(?:\A|\n)(?:[ \t]*\d{1,3}[ \t]*[.．、)）](?!\d))+")  # models may write it twice
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_ASKED = {False: "Come up with a series of tasks:", True: "想出一系列任务："}


@dataclass(frozen=True, slots=True)
class Seed:
    """A task of the user's: what is asked, and the answer if there is one."""

    instruction: str
    answer: str = ""

    @property
    def turns(self) -> tuple[Message, ...]:
        """As a dialogue."""
        return Message("user", self.instruction), Message("assistant", self.answer)


def seed_of(prompt: Prompt) -> Seed:
    """The first thing that the user asks, and what was answered to it."""
    turns = [message.content for message in prompt.messages if message.role != "system"]
    return Seed(turns[0], turns[1] if len(turns) > 1 else prompt.answer)


def question(instructions: Sequence[str]) -> str:
    """The paper's numbered list, which the model goes on with."""
    lines = [f"{number}. {one_line(text).rstrip(':：')}" for number, text in enumerate(instructions, start=1)]
    asked = _ASKED[is_chinese("\n".join(instructions))]
    return "\n".join([asked, *lines, f"{len(instructions) + 1}."])


def parsed(completion: str) -> list[str]:
    """The instructions of a list that may begin behind its first number, each on one line; none is empty."""
    before, *pieces = _NUMBER.split(f"\n{completion.strip()}")
    if before.rstrip().endswith((":", "：")):  # "Here are more tasks:"
        before = ""
    first_paragraphs = (_BLANK_LINE.split(piece.strip())[0] for piece in (before, *pieces))
    return [text for text in map(one_line, first_paragraphs) if text]


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


def invented(
    seeds: Sequence[Seed], config: SelfInstructConfig, sampling: SamplingConfig, author: Author,
    *, min_words: int, seed: int, say: Callable[[str], None],
) -> Grown:  # fmt: skip
    """Rounds of requests until there are enough new instructions, or no request is left.

    `source` of a prompt names the request that it came of.
    """
    pool, grown, num_asked = _Pool(seeds, config, min_words), Grown(), 0
    while len(grown.prompts) < config.num_instructions and num_asked < config.max_requests:
        numbers = range(num_asked, min(num_asked + config.requests_per_round, config.max_requests))
        requests = [
            Request((Message("user", question(pool.examples(f"{seed} {n}"))),), seed * SEEDS_APART + n) for n in numbers
        ]
        for number, answer in zip(numbers, author.answers(requests, sampling), strict=True):
            for text, reason in _candidates(answer):
                if len(grown.prompts) < config.num_instructions:
                    _take(text, reason, f"request {number + 1}", pool, grown)
        num_asked += len(numbers)
        say(f"{num_asked} requests, {len(grown.prompts)} new instructions, {len(grown.refused)} refused")
    return grown


def _candidates(answer: Answer) -> list[tuple[str, str]]:
    """The instructions of an answer, and what is wrong with one already."""
    if answer.problem:
        return [("", answer.problem)]
    texts = parsed(answer.text)
    return [(text, "" if answer.finished or place < len(texts) else CUT) for place, text in enumerate(texts, start=1)]


def _take(text: str, reason: str, source: str, pool: "_Pool", grown: Grown) -> None:
    """One instruction: a new prompt, or one more that was refused."""
    if reason := reason or pool.unusable(text):
        grown.refuse(STEP, reason, source, text)
    elif other := pool.like(text):
        grown.refuse(STEP, f"ROUGE-L not below {pool.max_similarity:g}", source, text, like=other[:300])
    else:
        pool.add(text)
        grown.prompts.append(Prompt((Message("user", text),), source))


def shown_answers(
    prompts: Sequence[Prompt], seeds: Sequence[Seed], *, num_answered: int, seed: int
) -> list[tuple[Message, ...]]:
    """For each prompt so many seeds of its language with their answers, drawn anew for each, as turns before it."""
    shown = []
    for row, prompt in enumerate(prompts):
        chinese = is_chinese(prompt.messages[-1].content)
        usable = [one for one in seeds if one.answer.strip() and is_chinese(one.instruction) == chinese]
        drawn = _random(f"{seed} answer {row}").sample(usable, min(num_answered, len(usable)))
        shown.append(tuple(message for one in drawn for message in one.turns))
    return shown


class _Pool:
    """Instructions to show and to compare with: seeds and new ones, by language."""

    def __init__(self, seeds: Sequence[Seed], config: SelfInstructConfig, min_words: int) -> None:
        self._config, self._min_words = config, min_words
        self.max_similarity = config.max_similarity
        self._excluded = word_list_of(config.excluded)
        self._all = Texts()
        self._seeds: dict[bool, list[str]] = {False: [], True: []}
        self._new: dict[bool, list[str]] = {False: [], True: []}
        for one in seeds:
            self._seeds[is_chinese(one.instruction)].append(one.instruction)
            self._all.add(one.instruction)

    def add(self, instruction: str) -> None:
        """To be shown and compared with from now on."""
        self._new[is_chinese(instruction)].append(instruction)
        self._all.add(instruction)

    def like(self, instruction: str) -> str | None:
        """A seed, or an instruction that was added, which says much the same."""
        return self._all.like(instruction, self.max_similarity)

    def examples(self, key: str) -> list[str]:
        """Instructions of one language, as often as seeds are in it, in any order; the key decides which."""
        draw = _random(key)
        chinese = draw.random() * sum(map(len, self._seeds.values())) < len(self._seeds[True])
        own = draw.sample(self._new[chinese], min(self._config.num_own, len(self._new[chinese])))
        seeds = self._seeds[chinese]
        shown = own + draw.sample(seeds, min(self._config.num_examples - len(own), len(seeds)))
        draw.shuffle(shown)
        return shown

    def unusable(self, instruction: str) -> str:
        """Why an instruction is refused whatever else there is; nothing where it is not."""
        num_words = len(words_of(instruction))
        if num_words < self._min_words:
            return f"fewer than {self._min_words} words"
        if num_words > self._config.max_words:
            return f"more than {self._config.max_words} words"
        if unicodedata.category(instruction[0])[0] != "L":  # Han characters are letters
            return "begins with no letter"
        found = self._excluded.find(instruction)
        return f"holds the word {found!r}" if found else ""


def _random(key: str) -> random.Random:
    """Numbers that follow from the key alone."""
    return random.Random(key)  # noqa: S311  which instructions are shown
