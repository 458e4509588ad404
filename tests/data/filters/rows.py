"""Records for the tests of the filters, and what they are made of."""

from hypothesis import strategies as st

from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt


def chat(answer: str, question: str = "Tell me.") -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), "f:1")


def ask(question: str, answer: str = "") -> Prompt:
    return Prompt((Message("user", question),), "f:1", answer)


def pair(chosen: str, rejected: str, question: str = "Tell me.") -> Preference:
    return Preference((Message("user", question),), (chosen, rejected), "f:1")


def judged(*answers: tuple[str, bool], question: str = "Tell me.") -> Judgement:
    texts, desirable = zip(*answers, strict=True)
    return Judgement((Message("user", question),), texts, desirable, "f:1")


PIECES = st.sampled_from(
    [
        "â€™", "Ã©", "&amp;", "&lt;", "&#104;", "&", ";", "\ufffd", "\x00", "\x1b[31m", "\ufeff", "```", "`", "\n",
        "```py\n", "，", "。", "（", "你好", "后面", "後面", "乾", "a, ", "- ", "1. ", "ha ", "哈", "é", "’", "\ud83d",
        "😀", "\u200d", "13812345678", "+86 ", "138-1234-5678", "11010519491231002X", "8.8.8.8", "2001:4860::8888",
        "v", ":", ".", "@", "-", "a@b.cn", "AKIAIOSFODNN7EXAMPLE", "sk-", "4f" * 12, "北京市朝阳区", "建国路88号",
        "All rights reserved", "版权所有", "As an AI language model, ", "I'm sorry, but I cannot", "很抱歉，我无法",
        "fuck", "傻逼", "https://a.b/c", "\r\n", " ",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))
RECORDS = st.one_of(
    st.builds(chat, TEXTS, TEXTS),
    st.builds(ask, TEXTS, TEXTS),
    st.builds(pair, TEXTS, TEXTS),
    st.builds(Document, TEXTS),
    st.lists(st.tuples(TEXTS, st.booleans()), min_size=1, max_size=3).map(lambda answers: judged(*answers)),
)

ENGLISH = """The heart pumps blood through the body in two circuits. In the first one, blood flows to the lungs, where
it takes up oxygen and gives off carbon dioxide; in the second one it flows to all other organs and feeds them.

1. The right side of the heart receives the blood that comes back from the body.
2. The left side receives the blood that comes from the lungs, and sends it on with much more pressure.

A grown-up's heart beats about 70 times in a minute (100,000 times in a day), and faster when we run."""
CHINESE = """心脏把血液泵送到全身，血液循环有两条。第一条叫“肺循环”：血液流到肺部，吸收氧气；
第二条叫“体循环”：血液流到其他器官，把它们需要的养分送过去，再带走二氧化碳。

1. 右心房接收从全身回来的血液；
2. 左心房接收从肺部回来的血液，再用更大的压力把它送出去。

成年人的心脏每分钟大约跳70次（一天约10万次），跑步的时候跳得更快。"""
CODE = """Use a loop:

```python
for i in range(10):
    print(f"{i:>3} | {i ** 2:#06x}")  # &lt; â€™
```

It prints ten lines."""
CLEAN = (ENGLISH, CHINESE, CODE)
