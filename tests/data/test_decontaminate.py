"""Evaluation questions in training data: every planted one is found, whatever its spelling, and real overlap."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.data.benchmark_items import BenchmarkItem, read_benchmarks
from fairlead.data.decontaminate import COMMON, MOSTLY, SHARE, SHORTEST, WIDTH, Benchmarks
from fairlead.data.shingles import folded, hash_tokens
from fairlead.errors import ExitCode, UserError

EVAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "eval"
needs_eval = pytest.mark.skipif(not EVAL.is_dir(), reason="the shared data is not there")
QUESTIONS = (
    "A train leaves the station at 9:00 and travels at 60 km/h; how far has it come by 11:30 if it never stops?",
    "下列关于光合作用的叙述中，正确的是哪一项，请选择最合适的答案并说明理由。",
    "What is the capital of France?",  # shorter than 13 tokens: must stand whole
)


def items(*texts: str) -> list[BenchmarkItem]:
    return [BenchmarkItem(f"bench:{number}", text) for number, text in enumerate(texts, start=1)]


def found(benchmarks: Benchmarks, text: str) -> set[str]:
    return {hit.item.source for hit in benchmarks.hits([text])}


def wide(text: str) -> str:
    """Full-width forms of ASCII."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


SPELLINGS = {
    "as it is": lambda text: text,
    "upper case": str.upper,
    "full width": wide,
    "other spacing": lambda text: text.replace(" ", "  \n\t"),
    "other punctuation": lambda text: text.translate(str.maketrans(",.?;，。、？", "!!!!；；；；")),
    "no punctuation": lambda text: re.sub(r"[,.?;，。、？](?![0-9])", "", text),  # the point of a number stays
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("question", range(len(QUESTIONS)))
def test_a_planted_question_is_found(question, spelling):
    planted = SPELLINGS[spelling](QUESTIONS[question])
    text = f"Some words before. {planted} Some words behind."
    assert found(Benchmarks(items(*QUESTIONS)), text) == {f"bench:{question + 1}"}


def test_texts_that_hold_no_question_are_left_alone():
    texts = ["How far is it to the station?", "The capital of Spain is Madrid.", "光合作用需要光。", "", "..."]
    assert Benchmarks(items(*QUESTIONS)).hits(texts) == []


def slow_hits(texts: list[list[str]], questions: list[list[str]]) -> set[tuple[int, int]]:
    """The definition over lists of words: (text, question)."""

    def runs(words: list[str], width: int) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)}

    hits = set()
    for q, question in enumerate(questions):
        for t, text in enumerate(texts):
            if not question:
                continue
            if len(question) < SHORTEST:
                hit = text == question
            else:
                width = min(len(question), WIDTH)
                telling = {
                    run for run in runs(question, width)
                    if sum(run in runs(o, width) for o in questions if min(len(o), WIDTH) == width) <= COMMON
                }  # fmt: skip
                shared = len(telling & runs(text, width))
                enough = SHARE * len(runs(question, width)), MOSTLY * (len(text) - WIDTH + 1)
                hit = shared >= 1 and shared >= min(enough)
            if hit:
                hits.add((t, q))
    return hits


@settings(max_examples=60)
@given(st.data())
def test_hits_are_those_of_the_definition(data):
    words = st.lists(st.sampled_from(["ab", "cd", "e1", "f"]), max_size=17)
    questions = data.draw(st.lists(words, min_size=1, max_size=5))
    texts = data.draw(st.lists(words, min_size=1, max_size=5))
    texts[0] = [*texts[0], *questions[0], *texts[-1]]
    benchmarks = Benchmarks(items(*(" ".join(question) for question in questions)))
    hits = benchmarks.hits([" ".join(text) for text in texts])
    assert {(hit.index, int(hit.item.source[6:]) - 1) for hit in hits} == slow_hits(texts, questions)
    assert all(0 < hit.num_shared <= hit.num_runs for hit in hits)


def test_a_template_of_many_questions_tells_nothing():
    template = "Read the passage below with care and then choose the one best answer from the list: "
    benchmarks = Benchmarks(items(*(f"{template} item {n} about {n * 7}" for n in range(COMMON + 1))))
    assert benchmarks.hits([f"{template} something of my own"]) == []


