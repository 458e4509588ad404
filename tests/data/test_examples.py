from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import conversation_examples, preference_examples, ranked_examples, task_examples
from fairlead.records import Conversation, Message, Preference, Prompt, Rejection
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
TEMPLATE = ChatTemplate(TOKENIZER)
HI = (Message("user", "hi"),)
PROMPT_LENGTH = len(TEMPLATE.encode_prompt(HI))


def said(example):
    return TOKENIZER.decode([t for t, m in zip(example.input_ids, example.trained, strict=True) if m])


def test_conversations_keep_their_source():
    records = [Conversation((*HI, Message("assistant", "ho")), "a.jsonl:3")]
    (example,), rejections = conversation_examples(records, TEMPLATE, 512)
    assert not rejections
    assert example.source == "a.jsonl:3"
    assert said(example) == "ho<|im_end|>"
    assert example.num_trained == 3


@given(st.integers(1, PROMPT_LENGTH + 8))
def test_a_conversation_without_a_trained_token_after_the_cut_is_rejected(max_length):
    records = [Conversation((*HI, Message("assistant", "hohoho")), "C:\\a:b.jsonl:3")]
    examples, rejections = conversation_examples(records, TEMPLATE, max_length)
    if max_length <= PROMPT_LENGTH:
        assert not examples
        reason = f"no trained token is left within max_length={max_length}"
        assert rejections == [Rejection("C:\\a:b.jsonl", 3, reason)]
    else:
        assert not rejections
        assert len(examples[0].input_ids) <= max_length
        assert examples[0].num_trained == len(examples[0].input_ids) - PROMPT_LENGTH - (max_length >= PROMPT_LENGTH + 8)


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dd d", "e\n"]), min_size=2, max_size=5, unique=True), st.booleans())
def test_all_pairs_of_ranked_responses(responses, end_token):
    pairs, rejections = preference_examples(
        [Preference(HI, tuple(responses), "f:1")], TEMPLATE, 512, end_token=end_token
    )
    assert not rejections
    end = "<|im_end|>" if end_token else ""
    expected = [(better + end, worse + end) for better, worse in combinations(responses, 2)]
    assert [(said(pair.chosen), said(pair.rejected)) for pair in pairs] == expected
    for pair in pairs:
        assert pair.chosen.input_ids[:PROMPT_LENGTH] == pair.rejected.input_ids[:PROMPT_LENGTH]
        assert pair.num_tokens == len(pair.chosen.input_ids) + len(pair.rejected.input_ids)
        assert pair.chosen.trained == (False,) * PROMPT_LENGTH + (True,) * (len(pair.chosen.input_ids) - PROMPT_LENGTH)


def test_responses_of_one_grade_make_no_pair():
    record = Preference(HI, ("a", "bb", "ccc"), "f:1", (4.0, 4.0, 1.0))
    pairs, _ = preference_examples([record], TEMPLATE, 512, end_token=False)
    assert [(said(pair.chosen), said(pair.rejected)) for pair in pairs] == [("a", "ccc"), ("bb", "ccc")]
    assert [pair.weight for pair in pairs] == [0.5, 0.5]


def test_rows_that_a_loss_cannot_use_are_rejected():
    pair, tie = Preference(HI, ("a", "b"), "f:1"), Preference(HI, ("a", "b"), "f:2", (3.0, 3.0))
    alone, graded = Preference(HI, ("a",), "f:3", (3.0,)), Preference(HI, ("a", "b"), "f:4", (3.0, 1.0))
    for wanted, left, reasons in (
        ({}, [pair, graded], {2: "no response is ranked above another", 3: "no response is ranked above another"}),
        ({"graded": True}, [graded], {1: "the responses have no scores", 2: "no response", 3: "no response"}),
        ({"graded": True, "paired": False}, [tie, alone, graded], {1: "the responses have no scores"}),
        ({"paired": False}, [pair, tie, alone, graded], {}),
    ):
        rows, rejections = ranked_examples([pair, tie, alone, graded], TEMPLATE, 512, end_token=True, **wanted)
        assert [row.responses[0].source for row in rows] == [record.source for record in left]
        assert [row.grades for row in rows] == [record.grades for record in left]
        assert {r.line: r.reason[: len(reasons[r.line])] for r in rejections} == reasons


def test_pairs_that_the_cut_empties_or_makes_equal_are_rejected():
    record = Preference(HI, ("same start, one end", "same start, other end"), "f:1")
    empty, equal = (preference_examples([record], TEMPLATE, PROMPT_LENGTH + extra, end_token=True) for extra in (0, 4))
    assert "no response token" in empty[1][0].reason
    assert "the same" in equal[1][0].reason
    assert not empty[0]
    assert not equal[0]
    pairs, _ = preference_examples([record], TEMPLATE, 100, end_token=True)
    assert len(pairs) == 1


def test_a_long_prompt_is_rejected_not_cut():
    records = [Prompt(HI, "f:1"), Prompt((Message("user", "x" * 300),), "f:2")]
    tasks, rejections = task_examples(records, TEMPLATE, PROMPT_LENGTH)
    assert [task.input_ids for task in tasks] == [TEMPLATE.encode_prompt(HI)]
    assert [r.line for r in rejections] == [2]


def test_what_the_template_refuses_is_a_rejection():
    text = TOKENIZER.chat_template.replace("message['content'] +", "(message['content'] | replace('secret', '*')) +")
    template = ChatTemplate(tiny_tokenizer(text))
    secret, ho = (Message("user", "secret"),), Message("assistant", "ho")
    assert "chat template" in conversation_examples([Conversation((*secret, ho), "f:7")], template, 99)[1][0].reason
    assert preference_examples([Preference(secret, ("a", "b"), "f:7")], template, 99, end_token=True)[1][0].line == 7
    for cut_long in (False, True):
        assert task_examples([Prompt(secret, "f:7")], template, 99, cut_long=cut_long)[1][0].path == "f"
