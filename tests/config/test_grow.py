"""Options of growth: what contradicts itself or has no effect is refused by name."""

import pytest

from fairlead.config.grow import GrowConfig
from fairlead.config.parse import load
from fairlead.errors import UserError

URL = ("author.url=http://localhost:1/v1", "author.model=wise")
TRANSLATE, CHATS = "method=translate", "method=chats"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "nobody is named who writes"),
        ((TRANSLATE,), "nobody is named who writes"),
        ((CHATS, "answer=true"), "nobody is named who writes"),
        ((CHATS, "model=a"), "grow.method=chats asks no model without grow.answer"),
        ((CHATS, *URL), "grow.method=chats asks no model"),
        ((CHATS, "author.num_at_once=2"), "grow.method=chats asks no model"),
        (("model=a", *URL), "both model and author.url are named"),
        (URL[:1], "author.url goes with author.model"),
        (URL[1:], "author.url goes with author.model"),
        (("author.url=localhost:1", URL[1]), "author.url=localhost:1 is no address of an endpoint"),
        (("author.url=file:///etc/passwd", URL[1]), "is no address of an endpoint"),
        ((*URL, "chats.turns=every"), "grow.chats has no meaning for grow.method=self_instruct"),
        ((*URL, TRANSLATE, "min_words=1"), "grow.min_words has no meaning for grow.method=translate"),
        ((*URL, TRANSLATE, "self_instruct.num_own=1"), "grow.self_instruct has no meaning"),
        ((CHATS, "sampling.temperature=0"), "grow.sampling has no meaning for grow.method=chats"),
        ((*URL, "answer_sampling.temperature=0"), "grow.answer_sampling has no meaning without grow.answer"),
        ((*URL, "self_instruct.num_answered=1"), "self_instruct.num_answered has no meaning without grow.answer"),
        ((*URL, "self_instruct.num_own=8"), "leaves no seed among self_instruct.num_examples=8"),
        ((*URL, "method=crawl"), "method cannot be used; got crawl; want 'self_instruct', 'translate' or 'chats'"),
        ((*URL, "self_instruct.max_similarity=1.5"), "self_instruct.max_similarity cannot be used"),
    ],
)
def test_options_that_contradict_each_other(words, says):
    with pytest.raises(UserError) as caught:
        load(GrowConfig, None, words)
    assert says in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    "words",
    [
        URL, ("model=a", "answer=true", "self_instruct.num_answered=2", "answer_sampling.temperature=0"), (CHATS,),
        (CHATS, "answer=true", *URL), (TRANSLATE, "model=a", "sampling.temperature=0"), (CHATS, "min_words=0"),
    ],
)  # fmt: skip
def test_options_that_agree(words):
    config = load(GrowConfig, None, words)
    assert config.asks == (config.method != "chats" or config.answer)
