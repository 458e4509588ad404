"""An OpenAI-style endpoint that writes: lists of instructions, translations and answers, by the request alone."""

import random
import re
from contextlib import contextmanager

from fake_judge import FakeJudge, listening

TOPICS = {
    False: ["rivers", "bread", "winter", "engines", "gardens", "music", "silver", "letters", "honey", "kites", "maps"],
    True: ["河流", "面包", "冬天", "机器", "花园", "音乐", "白银", "书信", "桥梁", "蜂蜜", "时钟", "风筝", "地图"],
}
FORMS = {
    False: (
        "Write a poem on {0}, {1} and {2}.", "Explain how {0} differ from {1} and {2}.", "List facts on {0} or {1}.",
        "Compare {0} with {1} in words.", "Invent how {0} and {1} saved {2}.", "Sing {0}.", "1 way to use {0} at home",
    ),
    True: ("写诗：{0}、{1}、{2}。", "请解释{0}与{1}以及{2}有什么不同。", "列出{0}和{1}的冷知识。", "谈{0}"),
}  # fmt: skip


def is_list(question):
    """Whether instructions are asked for."""
    return question.startswith(("Come up with", "想出"))


def shown_in(question):
    """The instructions of a numbered list."""
    return re.findall(r"(?m)^\d+\. (.+)$", question)


def words(body):
    """What is written: seven instructions, a translation that a rule can check, or an answer."""
    text = body["messages"][-1]["content"]
    draw = random.Random(f"{body['seed']} {text}")
    if is_list(text):
        chinese = text.startswith("想出")
        first = len(shown_in(text)) + 1
        made = [draw.choice(FORMS[chinese]).format(*draw.sample(TOPICS[chinese], 3)) for _ in range(7)]
        return " " + "\n".join(f"{first + i}. {one}" if i else one for i, one in enumerate(made))
    if "\n\n" in text and text.startswith(("Translate", "把下面")):
        kept = " ".join(re.findall(r"\{\w+\}|`[^`]+`|\d+", text.partition("\n\n")[2]))
        return f"这是译文 {kept}" if text.startswith("Translate") else f"This is the translation {kept}"
    return f"An answer, {draw.randrange(1000)}: {text[::-1]}"


class FakeAuthor(FakeJudge):
    """`answer` turns the body of a request into words, or into words and why they end."""

    def choice(self, body):
        made = self.answer(body)
        content, reason = (made, "stop") if isinstance(made, str) else made
        return {"message": {"role": "assistant", "content": content}, "finish_reason": reason}

    @property
    def bodies(self):
        """What was asked and answered, in the order of arrival."""
        return [body for _, body in self.requests]


@contextmanager
def fake_author(answer=words, failures=()):
    """The endpoint, listening on a free port until the block ends."""
    with listening(FakeAuthor(answer, failures)) as author:
        yield author
