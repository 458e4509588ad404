import json
from pathlib import Path

import pytest

from fairlead.data.load import (
    kind_of,
    read_conversations,
    read_documents,
    read_judgements,
    read_preferences,
    read_prompts,
    read_records,
)
from fairlead.data.rows import to_row
from fairlead.errors import UserError
from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Rejection

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def system(text: str) -> Message:
    return Message("system", text)


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


CONVERSATIONS = {
    "alpaca": [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, (user("Add.\n1 2"), assistant("3"))),
        (
            {"instruction": "c", "input": "", "output": "d", "system": "s", "history": [["a", "b"]]},
            (system("s"), user("a"), assistant("b"), user("c"), assistant("d")),
        ),
        ({"instruction": "q", "output": "a", "system": "", "history": None}, (user("q"), assistant("a"))),
    ],
    "ultrachat": [
        ({"id": "1", "data": ["q", "a", "r", "b"]}, (user("q"), assistant("a"), user("r"), assistant("b"))),
        ({"data": ["q", "a"]}, (user("q"), assistant("a"))),
    ],
    "prompt-completion": [
        ({"prompt": "q\n", "completion": " a<|endoftext|>"}, (user("q\n"), assistant("a"))),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": " a"}]},
            (user("q"), assistant(" a")),
        ),
    ],
    "dolly": [
        ({"instruction": "Say.", "context": "c", "response": "a", "category": "x"}, (user("Say.\nc"), assistant("a"))),
        ({"instruction": "Say.", "context": "", "response": "a"}, (user("Say."), assistant("a"))),
    ],
    "self-instruct": [
        (
            {"id": "t0", "instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}]},
            (user("Add.\n1 2"), assistant("3")),
        ),
    ],
    "belle-dialogue": [
        (
            {"instruction": "Human:你好\nAssistant:好！\nHuman: 谁？\nAssistant:", "input": "", "output": "我"},
            (user("你好"), assistant("好！"), user("谁？"), assistant("我")),
        ),
    ],
    "firefly": [
        (
            {"conversation": [{"human": "q", "assistant": "a"}, {"human": "r", "assistant": "b"}], "category": "x"},
            (user("q"), assistant("a"), user("r"), assistant("b")),
        ),
    ],
    "firefly-target": [({"kind": "NLI", "input": "q", "target": "a"}, (user("q"), assistant("a")))],
    "moss": [
        (
            {
                "meta_instruction": "You are MOSS.\n",
                "chat": {
                    "turn_10": {"Human": "<|Human|>: y<eoh>\n", "MOSS": "<|MOSS|>: z<eom>\n"},
                    "turn_2": {
                        "Human": "<|Human|>: q<eoh>\n",
                        "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
                        "Commands": "<|Commands|>: None<eoc>\n",
                        "Tool Responses": "<|Results|>: None<eor>\n",
                        "MOSS": "<|MOSS|>: a <eom> b<eom>\n",
                    },
                },
            },
            (system("You are MOSS."), user("q"), assistant("a <eom> b"), user("y"), assistant("z")),
        ),
    ],
    "moss-text": [
        (
            {
                "prefix": "MOSS is kind.\n",
                "plain_text": "[Human]: q?<eoh> [MOSS]: a!<eoa> [Human]: r<eoh> [MOSS]: b<eom>",
            },
            (system("MOSS is kind."), user("q?"), assistant("a!"), user("r"), assistant("b")),
        ),
    ],
    "question-answer": [({"question": "q", "answer": "so\n#### 2"}, (user("q"), assistant("so\n#### 2")))],
    "sharegpt": [
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            (user("q"), assistant("a")),
        ),
        (
            {
                "system": "s",
                "conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}],
            },
            (system("s"), user("q"), assistant("a")),
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a"},
                ]
            },
            (system("s"), user("q"), assistant("a")),
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "bing", "value": "a"}], "tools": "[]"},
            (user("q"), assistant("a")),
        ),
        (
            {"conversation": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            (user("q"), assistant("a")),
        ),
    ],
    "messages": [
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "q"}, {"type": "text", "value": "r"}]},
                    {"role": "assistant", "content": "a", "loss_weight": 1.0},
                    {"role": "user", "content": "b", "loss_weight": 0.0},
                    {"role": "assistant", "content": "c"},
                ]
            },
            (user("qr"), assistant("a"), user("b"), assistant("c")),
        ),
    ],
}

H = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Who?\n\nAssistant:"
HH_PROMPT = (user("Hi"), assistant("Hello"), user("Who?"))
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]