def test_a_run_across_two_texts_is_none():
    half, other = "a question of sixteen words which are", "cut in two halves and then told apart"
    benchmarks = Benchmarks(items(f"{half} {other}"))
    assert benchmarks.hits([half, other]) == []
    assert len(benchmarks.hits([f"{half} {other}"])) == 1


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        (
            "a.jsonl",
            '{"question": "One?", "answer": "1"}\n{"passage": "P.", "question": "Two?"}\n',
            ["One?", "Two?", "P."],
        ),
        ("b.json", '{"examples": [{"input": "X", "target": "Y"}, {"input": "Z"}]}', ["X", "Z"]),
        ("c.csv", "id,Question,A\n0,What?,1\n", ["What?"]),
        ("d.csv", "Is it?,1,2,A\nOr not?,3,4,B\n", ["Is it?", "Or not?"]),
        ("e.jsonl", '{"turns": ["First.", "Second."]}\n', ["First.\nSecond."]),
        ("f.json", '{"data": [{"paragraphs": [{"context": "C", "qas": [{"question": "Q1"}]}]}]}', ["Q1"]),
    ],
)
def test_questions_of_the_layouts_of_benchmarks(tmp_path, name, text, wanted):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert [item.text for item in read_benchmarks([path])] == wanted


def test_a_file_without_questions_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"title": "nothing"}\n')
    with pytest.raises(UserError, match="no question") as caught:
        read_benchmarks([path])
    assert caught.value.exit_code == ExitCode.BAD_DATA


@needs_eval
@pytest.mark.parametrize(
    ("folder", "rows"),
    [("gaokao/Objective_Questions", 1694), ("bbh/bbh", 6106), ("gsm8k/test.jsonl", 1319), ("mmlu/test", 2280),
     ("cmmlu/test", 4020), ("ceval/val", 1138), ("mt_bench/question_zh.jsonl", 80), ("truthfulqa/TruthfulQA.csv", 690),
     ("cmrc2018/cmrc2018_trial.json", 1000), ("vicuna_bench/question.jsonl", 80)],
)  # fmt: skip
def test_real_benchmarks_are_read_to_the_last_question(folder, rows):  # two questions of cmrc2018 are empty
    assert len(read_benchmarks([EVAL / folder])) == rows


@needs_eval
def test_planted_real_questions_are_all_found():
    rng = random.Random(0)
    questions = read_benchmarks([EVAL / "mmlu" / "test", EVAL / "ceval" / "val", EVAL / "gsm8k" / "test.jsonl"])
    benchmarks = Benchmarks(questions)
    chosen = [item for item in rng.sample(questions, 600) if len(item.text) > 40]
    texts = [f"Here is one. {rng.choice(list(SPELLINGS.values()))(item.text)} And so on." for item in chosen]
    hits = {(hit.index, hit.item.source) for hit in benchmarks.hits(texts)}
    missed = [item for index, item in enumerate(chosen) if (index, item.source) not in hits]
    assert not missed


@needs_eval
def test_agieval_and_gaokao_share_questions():
    """Every question of one that stands in the other whole is found, and hardly any that shares nothing with it."""
    agieval = read_benchmarks(sorted((EVAL / "agieval" / "v1").glob("gaokao-*.jsonl")))
    gaokao = read_benchmarks([EVAL / "gaokao" / "Objective_Questions"])
    hits = {hit.index for hit in Benchmarks(gaokao).hits([item.text for item in agieval])}
    known = [letters(item.text) for item in gaokao]
    asked = [letters(item.text) for item in agieval]
    standing = {i: sum(text in one for one in known) for i, text in enumerate(asked)}
    long = np.diff(hash_tokens([item.text for item in agieval]).offsets) >= WIDTH
    whole = {i for i, count in standing.items() if long[i] and 1 <= count <= COMMON}
    assert len(whole) >= 29
    assert whole <= hits
    print(len(agieval), len(whole), len(hits))


def letters(text: str) -> str:
    """Letters and digits alone."""
    return re.sub(r"[\W_]", "", folded(text))
