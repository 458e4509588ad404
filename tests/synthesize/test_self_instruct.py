"""The numbered list: what is shown, what is read out of a completion, what is refused and when it ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config.common import SamplingConfig
from fairlead.config.grow import SelfInstructConfig
from fairlead.data.language import is_chinese
from fairlead.records import Message, Prompt
from fairlead.synthesize.author import CUT, SEEDS_APART, Author
from fairlead.synthesize.endpoint import Answer
from fairlead.synthesize.self_instruct import Seed, invented, one_line, parsed, question, seed_of, shown_answers
from fake_author import shown_in, words
from oracles import similarity as oracle

THINGS = ("house", "shoe", "ship", "road", "cake", "book", "wheel", "coat", "lamp", "chair")
ENGLISH = [f"Tell me what a {thing} is made of." for thing in THINGS]
CHINESE = [f"请说明{word}是用什么做成的。" for word in ("房子", "鞋", "船", "路")]
SEEDS = [Seed(text) for text in ENGLISH + CHINESE]
LINES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Nd")), min_size=1).map(
    one_line
)
TASKS = st.lists(LINES.filter(lambda text: text and not text.endswith((":", "："))), min_size=1, max_size=6)


def author(answer, asked=None):
    """One that answers without a journal; `asked` collects the requests."""

    def ask(batches, _):
        for (request,) in batches:
            if asked is not None:
                asked.append(request)
            made = answer({"messages": [{"content": request.messages[-1].content}], "seed": request.seed})
            yield [made if isinstance(made, Answer) else Answer(made)]

    return Author(ask, rows_at_once=1, known=(), journal=None)


def invent(answer=words, asked=None, seeds=SEEDS, seed=0, min_words=4, **options):
    config = SelfInstructConfig(**{"num_instructions": 9, "max_requests": 6} | options)
    return invented(
        seeds, config, SamplingConfig(), author(answer, asked), min_words=min_words, seed=seed, say=lambda _: None
    )


def made(grown):
    return [prompt.messages[0].content for prompt in grown.prompts]


# --- what is shown


def test_the_question_is_the_papers_list():
    assert (
        question(["Write a\n poem: ", "Say hi."]) == "Come up with a series of tasks:\n1. Write a poem\n2. Say hi.\n3."
    )
    assert question(["写诗："]) == "想出一系列任务：\n1. 写诗\n2."


def test_a_request_shows_seeds_and_a_few_new_ones_of_one_language():
    asked = []
    grown = invent(asked=asked, num_instructions=200, max_requests=40, requests_per_round=2)
    seeds = {seed.instruction.rstrip(":") for seed in SEEDS}
    languages = set()
    for number, request in enumerate(asked):
        assert request.seed == number
        shown = shown_in(request.messages[0].content)
        assert len(shown) == len(set(shown)) == 8 or all(map(is_chinese, shown))
        assert len({is_chinese(text) for text in shown}) == 1
        languages |= {is_chinese(text) for text in shown}
        own = [text for text in shown if text not in seeds]
        assert set(own) <= set(made(grown))
        assert len(own) <= 2
        assert number >= 2 or not own, "a round shows what earlier rounds kept"
    assert languages == {False, True}
    assert any(len([text for text in shown_in(r.messages[0].content) if text not in seeds]) == 2 for r in asked)


def test_requests_draw_by_their_seed():
    runs = [[], [], []]
    for run, seed in zip(runs, (0, 0, 1), strict=True):
        invent(asked=run, seed=seed)
    assert runs[0] == runs[1]
    assert runs[2][0].seed == SEEDS_APART
    assert runs[0][0].messages != runs[2][0].messages


def test_numbers_of_examples():
    asked = []
    invent(asked=asked, seeds=[Seed(text) for text in ENGLISH], num_examples=3, num_own=0, max_requests=12)
    shown = [shown_in(request.messages[0].content) for request in asked]
    assert {len(one) for one in shown} == {3}
    assert {text for one in shown for text in one} <= set(ENGLISH)


def test_a_seed_is_the_first_question_with_its_answer():
    system, user, said, more = (
        Message(*one) for one in (("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "v"))
    )
    assert seed_of(Prompt((system, user), answer="b")) == Seed("u", "b")
    assert seed_of(Prompt((user, said, more), answer="b")) == Seed("u", "a")
    assert seed_of(Prompt((user,))) == Seed("u")


# --- what is read


@given(
    TASKS,
    st.integers(1, 90),
    st.sampled_from([". ", ") ", "、", "．", " . "]),
    st.booleans(),
    st.sampled_from(["\n", "\n\n"]),
)
def test_a_list_is_read_back(tasks, first, mark, numbered, between):
    lines = [f"{first + i}{mark}{task}" if i or numbered else task for i, task in enumerate(tasks)]
    assert parsed(between.join(lines)) == tasks


@given(st.text())
def test_any_text_is_read(text):
    assert all(one == one_line(one) != "" for one in parsed(text))


@pytest.mark.parametrize(
    ("completion", "wanted"),
    [
        (" Write a poem.\n10. Tell a joke.", ["Write a poem.", "Tell a joke."]),
        ("Here are more tasks:\n9. One\n10. Two", ["One", "Two"]),
        ("9. One\n\n10. Two\n\nLet me know!", ["One", "Two"]),
        ("Explain 3.5 percent.\n3.5 is a number.", ["Explain 3.5 percent. 3.5 is a number."]),
        ("Sum up:\n  a text\n10. Two", ["Sum up: a text", "Two"]),
        ("1. 1. One\n2. 2. Two", ["One", "Two"]), ("", []), ("9.\n10. ", []),
    ],
)  # fmt: skip
def test_completions_as_models_write_them(completion, wanted):
    assert parsed(completion) == wanted


# --- what is refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sing a song", "fewer than 4 words"),
        ("word " * 151, "more than 150 words"),
        ("写首诗", "fewer than 4 words"),
        ("Describe what this Image shows.", "holds the word 'image'"),
        ("Go to the shop and buy", "holds the word 'go to'"),
        ("Write a program that adds two numbers.", "holds the word 'write a program'"),
        ("看看这张图片里有什么", "holds the word '图片'"),
        ("- Write a short poem", "begins with no letter"),
        ("“春天”这个词是什么意思", "begins with no letter"),
        ("7 facts about the moon", "begins with no letter"),
        ("Tell me what a lamp is made of!", "ROUGE-L not below 0.7"),
        ("请说明船是用什么做成的吗", "ROUGE-L not below 0.7"),
    ],
)
def test_an_instruction_is_refused(text, reason):
    grown = invent(lambda _: f" {text}\n10. Imagine a day without any colours.", max_requests=1)
    assert made(grown) == ["Imagine a day without any colours."]
    ((kept),) = grown.refused
    assert (kept["step"], kept["reason"], kept["source"]) == ("self_instruct", reason, "request 1")
    assert kept["text"] == text.strip()[:300]
    assert ("like" in kept) == ("ROUGE" in reason)


def test_words_that_only_hold_an_excluded_one_pass():
    text = "Imagine the geography of a planet without seas."
    assert made(invent(lambda _: text, max_requests=1, num_instructions=1)) == [text]
    assert not invent(lambda _: text, max_requests=1, excluded=("imagine",)).prompts
    assert made(invent(lambda _: "Draw a map of a graph.", max_requests=1, excluded=())) == ["Draw a map of a graph."]


def test_no_two_kept_ones_are_alike():
    grown = invent(num_instructions=200, max_requests=30)
    before = [seed.instruction for seed in SEEDS]
    assert len(made(grown)) > 20
    assert any("like" in one for one in grown.refused)
    for text in made(grown):
        assert max(oracle.rouge_l(text, other) for other in before) < 0.7
        before.append(text)
    for one in grown.refused:
        if "like" in one:
            assert oracle.rouge_l(one["text"], one["like"]) >= 0.7
    assert len(made(invent(num_instructions=200, max_requests=30, max_similarity=0.3))) < len(made(grown))


def test_of_an_answer_that_was_cut_off_the_last_one_goes():
    grown = invent(lambda _: Answer("Name a good song for rain.\n10. Explain why the", finished=False), max_requests=1)
    assert made(grown) == ["Name a good song for rain."]
    assert [(one["reason"], one["text"]) for one in grown.refused] == [(CUT, "Explain why the")]


def test_a_question_that_was_not_asked_is_told():
    grown = invent(lambda _: Answer("", problem="the prompt has 9 tokens, more than 8"), max_requests=1)
    assert [one["reason"] for one in grown.refused] == ["the prompt has 9 tokens, more than 8"]


# --- when it ends


def test_it_ends_with_enough_or_with_the_last_request():
    asked = []
    grown = invent(asked=asked, num_instructions=9, max_requests=50, requests_per_round=3)
    assert len(grown.prompts) == 9
    assert len(asked) % 3 == 0
    assert len(asked) < 50
    asked.clear()
    assert invent(lambda _: "", asked=asked, max_requests=7, requests_per_round=5).prompts == []
    assert len(asked) == 7


# --- answered seeds


def test_answered_seeds_of_the_prompts_language_stand_before_it():
    seeds = [Seed("How are you?", "Fine."), Seed("你好吗？", "很好。"), Seed("Why?", ""), Seed("Who?", "Me.")]
    prompts = [Prompt((Message("user", text),)) for text in ("What now?", "现在呢？")]
    english, chinese = shown_answers(prompts, seeds, num_answered=3, seed=1)
    assert sorted(m.content for m in english) == ["Fine.", "How are you?", "Me.", "Who?"]
    assert [m.role for m in english] == ["user", "assistant"] * 2
    assert [m.content for m in chinese] == ["你好吗？", "很好。"]
    assert {len(shown) for shown in shown_answers(prompts, seeds, num_answered=1, seed=1)} == {2}