PREFERENCES = {
    "hh-rlhf": [({"chosen": H + " Me.", "rejected": H + " Go away.\n"}, HH_PROMPT, ("Me.", "Go away."))],
    "rm-static": [
        ({"prompt": H, "response": " Me.", "chosen": " Me.", "rejected": " Go."}, HH_PROMPT, ("Me.", "Go.")),
    ],
    "prompt-pair": [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, (user("q"),), ("a", "b")),
        (
            {"prompt": TURNS[:1], "chosen": [TURNS[1]], "rejected": [{"role": "assistant", "content": "b"}]},
            (user("q"),),
            ("a", "b"),
        ),
        ({"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"}, (system("s"), user("q")), ("a", "b")),
    ],
    "messages-pair": [
        (
            {"prompt": "q", "chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "b"}]},
            (user("q"),),
            ("a", "b"),
        ),
        (
            {"chosen_messages": TURNS, "rejected_messages": [TURNS[0], {"role": "assistant", "content": "b"}]},
            (user("q"),),
            ("a", "b"),
        ),
    ],
    "sharegpt-pair": [
        (
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            },
            (user("q"),),
            ("a", "b"),
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}], "chosen": "a", "rejected": "b"},
            (user("q"),),
            ("a", "b"),
        ),
    ],
    "alpaca-ranked": [
        (
            {"instruction": "q", "input": "", "output": ["a", "b", "c"], "history": [["x", "y"]]},
            (user("x"), assistant("y"), user("q")),
            ("a", "b", "c"),
        )
    ],
    "ranked": [({"prompt": "q", "ranked": ["a", "b", "c"]}, (user("q"),), ("a", "b", "c"))],
    "openassistant": [
        (
            {
                "message_tree_id": "x",
                "prompt": {
                    "text": "q",
                    "role": "prompter",
                    "replies": [
                        {"text": "b", "role": "assistant", "rank": 1, "replies": []},
                        {"text": "a", "role": "assistant", "rank": 0},
                        {
                            "text": "c",
                            "role": "assistant",
                            "rank": 2,
                            "replies": [
                                {
                                    "text": "r",
                                    "role": "prompter",
                                    "replies": [{"text": "only one", "role": "assistant", "rank": 0}],
                                }
                            ],
                        },
                        {"text": "gone", "role": "assistant", "rank": 3, "deleted": True},
                        {"text": "never ranked", "role": "assistant", "rank": None},
                    ],
                },
            },
            (user("q"),),
            ("a", "b", "c"),
        )
    ],
    "answers-pair": [({"question": "q", "response_j": "a", "response_k": "b"}, (user("q"),), ("a", "b"))],
}

# Layout, row, responses and grades as they are ranked, with prompt q.
GRADED = [
    ("graded", {"prompt": "q", "responses": ["a", "b", "c"], "scores": [1, 2, -3]}, ("b", "a", "c"), (2.0, 1.0, -3.0)),
    ("graded", {"prompt": "q", "responses": ["a", "b"], "scores": [1, 1]}, ("a", "b"), (1.0, 1.0)),
    ("graded", {"prompt": TURNS[:1], "responses": ["a"], "scores": [0]}, ("a",), (0.0,)),
    ("ultrafeedback", {"instruction": "q", "completions": [
        {"response": "a", "overall_score": 10.0, "fine-grained_score": 1.25},
        {"response": "b", "overall_score": 7, "fine-grained_score": 4.5}]}, ("b", "a"), (4.5, 1.25)),
    ("ultrafeedback", {"instruction": "q", "completions": [
        {"response": "a", "overall_score": 6.0}, {"response": "b", "overall_score": 7, "fine-grained_score": 1}]},
     ("b", "a"), (7.0, 6.0)),
    ("nectar", {"prompt": "q", "answers": [{"answer": "b", "rank": 2.0, "model": "m"}, {"answer": "a", "rank": 1}]},
     ("a", "b"), (-1.0, -2.0)),
    ("graded-response", {"prompt": "q", "response": "a", "score": "3.5"}, ("a",), (3.5,)),
    ("graded-response", {"prompt": "q", "response": "a", "helpfulness": 4, "correctness": 1}, ("a",), (4.0,)),
    ("prompt-pair", {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 8.5, "score_rejected": 8.5},
     ("a", "b"), (8.5, 8.5)),
    ("messages-pair", {"chosen": TURNS, "rejected": [*TURNS[:1], {"role": "assistant", "content": "b"}],
     "score_chosen": 8, "score_rejected": 6}, ("a", "b"), (8.0, 6.0)),
    ("sharegpt-pair", {"conversations": TURNS[:1], "chosen": "a", "rejected": "b", "score_chosen": 1,
     "score_rejected": 0}, ("a", "b"), (1.0, 0.0)),
]  # fmt: skip

PROMPTS = [
    ({"act": "x", "prompt": "q"}, (user("q"),)),
    ({"instruction": "q", "input": "r"}, (user("q\nr"),)),
    ({"prompt": H}, HH_PROMPT),
    ({"prompt": TURNS[:1]}, (user("q"),)),
]


