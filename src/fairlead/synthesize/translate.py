"""Prompts in the other language: a model translates Chinese to English and English to Chinese, and rules check it.

What must stand in a translation as it stood before: code, placeholders, addresses, numbers. A number that is written
out in words ("two apples", "两个苹果") is told to be lost: better a row too few than a sum with other numbers.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from fairlead.config.common import SamplingConfig
from fairlead.data.language import is_chinese
from fairlead.data.views import prompt_text
from fairlead.records import Message, Prompt
from fairlead.synthesize.author import SEEDS_APART, Author, Grown, Request, unusable
from fairlead.synthesize.endpoint import Answer

STEP = "translate"

_VERBATIM = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`"  # code
    r"|\{\{[^{}\n]{1,60}\}\}|\{[^{}\n]{0,60}\}|\[[A-Z][A-Z_]+\]|<[A-Za-z_/][^<>\n]{0,60}>|%[sdif]\b"  # placeholders
    r"|https?://[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*[A-Za-z0-9/#=&_-]",
    re.DOTALL,
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?!\d|st\b|nd\b|rd\b|th\b)")
_LETTER = re.compile(r"[^\W\d_]")
_ASKED = {  # by whether the text is Chinese
    False: "Translate the text below into Chinese. Leave code, numbers, links and placeholders such as {name} or "
    "[EMAIL] as they are. Do not answer it. Write the translation and nothing else.\n\n",
    True: "把下面的文字翻译成英文。代码、数字、链接以及 {name}、[EMAIL] 这样的占位符保持原样。"
    "不要回答其中的问题，只写译文。\n\n",
}


def question(text: str, *, chinese: bool) -> str:
    """What a model is asked, in the language that it translates from; `chinese` is the text's."""
    return _ASKED[chinese] + text


def translated(
    prompts: Sequence[Prompt], author: Author, sampling: SamplingConfig, *, seed: int, say: Callable[[str], None]
) -> Grown:
    """Each prompt in the other language, all its turns; refused as a whole where one turn of it is.

    The reference answer that a prompt's row may hold is left behind: it is in the first language.
    """
    from_chinese = [is_chinese(_bare(prompt_text(prompt))) for prompt in prompts]
    texts = [(m.content, chinese) for p, chinese in zip(prompts, from_chinese, strict=True) for m in p.messages]
    requests = [
        Request((Message("user", question(text, chinese=chinese)),), seed * SEEDS_APART + row)
        for row, (text, chinese) in enumerate(texts)
    ]
    say(f"{len(requests)} turns of {len(prompts)} prompts to translate")
    answers = iter(author.answers(requests, sampling))
    grown = Grown()
    for prompt, chinese in zip(prompts, from_chinese, strict=True):
        own = [next(answers) for _ in prompt.messages]
        reasons = (_reason(m.content, answer, chinese) for m, answer in zip(prompt.messages, own, strict=True))
        if reason := next(filter(None, reasons), ""):
            grown.refuse(STEP, reason, prompt.source, "\n".join(answer.text for answer in own))
        else:
            turns = zip(prompt.messages, own, strict=True)
            messages = tuple(replace(message, content=answer.text.strip()) for message, answer in turns)
            grown.prompts.append(Prompt(messages, prompt.source))
    return grown


def wrong(text: str, translation: str, *, chinese: bool) -> str:
    """What is wrong with a translation of a text, which is Chinese or is not; nothing where no rule finds anything."""
    if not translation.strip():
        return "empty"
    if _LETTER.search(_bare(text)) and not _is_other_language(_bare(translation), chinese):
        return f"not in {'English' if chinese else 'Chinese'}"
    if lost := _lost(_VERBATIM.findall(text), _VERBATIM.findall(translation)):
        return "lost code" if lost.startswith("`") else "lost a placeholder or a link"
    if _lost(_numbers(text), _numbers(translation)):
        return "lost a number"
    return ""


def _reason(text: str, answer: Answer, chinese: bool) -> str:
    return unusable(answer) or wrong(text, answer.text, chinese=chinese)


def _is_other_language(text: str, chinese: bool) -> bool:
    return is_chinese(text) != chinese and _LETTER.search(text) is not None


def _bare(text: str) -> str:
    """What is to be translated."""
    return _VERBATIM.sub(" ", text)


def _numbers(text: str) -> list[str]:
    """In digits, without commas between thousands; ordinals such as 2nd are words."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", _bare(text)))
    return [re.sub(r",(?=\d{3}(?!\d))", "", number) for number in found]


def _lost(before: Iterable[str], after: Iterable[str]) -> str:
    """The first that stands less often than before."""
    return next(iter(Counter(before) - Counter(after)), "")
