"""Translations: what is asked, and what rules refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config.common import SamplingConfig
from fairlead.records import Message, Prompt
from fairlead.synthesize.author import CUT, Author
from fairlead.synthesize.endpoint import Answer
from fairlead.synthesize.translate import question, translated, wrong

PIECES = st.sampled_from(
    ["7", "3.5", "1,200", "{name}", "`x = 1`", "[EMAIL]", "https://a.org/b?c=1", "<b>", "```\ny\n```"]
)


def translate(prompts, answer):
    """`answer` turns the text to translate into an Answer, or its words."""

    def ask(batches, _):
        for (request,) in batches:
            found = answer(request.messages[0].content.partition("\n\n")[2])
            yield [found if isinstance(found, Answer) else Answer(found)]

    author = Author(ask, rows_at_once=1, known=(), journal=None)
    return translated(prompts, author, SamplingConfig(), seed=0, say=lambda _: None)


@pytest.mark.parametrize(
    ("text", "translation", "reason"),
    [
        ("How are you?", "你好吗？", ""),
        ("How are you?", "How are you?", "not in Chinese"),
        ("你好吗？", "你好吗？", "not in English"),
        ("你好吗？", "How are you?", ""),
        ("How are you?", " \n", "empty"),
        ("How are you?", "123", "not in Chinese"),
        ("What is 1,234 + 5?", "1234 加 5 是多少？", ""),
        ("What is 1,234 + 5?", "1234 加五是多少？", "lost a number"),
        ("2 + 2 is 4", "2 加二是 4", "lost a number"),
        ("Its weight is 3.50 kg.", "它重 3.5 公斤。", "lost a number"),
        ("三个苹果，５个梨", "Three apples, 5 pears", ""),
        ("Who came 2nd?", "谁是第二名？", ""),
        ("Greet {name} now", "现在问候 {name}", ""),
        ("Greet {name} now", "现在问候 {名字}", "lost a placeholder or a link"),
        ("Write to [EMAIL] today", "今天写信给 [邮箱]", "lost a placeholder or a link"),
        ("Read https://a.org/b.", "请看 https://a.org/b。", ""),
        ("Read https://a.org/b.", "请看链接。", "lost a placeholder or a link"),
        ("What does `x += 1` do?", "`x += 1` 有什么用？", ""),
        ("What does `x += 1` do?", "`x+=1` 有什么用？", "lost code"),
        ("Mend this:\n```\nprint(1\n```", "修好它：\n```\nprint(1\n```", ""),
        ("Mend this:\n```\nprint(1\n```", "修好它", "lost code"),
        ("解释 `a_very_long_function_name(argument)`", "Explain `a_very_long_function_name(argument)`", ""),
        ("1 + 1 = ?", "1 + 1 = ?", ""),
    ],
)
def test_what_a_rule_finds(text, translation, reason):
    chinese = any("\u4e00" <= letter <= "\u9fff" for letter in text)
    assert wrong(text, translation, chinese=chinese) == reason


@given(st.lists(PIECES, min_size=1, max_size=6), st.data())
def test_a_piece_that_is_left_out_is_seen_and_their_order_is_free(pieces, data):
    text = "Look at this: " + " and ".join(pieces)
    moved = data.draw(st.permutations(pieces))
    assert wrong(text, "看看这些：" + "和 ".join(moved), chinese=False) == ""
    missing = [*moved[:-1]]
    assert wrong(text, "看看这些：" + "和 ".join(missing), chinese=False).startswith("lost")


def test_each_text_is_asked_about_in_its_language():
    assert question("Hi", chinese=False).endswith("\n\nHi")
    assert "Chinese" in question("Hi", chinese=False)
    assert "英文" in question("你好", chinese=True)


def test_all_turns_of_a_prompt_go_over_or_none():
    turns = (
        Message("system", "Be kind."),
        Message("user", "Hi 1"),
        Message("assistant", "Yes?"),
        Message("user", "Say 2"),
    )
    prompts = [Prompt(turns, "a:1", "ref"), Prompt((Message("user", "你好 3"),), "a:2"), Prompt(turns[1:2], "a:3")]
    numbers = {"Hi 1": "你好 1", "Say 2": "说 2", "Be kind.": "友善些。", "Yes?": "什么？", "你好 3": " Hello 3\n"}
    grown = translate(prompts, numbers.get)
    assert [[m.content for m in p.messages] for p in grown.prompts] == [
        ["友善些。", "你好 1", "什么？", "说 2"],
        ["Hello 3"],
        ["你好 1"],
    ]
    assert [(p.source, p.answer) for p in grown.prompts] == [("a:1", ""), ("a:2", ""), ("a:3", "")]
    assert [m.role for m in grown.prompts[0].messages] == [m.role for m in turns]
    numbers["Say 2"] = "说二"
    grown = translate(prompts, numbers.get)
    assert [p.source for p in grown.prompts] == ["a:2", "a:3"]
    assert [(one["source"], one["reason"]) for one in grown.refused] == [("a:1", "lost a number")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer("你好", finished=False), CUT),
        (Answer("", problem="too long"), "too long"),
        (Answer(" "), "empty, or no text"),
        (Answer("你\ufffd"), "empty, or no text"),
    ],
)
def test_an_answer_that_is_no_translation(answer, reason):
    grown = translate([Prompt((Message("user", "Hi"),), "a:1")], lambda _: answer)
    assert not grown.prompts
    assert [one["reason"] for one in grown.refused] == [reason]