@pytest.mark.parametrize(
    ("layout", "row", "expected"), [(k, *case) for k, cases in CONVERSATIONS.items() for case in cases]
)
def test_conversations(tmp_path, layout, row, expected):
    path = write(tmp_path / "rows.jsonl", row)
    loaded = read_conversations([path])
    assert loaded.records == (Conversation(expected, f"{path}:1"),)
    assert loaded.layouts == {str(path): layout}
    assert loaded.num_rows == 1
    assert read_prompts([path]).records == (Prompt(expected[:-1], f"{path}:1", expected[-1].content),)
    with pytest.raises(UserError, match="holds conversations") as caught:
        read_preferences([path])
    assert caught.value.exit_code == 2
    assert "fairlead sft" in caught.value.fix


@pytest.mark.parametrize(
    ("layout", "row", "prompt", "responses"), [(k, *case) for k, cases in PREFERENCES.items() for case in cases]
)
def test_preferences(tmp_path, layout, row, prompt, responses):
    path = write(tmp_path / "rows.jsonl", row)
    loaded = read_preferences([path])
    assert loaded.records == (Preference(prompt, responses, f"{path}:1"),)
    assert loaded.layouts == {str(path): layout}
    assert read_prompts([path]).records == (Prompt(prompt, f"{path}:1"),)
    assert kind_of(path) == kind_of(path.parent) == "preferences"
    with pytest.raises(UserError, match="holds preferences") as caught:
        read_conversations([path])
    assert "fairlead reward" in caught.value.fix


@pytest.mark.parametrize(("layout", "row", "responses", "grades"), GRADED)
def test_grades_rank_the_responses(tmp_path, layout, row, responses, grades):
    path = write(tmp_path / "rows.jsonl", row)
    loaded = read_preferences([path])
    assert loaded.layouts == {str(path): layout}
    assert loaded.records == (Preference((user("q"),), responses, f"{path}:1", grades),)
    assert read_prompts([path]).records == (Prompt((user("q"),), f"{path}:1"),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"responses": ["a", "b"], "scores": [1]}, "there are 2 responses and 1 scores"),
        ({"responses": [], "scores": []}, "there are 0 responses and 0 scores"),
        ({"responses": ["a", "b"], "scores": [1, True]}, "a number in `scores` should be a number and is True"),
        ({"responses": ["a", "b"], "scores": [1, None]}, "a number in `scores` should be a number and is None"),
        ({"responses": ["a", " a"], "scores": [1, 2]}, "chosen and rejected are the same"),
        ({"response": "a", "score": "good"}, "`score` should be a number and is 'good'"),
        ({"response": "a", "score": "nan"}, "`score` should be a number and is 'nan'"),
        ({"chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 2}, "the rejected response has"),
    ],
)  # fmt: skip
def test_grades_that_cannot_be_used(tmp_path, row, reason):
    loaded = read_preferences([write(tmp_path / "rows.jsonl", {"prompt": "q", **row})], max_reject_rate=1)
    assert [rejection.reason[: len(reason)] for rejection in loaded.rejections] == [reason]


@pytest.mark.parametrize(("row", "expected"), PROMPTS)
def test_prompts(tmp_path, row, expected):
    path = write(tmp_path / "rows.jsonl", row)
    assert read_prompts([path]).records == (Prompt(expected, f"{path}:1"),)
    with pytest.raises(UserError, match="holds prompts"):
        read_conversations([path])


def test_messages_that_end_with_the_user_are_prompts(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"messages": TURNS[:1]})
    assert read_prompts([path]).records[0].messages == (user("q"),)
    assert "no answer to learn" in read_conversations([path], max_reject_rate=1).rejections[0].reason


def test_labelled_answers_are_not_taken_for_good_ones(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"messages": TURNS, "label": False})
    with pytest.raises(UserError, match="labelled answers"):
        read_conversations([path])
    assert read_prompts([path]).records[0].messages == (user("q"),)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": TURNS, "label": False}, (("a",), (False,))),
        ({"conversations": TURNS, "kto_tag": True}, (("a",), (True,))),
        ({"prompt": "q", "completion": "a", "label": True}, (("a",), (True,))),
        ({"prompt": "q", "chosen": "b", "rejected": "a"}, (("b", "a"), (True, False))),
        ({"instruction": "q", "output": ["c", "b", "a"]}, (("c", "a"), (True, False))),
    ],
)
def test_judgements(tmp_path, row, expected):
    path = write(tmp_path / "rows.jsonl", row)
    (record,) = read_judgements([path]).records
    assert (record.prompt, record.source) == ((user("q"),), f"{path}:1")
    assert (record.responses, record.desirable) == expected


def test_judgements_that_cannot_be_used(tmp_path):
    rows = [
        {"messages": TURNS, "label": True},
        {"messages": TURNS, "label": None},
        {"messages": TURNS[:1], "label": True},
    ]
    path = write(tmp_path / "rows.jsonl", *rows)
    reasons = [rejection.reason for rejection in read_judgements([path], max_reject_rate=1).rejections]
    assert "the label is missing" in reasons[0]
    assert "no answer to learn" in reasons[1]
    with pytest.raises(UserError, match="holds conversations"):
        read_judgements([write(tmp_path / "plain.jsonl", {"messages": TURNS})])


