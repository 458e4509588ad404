"""Arithmetic word problems in English and Chinese, numbers up to 20, made from templates: rewards a rule can check.

Each template meets each pair of numbers that fits it once, so two rows differ in the template or in a number, and a
split by prompt holds out problems that were trained on with no other names either. Nothing is drawn: a checksum of the
problem chooses its names and things, so the rows are the same on every machine. No torch here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

LARGEST = 20


@dataclass(frozen=True, slots=True)
class Language:
    """Words that fill a template, the format that is asked for in the system turn, and a solution that has it."""

    names: tuple[str, ...]
    things: tuple[str, ...]
    system: str
    solution: str


@dataclass(frozen=True, slots=True)
class Template:
    """A question about the numbers a and b. `sign` is what is to be done with them."""

    language: Language
    sign: str
    question: str


_ENGLISH = Language(
    names=("Tom", "Anna", "Ben", "Lucy", "Sam", "Mary"),
    things=("apples", "books", "pens", "coins", "eggs", "cards"),
    system="End with: Answer: <number>",
    solution="{a} {sign} {b} = {result}. Answer: {result}",
)
_CHINESE = Language(
    names=("小明", "小红", "小华", "小丽", "小刚", "小美"),
    things=("苹果", "橘子", "鸡蛋", "气球", "杯子", "包子"),
    system="最后写：答案：<数字>",
    solution="{a} {sign} {b} = {result}。答案：{result}",
)

TEMPLATES = (
    Template(_ENGLISH, "+", "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?"),
    Template(_ENGLISH, "+", "There are {a} {things} in a box and {b} in a bag. How many {things} are there in all?"),
    Template(_ENGLISH, "+", "{name} has {a} {things}, {other} has {b}. How many {things} do they have together?"),
    Template(_ENGLISH, "-", "{name} has {a} {things} and gives {b} of them away. How many {things} are left?"),
    Template(_ENGLISH, "-", "There are {a} {things} on a table. {name} takes {b}. How many {things} are still there?"),
    Template(_ENGLISH, "-", "{name} has {a} {things}, {other} has {b}. How many more {things} does {name} have?"),
    Template(_ENGLISH, "*", "There are {a} boxes with {b} {things} in each. How many {things} are there in all?"),
    Template(_CHINESE, "+", "{name}有{a}个{things}，又买了{b}个。{name}现在有几个{things}？"),
    Template(_CHINESE, "+", "盒子里有{a}个{things}，袋子里有{b}个。一共有几个{things}？"),
    Template(_CHINESE, "+", "{name}有{a}个{things}，{other}有{b}个。他们一共有几个{things}？"),
    Template(_CHINESE, "-", "{name}有{a}个{things}，送给{other}{b}个。{name}还剩几个{things}？"),
    Template(_CHINESE, "-", "桌上有{a}个{things}，{name}拿走了{b}个。桌上还有几个{things}？"),
    Template(_CHINESE, "-", "{name}有{a}个{things}，{other}有{b}个。{name}比{other}多几个{things}？"),
    Template(_CHINESE, "*", "有{a}个盒子，每个盒子里有{b}个{things}。一共有几个{things}？"),
)


def word_problems() -> list[dict[str, Any]]:
    """All problems as rows in messages layout; the answer is a worked solution in the format asked for."""
    return [_row(template, *numbers) for template in TEMPLATES for numbers in _fitting(template.sign)]


def _fitting(sign: str) -> Iterator[tuple[int, int, int]]:
    """Every a, b and result, from 2 (things in the plural; 1 for a difference) to the largest number."""
    for a in range(2, LARGEST + 1):
        for b in range(2, LARGEST + 1):
            result = {"+": a + b, "-": a - b, "*": a * b}[sign]
            if 1 <= result <= LARGEST:
                yield a, b, result


def _row(template: Template, a: int, b: int, result: int) -> dict[str, Any]:
    language = template.language
    choice = crc32(f"{template.question} {a} {b}".encode())
    first = choice % len(language.names)
    names = {"name": language.names[first], "other": language.names[first - 1]}
    things = language.things[choice // len(language.names) % len(language.things)]
    question = template.question.format(a=a, b=b, things=things, **names)
    solution = language.solution.format(a=a, b=b, sign=template.sign, result=result)
    turns = (("system", language.system), ("user", question), ("assistant", solution))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}
