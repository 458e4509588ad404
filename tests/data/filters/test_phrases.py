"""Phrases of web pages and of other assistants."""

import pytest
from hypothesis import given

from fairlead.config.filters import PhrasesConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.phrases import phrases
from fairlead.records import Conversation, Document, Message
from tests.data.filters.rows import CHINESE, CLEAN, ENGLISH, RECORDS, ask, chat, judged, pair

CONFIG = PhrasesConfig()
NOTICES = [
    "© 2023 Acme Ltd. All rights reserved.",
    "This website uses cookies to improve your experience. Accept all cookies",
    "Subscribe to our newsletter!",
    "Please enable JavaScript to view the comments.",
    "Share on Facebook",
    "Lorem ipsum dolor sit amet",
    "版权所有 © 某某公司",
    "未经授权，不得转载",
    "转载请注明出处",
    "扫描下方二维码关注我们",
    "关注微信公众号：健康生活",
    "点击查看更多",
    "京ICP备12345678号",
]


@pytest.mark.parametrize("notice", NOTICES)
def test_lines_that_are_notices_are_cut(notice):
    for body in (ENGLISH, CHINESE):
        for record, clean in (
            (Document(f"{notice}\n{body}\n{notice}"), Document(body)),
            (chat(f"{body}\n{notice}"), chat(body)),
            (pair(body, f"x\n{notice}"), pair(body, "x")),
        ):
            assert phrases(record, CONFIG) == Kept(clean, "boilerplate")
            assert phrases(record, PhrasesConfig(boilerplate="drop")) == Dropped("boilerplate of a web page")
            assert phrases(record, PhrasesConfig(boilerplate="keep")) == Kept(record)
    assert phrases(Document(notice), CONFIG) == Dropped("nothing else than this in a text: boilerplate")


@pytest.mark.parametrize(
    "record",
    [
        *map(chat, CLEAN),
        chat("Add a footer:\n```html\n<p>All rights reserved</p>\n```"),
        chat("<footer>All rights reserved.</footer>", "Write a web page for my shop."),
        chat("版权所有 © 2023", "帮我写一段网站页脚"),
        chat(
            "Under the law of many countries, the words all rights reserved have had no effect since the year 2000, "
            * 3
        ),
        chat("Cookies are small files that a website keeps in your browser."),
        chat("著作权法规定，版权属于作者。"),
    ],
)
def test_prose_about_them_and_asked_for_notices_are_kept(record):
    assert phrases(record, CONFIG) == Kept(record)


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I do not have feelings.",
        "Well, as an AI, I cannot taste food.",
        "As a large language model, I have no opinion.",
        "I'm just an AI and know nothing of that.",
        "I’m only an AI language model.",
        "My knowledge cutoff is September 2021.",
        "I am ChatGPT, made to help.",
        "作为一个人工智能语言模型，我没有个人情感。",
        "作为AI助手，我可以告诉你。",
        "作为一名AI，我没有身体。",
        "我只是一个AI，没有感觉。",
        "作為一個人工智慧助理，我沒有感情。",
        "截至我的知识更新时间，这还没有发生。",
    ],
)
def test_canned_phrases_go(text):
    assert phrases(chat(text), CONFIG) == Dropped("canned phrase of an assistant")
    assert phrases(Document(f"{ENGLISH} {text}"), CONFIG) == Dropped("canned phrase of an assistant")
    assert phrases(chat(text), PhrasesConfig(canned="keep", refusals="keep")) == Kept(chat(text))
    for record in (pair(text, "no"), judged((text, True)), chat("fine", text), ask(text)):
        assert phrases(record, CONFIG) == Kept(record)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot help with that.",
        "I’m sorry, but I can’t assist with that request.",
        "Sorry, I am not able to share this.",
        "I apologize, but I am unable to do so.",
        "Unfortunately, I cannot give medical advice.",
        "I cannot provide instructions for this.",
        "很抱歉，我无法回答这个问题。",
        "对不起，我不能帮助你做这件事。",
        "非常抱歉，作为客服我没有办法处理。",
        "我无法提供这样的信息。",
        "抱歉，我無法協助。",
    ],
)
def test_refusals_go(text):
    assert phrases(chat(text), CONFIG) == Dropped("refusal")
    middle = Conversation(
        (Message("user", "a"), Message("assistant", text), Message("user", "b"), Message("assistant", "c"))
    )
    assert phrases(middle, CONFIG) == Dropped("refusal")
    assert phrases(chat(text), PhrasesConfig(refusals="keep")) == Kept(chat(text))
    for record in (pair(text, "no"), judged((text, True)), Document(text), chat("fine", text), ask(text)):
        assert phrases(record, CONFIG) == Kept(record)


@pytest.mark.parametrize(
    "text",
    [
        "I am Vicuna, a language model trained by researchers of LMSYS.",
        "As a language model, I go by the name Vicuna.",
        "As an AI assistant developed by ACME, I am called Ann.",
        "我是一个由清华大学训练的语言模型。",
        "作为一种语言模型，BERT 可以用于文本分类。",
        "作为人工智能领域的核心系统，它用途很广。",
        "GPT-3, as a large language model, can write essays.",
        "对不起，但您不能这样走棋。",
        "As an airline grows, it buys more planes.",
        "As an AI researcher, she built models of the weather.",
        "Language models such as GPT-4 were trained by OpenAI.",
        "I'm sorry to hear that! Try to rest, and drink much water.",
        "Sorry for the delay. Here is the list.",
        "很抱歉听到这个消息，请多保重。",
        "道歉信：对不起，昨天我迟到了。",
        "无法连接网络时，请重启路由器。",
        "人工智能语言模型是一种用大量文本训练的程序。",
    ],
)
def test_what_only_sounds_alike_is_kept(text):
    assert phrases(chat(text), CONFIG) == Kept(chat(text))


def test_own_phrases_go_whatever_their_case():
    config = PhrasesConfig(own=("As Per My Last Email", "众所周知"))
    assert phrases(chat("as per my last email, no."), config) == Dropped("holds the phrase 'as per my last email'")
    assert phrases(pair("众所周知，水往低处流。", "no"), config) == Dropped("holds the phrase '众所周知'")
    assert phrases(chat("fine", "众所周知"), config) == Kept(chat("fine", "众所周知"))


@given(RECORDS)
def test_cutting_twice_is_cutting_once(record):
    once = phrases(record, PhrasesConfig(canned="keep", refusals="keep"))
    if isinstance(once, Kept):
        assert phrases(once.record, PhrasesConfig(canned="keep", refusals="keep")) == Kept(once.record)
    assert isinstance(phrases(record, CONFIG), Kept | Dropped)


def test_a_line_that_opens_code_is_not_cut():
    record = chat("All rights reserved```\nx = 1")
    assert phrases(record, CONFIG) == Kept(record)