def turns(*roles_and_texts):
    return {"messages": [{"role": role, "content": text} for role, text in roles_and_texts]}


GOOD = turns(("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (turns(("user", "q"), ("assistant", " \n")), "assistant turn is empty"),
        (turns(("user", ""), ("assistant", "a")), "user turn is empty"),
        (turns(("user", "q"), ("gpt2", "a")), "unknown role 'gpt2'"),
        (turns(("user", "q"), (["x"], "a")), "unknown role"),
        (turns(("user", "q"), ("user", "r"), ("assistant", "a")), "out of order: turn 2 is user, expected assistant"),
        (turns(("assistant", "a"), ("user", "q"), ("assistant", "a")), "out of order: turn 1"),
        (turns(("user", "q"), ("system", "s"), ("assistant", "a")), "out of order"),
        (turns(("user", "q"), ("assistant", "a"), ("user", "r")), "no answer to learn"),
        (turns(("system", "s")), "no user turn"),
        (turns(("user", "q\0"), ("assistant", "a")), "NUL"),
        (turns(("user", "q"), ("assistant", 7)), "should be text and is a int"),
        ({"messages": "hello"}, "`messages` should be a list and is a str"),
        ({"messages": ["hello"]}, "a turn should be an object"),
        ({"messages": []}, "no user turn"),
        ({"messages": None, "x": 1}, "is missing"),
        ({"instruction": "q", "output": "a"}, "looks like alpaca, the file is messages"),
        ({"messages": [*TURNS[:1], {"role": "assistant", "content": "a", "weight": 0}]}, "weight other than 1"),
        ({"messages": [*TURNS[:1], {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "tool calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, TURNS[1]]}, "only text parts"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_call", "value": "{}"}]}, TURNS[1]]}, "tool calls"),
        (turns(("user", "q"), ("function_call", "{}")), "tool calls are not supported"),
        (turns(("user", "q"), ("tool", "{}")), "tool calls are not supported"),
        ({"messages": TURNS, "tools": '[{"name": "f"}]'}, "tool calls are not supported"),
        ('{"messages": [', "not JSON"),
    ],
)
def test_unusable_conversations_are_rejected_with_line_and_reason(tmp_path, row, reason):
    path = write(tmp_path / "rows.jsonl", GOOD, GOOD, row, GOOD)
    loaded = read_conversations([path], rejects=tmp_path / "out" / "rejects.jsonl", max_reject_rate=0.25)
    assert len(loaded.records) == 3
    assert loaded.num_rows == 4
    (rejection,) = loaded.rejections
    assert (rejection.path, rejection.line) == (str(path), 3)
    assert reason in rejection.reason
    written = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert written == [{"path": str(path), "line": 3, "reason": rejection.reason}]


HH, RANKED = PREFERENCES["hh-rlhf"][0][0], PREFERENCES["alpaca-ranked"][0][0]
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("good", "row", "reason"),
    [
        (PAIR, {**PAIR, "rejected": "a "}, "the same"),
        (PAIR, {**PAIR, "rejected": ""}, "a response is empty"),
        (PAIR, {**PAIR, "chosen": 3}, "should be an object"),
        (PAIR, {"prompt": "q", "chosen": "a"}, "`rejected` is missing"),
        (PAIR, {**PAIR, "chosen": {"role": "user", "content": "x"}}, "should be an answer and is a user turn"),
        (RANKED, {"instruction": "q", "output": ["a"]}, "at least two responses"),
        (RANKED, {"instruction": "q", "output": ["a", "b", "a"]}, "the same"),
        (
            HH,
            {"chosen": H + " a", "rejected": H.replace("Hi", "Ho") + " b"},
            "different prompts",
        ),
        (HH, {"chosen": "Hi", "rejected": H + " b"}, "does not begin with"),
        (HH, {"chosen": H, "rejected": H + " b"}, "chosen does not end with an answer"),
        (
            HH,
            {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a"},
            "chosen does not end with an answer",
        ),
    ],
)
def test_unusable_preferences_are_rejected(tmp_path, good, row, reason):
    path = write(tmp_path / "rows.jsonl", good, row, good)
    loaded = read_preferences([path], max_reject_rate=0.5)
    assert len(loaded.records) == 2
    assert reason in loaded.rejections[0].reason
    assert loaded.rejections[0].line == 2


