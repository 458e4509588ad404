"""The made word problems: solved again from their words alone, never twice the same, and apart when split by prompt."""

import hashlib
import re
from collections import Counter

import pytest

from fairlead.config.journey import JourneyConfig
from fairlead.config.parse import load
from fairlead.data import starter
from fairlead.data.language import is_chinese
from fairlead.data.load import read_conversations
from fairlead.data.split import split_by_prompt
from fairlead.data.word_problems import word_problems
from fairlead.pipeline.demo import shipped_recipe
from fairlead.records import Conversation, Message
from fairlead.rewards.verifiers import answer_format, maths_answer

RECIPE = load(JourneyConfig, shipped_recipe("arithmetic"), [])
PATTERN = RECIPE.grpo.answer_pattern
ROWS = [tuple(turn["content"] for turn in row["messages"]) for row in word_problems()]
PROBLEMS = [row[1:] for row in ROWS]  # question and solution

# What a reader does with the two numbers, by words of the question; the first that occurs decides.
READING = (
    ("boxes with", lambda a, b: a * b), ("每个盒子", lambda a, b: a * b),
    ("How many more", lambda a, b: a - b), ("away", lambda a, b: a - b), ("takes", lambda a, b: a - b),
    ("送给", lambda a, b: a - b), ("拿走", lambda a, b: a - b), ("比", lambda a, b: a - b),
    ("in all", lambda a, b: a + b), ("together", lambda a, b: a + b), ("more", lambda a, b: a + b),
    ("一共", lambda a, b: a + b), ("又买", lambda a, b: a + b),
)  # fmt: skip


def solved(prompt):
    a, b = map(int, re.findall(r"\d+", prompt))
    return next(work for words, work in READING if words in prompt)(a, b)


def shape(prompt):
    """The template of a prompt, by what is left without numbers, names and things."""
    words = r"Tom|Anna|Ben|Lucy|Sam|Mary|apples|books|pens|coins|eggs|cards|小.|苹果|橘子|鸡蛋|气球|杯子|包子|\d+"
    return re.sub(words, "_", prompt)


def test_every_solution_is_right_in_the_wanted_format_and_within_the_numbers():
    for prompt, solution in PROBLEMS:
        numbers = [int(text) for text in re.findall(r"\d+", prompt + solution)]
        assert 1 <= min(numbers) <= max(numbers) <= 20, prompt
        assert maths_answer(solution, str(solved(prompt)), pattern=PATTERN) == 1.0, (prompt, solution)
        written = solution.replace("。", ". ").partition(" = ")[0]
        assert eval(written) == solved(prompt), (prompt, solution)  # noqa: S307 - two numbers and a sign of ours


def test_the_system_turn_says_what_the_recipe_wants():
    assert RECIPE.eval.answer_pattern == PATTERN
    for system, question, solution in ROWS:
        asked = re.fullmatch(r"(?:End with: |最后写：)(.+)<(?:number|数字)>", system)
        assert answer_format(f"{asked[1]}7", pattern=PATTERN) == 1.0
        assert asked[1] in solution
        assert is_chinese(system) == is_chinese(question)
    for text in ("Answer 7", "Answer: seven", "Answer: 7 apples", "7", "答案7", "Answer: <number>"):
        assert answer_format(text, pattern=PATTERN) == 0.0


def test_both_languages_have_several_templates_and_no_template_meets_two_numbers_twice():
    met = Counter((shape(prompt), *re.findall(r"\d+", prompt)) for prompt, _ in PROBLEMS)
    assert set(met.values()) == {1}
    templates = {shape for shape, *_ in met}
    assert Counter(map(is_chinese, templates)) == {False: 7, True: 7}
    for template in templates:  # names and things vary within each
        of_it = [prompt for prompt, _ in PROBLEMS if shape(prompt) == template]
        assert len({re.sub(r"\d+", "", prompt) for prompt in of_it}) >= 4


def test_rows_are_the_same_every_time_and_the_pinned_ones(tmp_path):
    assert word_problems() == word_problems()
    path = starter.dataset_path("word_problems", tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == starter._MADE.sha256, "templates changed: pin anew"
    assert [tuple(m.content for m in record.messages) for record in read_conversations([path]).records] == ROWS


def test_the_file_is_made_once_and_again_when_it_is_damaged(tmp_path):
    path = starter.dataset_path("word_problems", tmp_path)
    before = path.stat().st_mtime_ns
    assert starter.resolve_paths(["word_problems"], tmp_path) == [path]
    assert path.stat().st_mtime_ns == before
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert starter.dataset_path("word_problems", tmp_path).read_bytes() == whole
    assert starter.licences([], {str(path): starter._MADE.sha256}) == {"word_problems": "Apache-2.0"}


@pytest.mark.parametrize("seed", range(3))
def test_held_out_problems_share_neither_prompt_nor_template_with_numbers(seed):
    records = [Conversation((Message("user", p), Message("assistant", s))) for p, s in PROBLEMS]
    parts = split_by_prompt(records, parts={"held_out": 256, "train": 1.0}, seed=seed).parts
    asked = {
        name: {(shape(r.prompt[0].content), *re.findall(r"\d+", r.prompt[0].content)) for r in part}
        for name, part in parts.items()
    }
    assert len(asked["held_out"]) == 256
    assert len(asked["train"]) == len(PROBLEMS) - 256
    assert not asked["held_out"] & asked["train"]