def test_too_many_rejections_stop_the_run_after_writing_them(tmp_path):
    path = write(tmp_path / "rows.jsonl", *[GOOD] * 97, "{", "{", turns(("user", "q")))
    assert read_conversations([path], max_reject_rate=0.03).num_rows == 100
    with pytest.raises(UserError, match="3 of 100 rows cannot be used") as caught:
        read_conversations([path], rejects=tmp_path / "rejects.jsonl", max_reject_rate=0.029)
    error = caught.value
    assert error.exit_code == 65
    assert error.where == f"{path}:98"
    assert "2 × not JSON" in error.got
    assert "rejects.jsonl" in error.fix
    assert len((tmp_path / "rejects.jsonl").read_text().splitlines()) == 3


def test_the_layout_of_most_rows_is_the_file_s(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"instruction": "q"}, *[{"instruction": "q", "output": "a"}] * 3)
    loaded = read_conversations([path], max_reject_rate=0.5)
    assert loaded.layouts == {str(path): "alpaca"}
    assert "`output` is missing" in loaded.rejections[0].reason


def test_a_broken_line_parts_no_tree(tmp_path):
    def said(name, parent, role, **more):
        tree = {"message_id": name, "parent_id": parent, "message_tree_id": name[0], "role": role, "text": name}
        return json.dumps(tree | more) + "\n"

    replies = [said(f"a{rank}", "a", "assistant", rank=rank) for rank in (0, 1)]
    lines = ["{\n", said("a", None, "prompter"), "{\n", replies[0], replies[1], "{\n", said("b", None, "prompter")]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    loaded = read_preferences([tmp_path / "rows.jsonl"], max_reject_rate=1)
    assert [one.responses for one in loaded.records] == [("a0", "a1")]
    assert [one.line for one in loaded.rejections] == [1, 3, 6]


def test_an_unknown_layout_names_the_keys_and_the_known_ones(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"frage": "q", "antwort": "a"})
    with pytest.raises(UserError, match="layout of the rows is not known") as caught:
        read_conversations([path])
    assert "'frage', 'antwort'" in caught.value.got
    assert "alpaca (instruction, input, output)" in caught.value.want
    assert "or say columns=OURS=YOURS" in caught.value.fix
    assert caught.value.exit_code == 65


def test_files_without_rows(tmp_path):
    (tmp_path / "none.json").write_text("[]")
    (tmp_path / "none.csv").write_text("instruction,output\n")
    for name in ("none.json", "none.csv"):
        with pytest.raises(UserError, match="holds no rows") as caught:
            read_conversations([tmp_path / name])
        assert caught.value.exit_code == 66
    path = write(tmp_path / "broken.jsonl", "{", "{")
    with pytest.raises(UserError, match="2 of 2 rows"):
        read_conversations([path])
    with pytest.raises(UserError, match="no row can be read"):
        kind_of(path)


def test_a_question_with_choices_is_no_conversation(tmp_path):
    """What stands beside question and answer would be lost without a word."""
    rows = write(tmp_path / "exam.jsonl", {"question": "q", "A": "1", "B": "2", "answer": "A"})
    with pytest.raises(UserError, match="layout of the rows is not known"):
        read_conversations([rows])


@pytest.mark.parametrize(
    ("good", "row", "reason"),
    [
        ({"instruction": "q", "instances": [{"input": "", "output": "a"}]}, {"instruction": "q", "instances": []},
         "the task has no instance"),
        ({"instruction": "q", "instances": [{"output": "a"}]}, {"instruction": "q", "instances": ["a"]},
         "an instance should be an object"),
        ({"conversation": [{"human": "q", "assistant": "a"}]}, {"conversation": ["q"]}, "a round should be an object"),
        ({"chat": {"turn_1": {"Human": "q", "MOSS": "a"}}}, {"chat": []}, "`chat` should be an object"),
        ({"chat": {"turn_1": {"Human": "q", "MOSS": "a"}}}, {"chat": {"last": {}}}, "a round of `chat` is called"),
        ({"chat": {"turn_1": {"Human": "q", "MOSS": "a"}}}, {"chat": {"turn_1": "q"}}, "a round should be an object"),
        ({"chat": {"turn_1": {"Human": "q", "MOSS": "a"}}},
         {"chat": {"turn_1": {"Human": "q", "Commands": "<|Commands|>: Search(x)<eoc>", "MOSS": "a"}}}, "tool calls"),
        ({"plain_text": "[Human]: q<eoh> [MOSS]: a<eoa>"}, {"plain_text": "q"}, "does not begin with"),
    ],
)  # fmt: skip
def test_what_newer_layouts_reject(tmp_path, good, row, reason):
    loaded = read_conversations([write(tmp_path / "rows.jsonl", good, row)], max_reject_rate=0.5)
    assert len(loaded.records) == 1
    assert reason in loaded.rejections[0].reason


def test_a_row_may_hold_several_records(tmp_path):
    task = {"instruction": "Add.", "instances": [{"input": "1", "output": "1"}, {"output": ""}, {"output": "0"}]}
    loaded = read_conversations([write(tmp_path / "rows.jsonl", task)], max_reject_rate=0.5)
    assert [record.messages[0].content for record in loaded.records] == ["Add.\n1", "Add."]
    assert [(one.line, one.reason) for one in loaded.rejections] == [(1, "an assistant turn is empty")]
    assert loaded.num_rows == 3


def reply(text, role, *replies, rank=None):
    return {"text": text, "role": role, "rank": rank, "replies": list(replies)}


def test_every_turn_of_a_tree_with_ranked_replies(tmp_path):
    second = reply("r", "prompter", reply("x", "assistant", rank=1), reply("y", "assistant", rank=0))
    tree = reply("q", "prompter", reply("a", "assistant", second, rank=0), reply("b", "assistant", rank=1))
    lonely = reply("q", "prompter", reply("a", "assistant", rank=0))
    path = write(tmp_path / "trees.jsonl", {"prompt": tree}, {"prompt": lonely}, {"prompt": {"replies": 3}})
    loaded = read_preferences([path], max_reject_rate=0.5)
    assert loaded.records == (
        Preference((user("q"),), ("a", "b"), f"{path}:1"),
        Preference((user("q"), assistant("a"), user("r")), ("y", "x"), f"{path}:1"),
    )
    assert loaded.left_out == {"a tree without two ranked replies to one prompt": 1}
    assert "unknown role None" in loaded.rejections[0].reason
    with pytest.raises(UserError, match="no row gives any preferences") as caught:
        read_preferences([write(tmp_path / "lonely.jsonl", {"prompt": lonely})])
    assert caught.value.exit_code == 65


def flat(name, parent, role, text, rank=None, tree="t"):
    return {
        "message_id": name, "parent_id": parent, "message_tree_id": tree, "role": role, "text": text, "rank": rank,
        "deleted": False,
    }  # fmt: skip


def test_trees_of_flat_rows(tmp_path):
    path = write(
        tmp_path / "rows.jsonl",
        flat("1", None, "prompter", "q"),
        flat("2", "1", "assistant", "a", 1.0),
        flat("3", "2", "prompter", "r"),
        flat("4", "1", "assistant", "b", 0.0),
        flat("5", "3", "assistant", "x", 0),
        flat("6", "3", "assistant", "y", 1),
        flat("1", None, "prompter", "other", tree="u"),
        flat("9", "4", "assistant", "whose parent is in another tree", tree="u"),
        flat("2", "1", "assistant", "alone", 0, tree="u"),
    )
    loaded = read_preferences([path], max_reject_rate=0.5)
    assert loaded.layouts == {str(path): "openassistant-rows"}
    assert loaded.records == (
        Preference((user("q"),), ("b", "a"), f"{path}:1"),
        Preference((user("q"), assistant("a"), user("r")), ("x", "y"), f"{path}:1"),
    )
    assert [(one.line, "not among the rows" in one.reason) for one in loaded.rejections] == [(8, True)]
    assert loaded.left_out == {"a tree without two ranked replies to one prompt": 1}


@pytest.mark.parametrize(
    ("key", "first", "second", "reason"),
    [
        ("completions", {"response": "a", "overall_score": 1}, {"response": "b"}, "`overall_score` is missing"),
        ("completions", {"response": "a", "overall_score": 1}, 3, "a completion should be an object"),
        ("answers", {"answer": "a", "rank": 1}, {"answer": "b", "rank": "x"}, "`rank` should be a number"),
        ("answers", {"answer": "a", "rank": 1}, "b", "an answer should be an object"),
    ],
)
def test_ranks_and_completions_that_cannot_be_used(tmp_path, key, first, second, reason):
    row = {"instruction" if key == "completions" else "prompt": "q", key: [first, second]}
    (rejection,) = read_preferences([write(tmp_path / "rows.jsonl", row)], max_reject_rate=1).rejections
    assert reason in rejection.reason


CHAPTER = {"title": "静夜思", "author": "李白", "paragraphs": ["床前明月光，", "疑是地上霜。"]}
CHAPTER_TEXT = "静夜思\n李白\n床前明月光，\n疑是地上霜。"


@pytest.mark.parametrize(
    ("layout", "row", "texts"),
    [
        ("text", {"text": "a\n b ", "meta": {"language": "en"}, "id": 3}, ["a\n b "]),
        ("text", {"url": "http://a", "date": "", "text": "a"}, ["a"]),
        ("chapters", CHAPTER, [CHAPTER_TEXT]),
        ("chapters", {"rhythmic": "导引", "paragraphs": ["a"]}, ["导引\na"]),
        ("chapters", {"title": "B", "abstract": ["x"], "content": [{"title": "V", "content": [CHAPTER, CHAPTER]}]},
         ["B\nx", CHAPTER_TEXT, CHAPTER_TEXT]),
    ],
)  # fmt: skip
def test_documents(tmp_path, layout, row, texts):
    path = write(tmp_path / "rows.jsonl", row)
    loaded = read_documents([path])
    assert loaded.layouts == {str(path): layout}
    assert loaded.records == tuple(Document(text, f"{path}:1") for text in texts)
    assert kind_of(path) == "documents"
    with pytest.raises(UserError, match="holds documents") as caught:
        read_prompts([path])
    assert "pre-train" in caught.value.fix


def test_documents_that_cannot_be_used(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"text": "a"}, {"text": " "}, {"text": "a\0"}, {"text": 7}, {"body": "a"})
    loaded = read_documents([path], max_reject_rate=1.0)
    assert [one.reason for one in loaded.rejections] == [
        "a document is empty", "a document holds a NUL character", "`text` should be text and is a int",
        "the field `text` is missing",
    ]  # fmt: skip


def test_text_files_of_a_folder_are_documents_only(tmp_path):
    (tmp_path / "book.txt").write_text("Once upon a time.\n")
    rows = write(tmp_path / "rows.jsonl", {"text": "a"})
    assert [record.text for record in read_documents([tmp_path]).records] == ["Once upon a time.", "a"]
    rows.unlink()
    with pytest.raises(UserError, match="no data files"):
        read_conversations([tmp_path])


# --- the stream


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (GOOD, Conversation((user("q"), assistant("a")))),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, Preference((user("q"),), ("a", "b"))),
        ({"messages": TURNS, "label": True}, Judgement((user("q"),), ("a",), (True,))),
        ({"prompt": "q", "answer": "a"}, Prompt((user("q"),), answer="a")),
        ({"text": "a"}, Document("a")),
    ],
)
def test_records_of_any_kind_and_rejections_in_their_place(tmp_path, row, record):
    path = write(tmp_path / "rows.jsonl", row, "{", row)
    stream = read_records(path)
    first, bad, last = list(stream)
    assert {**to_row(first), "source": ""} == to_row(record)
    assert (first.source, last.source) == (f"{path}:1", f"{path}:3")
    assert (bad.path, bad.line) == (str(path), 2)
    assert (stream.kind, stream.notes) == (kind_of(path), ())
    assert len(stream.digest()) == 64


def test_a_stream_without_a_row(tmp_path):
    path = write(tmp_path / "rows.jsonl", *["{"] * 1000, GOOD)
    stream = read_records(path)
    assert stream.kind is None
    outcomes = list(stream)
    assert len(outcomes) == 1001
    assert all(isinstance(outcome, Rejection) for outcome in outcomes)
    assert outcomes[-1].reason == "the first 1000 rows cannot be read, so the layout is not known"


def test_the_first_thousand_rows_decide(tmp_path):
    other = {"instruction": "q", "output": "a"}
    stream = read_records(write(tmp_path / "rows.jsonl", *[GOOD] * 501, *[other] * 1600))
    assert stream.layout.name == "messages"
    outcomes = list(stream)
    assert sum(isinstance(outcome, Rejection) for outcome in outcomes) == 1600
    assert "this row looks like alpaca, the file is messages" in outcomes[-1].reason


@pytest.mark.parametrize(
    "record",
    [
        Conversation((system("s"), user("q"), assistant("a"), user("r"), assistant("b")), "x:1"),
        Prompt((user("q"),), "x:1"),
        Prompt((user("q"), assistant("a"), user("r")), "x:1", "b"),
        Preference((user("q"),), ("a", "b", "c"), "x:1"),
        Preference((user("q"),), ("a", "b"), "x:1", (3.0, 1.5)),
        Preference((user("q"),), ("a",), "x:1", (3.0,)),
        Judgement((user("q"),), ("a",), (False,), "x:1"),
        Judgement((user("q"),), ("a", "b"), (True, False), "x:1"),
        Document("a\nb", "x:1"),
    ],
)
def test_rows_that_fairlead_writes_are_read_back(tmp_path, record):
    path = write(tmp_path / "rows.jsonl", to_row(record))
    (found,) = read_records(path)
    assert {**to_row(found), "source": "x:1"} == to_row(record)


# --- columns and encodings of the user's own


def test_columns_of_the_user_s_own(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"question_text": "q", "reply": "a", "text": "x"}, {"question_text": "r"})
    columns = {"prompt": "question_text", "completion": "reply"}
    loaded = read_conversations([path], columns=columns, max_reject_rate=0.5)
    assert [record.messages for record in loaded.records] == [(user("q"), assistant("a"))]
    assert "the field `completion` is missing" in loaded.rejections[0].reason
    assert [type(one) for one in read_records(path, columns)] == [Conversation, Rejection]
    assert [one.text for one in read_records(path, {"text": "text"}) if isinstance(one, Document)] == ["x"]
    assert len(read_prompts([path], columns={"prompt": "question_text"}).records) == 2
    pairs = write(tmp_path / "pairs.jsonl", {"q": "q", "good": "a", "bad": "b"})
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert read_preferences([pairs], columns=columns).records[0].responses == ("a", "b")
    assert read_judgements([pairs], columns=columns).records[0].responses == ("a", "b")


def test_columns_that_are_not_there(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"question_text": "q", "reply": "a"})
    for read in (
        lambda columns: read_conversations([path], columns=columns),
        lambda columns: read_records(path, columns=columns),
    ):
        with pytest.raises(UserError, match="no row has the column 'antwort'") as caught:
            read({"prompt": "question_text", "completion": "antwort"})
        assert caught.value.got == "the keys 'question_text', 'reply'"
        assert caught.value.exit_code == 65
    with pytest.raises(UserError, match="layout of the rows is not known"):
        read_conversations([path], columns={"promt": "question_text"})


def test_an_encoding_of_the_user_s_own(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps({"prompt": "你好", "completion": "好"}, ensure_ascii=False).encode("gb18030"))
    with pytest.raises(UserError, match="perhaps GB18030"):
        read_conversations([path])
    loaded = read_conversations([path], encoding="gb18030")
    assert loaded.records[0].messages == (user("你好"), assistant("好"))
    assert loaded.notes == {str(path): ("read as GB18030",)}
    assert len(list(read_records(path, encoding="gbk"))) == 1


def test_several_files_and_a_csv(tmp_path):
    a = write(tmp_path / "a.csv", "instruction,input,output", "Add.,1 2,3", "Say.,,=cmd()")
    b = write(tmp_path / "b.jsonl", GOOD)
    loaded = read_conversations([tmp_path])
    assert [r.messages[-1].content for r in loaded.records] == ["3", "=cmd()", "a"]
    assert [r.source for r in loaded.records] == [f"{a}:2", f"{a}:3", f"{b}:1"]
    assert set(loaded.digests) == {str(a), str(b)}
    assert all(len(d) == 64 for d in loaded.digests.values())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "read", "num_records", "num_rejected"),
    [
        ("sft/alpaca_en_demo.json", read_conversations, 799, 0),
        ("sft/alpaca_zh_demo.json", read_conversations, 800, 0),
        ("sft/oaast_sft_zh.json", read_conversations, 766, 0),
        ("sft/fastchat_dummy_conversation.json", read_conversations, 500, 0),
        ("sft/medical_sharegpt_zh_1k.jsonl", read_conversations, 1000, 0),
        ("sft/sharegpt_zh_1k.jsonl", read_conversations, 793, 7),
        ("sft/colossalchat_lora_sft_data.jsonl", read_conversations, 10, 0),
        ("sft/v1_sft_demo.jsonl", read_conversations, 500, 0),
        ("eval/gsm8k/test.jsonl", read_prompts, 1319, 0),
        ("sft/prompt_completion/glue_qqp_duplicate.jsonl", read_conversations, 200, 0),
        ("preference/dpo_en_demo.json", read_preferences, 240, 0),
        ("preference/dpo_zh_500.jsonl", read_preferences, 400, 0),
        ("preference/hh_rlhf_harmless_base_test.jsonl.gz", read_preferences, 1851, 11),
        ("preference/oaast_rm_zh.json", read_preferences, 709, 6),
        ("preference/v1_dpo_demo.jsonl", read_preferences, 10, 0),
        ("preference/stackexchange/stack_exchange_paired_tiny.json", read_preferences, 25, 0),
        ("prompts/awesome_chatgpt_prompts_2col.csv", read_prompts, 152, 0),
        ("prompts/awesome_chatgpt_prompts_5col.csv", read_prompts, 847, 0),
        ("prompts/instructionwild_v2_user_2.jsonl", read_prompts, 246, 2),
    ],
)
def test_real_files(name, read, num_records, num_rejected):
    loaded = read([SHARED / name])
    assert (len(loaded.records), len(loaded.rejections)) == (num_records, num_rejected)


@pytest.mark.parametrize(("good", "bad"), [(True, False), (1, 0), ("true", "False"), ("1", "0")])
def test_a_label_may_be_a_number_or_a_word(tmp_path, good, bad):
    """As CSV has it; and no other command takes the bad answer for a good one."""
    rows = [{"prompt": f"q{i}", "completion": "a", "label": label} for i, label in enumerate((good, bad))]
    path = write(tmp_path / "rows.jsonl", *rows)
    assert [record.desirable for record in read_judgements([path]).records] == [(True,), (False,)]
    with pytest.raises(UserError, match="labelled answers"):
        read_conversations([path])


def test_equal_scores_give_no_label(tmp_path):
    row = {"prompt": "q", "responses": ["a", "b"], "scores": [3, 3]}
    path = write(tmp_path / "rows.jsonl", row, row | {"scores": [1, 3]})
    loaded = read_judgements([path], max_reject_rate=1.0)
    assert [record.responses for record in loaded.records] == [("b", "a")]
    assert "no response is scored above another" in loaded.rejections[0].reason


def test_no_file_holds_no_rows():
    assert read_conversations([]).records == ()
