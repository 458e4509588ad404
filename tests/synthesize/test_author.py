"""Asking for new texts: in order, journalled, never twice; what an endpoint is told."""

import json

import pytest

from fairlead.artifacts.journal import Journal, read
from fairlead.config.common import SamplingConfig
from fairlead.config.grow import AuthorConfig
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Message, Prompt
from fairlead.synthesize.author import CUT, SEEDS_APART, Author, EndpointAsker, Grown, Request, answered
from fairlead.synthesize.endpoint import Answer
from fake_author import fake_author

SAMPLING = SamplingConfig(max_new_tokens=9)


def requests(count):
    return [Request((Message("user", f"say {number}"),), number) for number in range(count)]


def echo(batches, _):
    for batch in batches:
        yield [Answer(request.messages[-1].content.upper()) for request in batch]


@pytest.fixture
def opened(tmp_path):
    """An author with the journal of this test; `asked` collects the batches."""

    def use(ask=echo, *, rows_at_once=3, count=8, sampling=SAMPLING):
        asked = []

        def noted(batches, options):
            asked.extend(batches)
            yield from ask(batches, options)

        path = tmp_path / "answers.jsonl"
        with Journal(path) as journal:
            author = Author(noted, rows_at_once=rows_at_once, known=read(path), journal=journal)
            return author.answers(requests(count), sampling), asked

    return use


def test_answers_are_kept_and_asked_for_once(opened):
    first, asked = opened()
    assert [answer.text for answer in first] == [f"SAY {number}" for number in range(8)]
    assert [len(batch) for batch in asked] == [3, 3, 2]
    again, asked = opened()
    assert (again, asked) == (first, [])
    _, asked = opened(sampling=SamplingConfig(max_new_tokens=10))
    assert len(asked) == 3, "other options are another question"


def test_a_batch_that_was_cut_off_is_asked_for_whole(opened, tmp_path):
    """The journal's last line is torn in the middle; nothing before it is asked for again."""
    first, asked = opened()
    path = tmp_path / "answers.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    again, asked_again = opened()
    assert again == first
    assert asked_again == asked[-1:]
    assert path.read_bytes() == whole


def test_what_came_before_a_failure_is_kept(opened):
    def fails_at_the_third(batches, options):
        for number, answers in enumerate(echo(batches, options)):
            if number == 2:
                raise OSError("gone")
            yield answers

    with pytest.raises(OSError, match="gone"):
        opened(fails_at_the_third)
    _, asked = opened()
    assert [batch[0].seed for batch in asked] == [6]


# --- an endpoint


def ask(url, *, sampling=SAMPLING, api_key="", count=3, **options):
    config = AuthorConfig(url=url, model="wise", **{"num_retries": 0, "num_at_once": 2} | options)
    return [answer for (answer,) in EndpointAsker(config, api_key).ask([[one] for one in requests(count)], sampling)]


def test_what_an_endpoint_is_told():
    with fake_author(lambda body: body["messages"][-1]["content"].upper()) as endpoint:
        assert ask(endpoint.url) == [Answer(f"SAY {number}") for number in range(3)]
        for body in endpoint.bodies:
            (turn,) = body.pop("messages")
            assert body == {
                "model": "wise", "max_tokens": 9, "temperature": 1.0, "top_p": 1.0, "seed": int(turn["content"][4:]),
            }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "sent"),
    [
        ("stop", ("\n\n",), ["\n\n"]), ("top_k", 5, 5), ("min_p", 0.1, 0.1), ("repetition_penalty", 1.1, 1.1),
        ("temperature", 0.5, 0.5), ("top_p", 0.9, 0.9),
    ],
)  # fmt: skip
def test_options_of_sampling_are_sent_where_they_are_set(option, value, sent):
    with fake_author() as endpoint:
        ask(endpoint.url, sampling=SamplingConfig(**{option: value}))
    assert {body[option] if not isinstance(sent, list) else tuple(body[option]) for body in endpoint.bodies} == {
        tuple(sent) if isinstance(sent, list) else sent
    }


def test_an_answer_that_was_cut_off_is_known_to_be():
    with fake_author(lambda body: ("and then", "length" if body["seed"] == 1 else "stop")) as endpoint:
        assert [answer.finished for answer in ask(endpoint.url)] == [True, False, True]


@pytest.mark.parametrize(("reason", "finished"), [("length", False), ("content_filter", True)])
def test_no_words_at_all(reason, finished):
    with fake_author(lambda _: (None, reason)) as endpoint:
        assert ask(endpoint.url, count=1) == [Answer("", finished)]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_an_endpoint_will_not_read_is_refused_alone(status):
    with fake_author(lambda _: "yes", failures=[(status, {}, b"too long")]) as endpoint:
        found = ask(endpoint.url, num_at_once=1)
    assert found == [Answer("", problem=f"refused by the endpoint: status {status}"), Answer("yes"), Answer("yes")]


def test_an_endpoint_that_reads_little_is_no_author():
    with fake_author(failures=[(400, {}, b"no such model")] * 9) as endpoint:
        assert all(answer.problem for answer in ask(endpoint.url, count=3))
        with pytest.raises(UserError, match="refuses the question; got status 400: no such model"):
            ask(endpoint.url, count=4)


def test_progress_is_told(tmp_path):
    told = []
    author = Author(echo, rows_at_once=32, known=(), journal=None, say=told.append)
    author.answers(requests(130), SAMPLING)
    author.answers(requests(150), SAMPLING)
    assert told == ["64 of 130 answers", "128 of 130 answers", "128 of 150 answers were there already"]


def test_failures_name_the_author():
    with fake_author(failures=[(401, {}, b"no key")] * 9) as endpoint, pytest.raises(UserError) as caught:
        ask(endpoint.url, num_at_once=1)
    assert "the author refuses the question" in str(caught.value)
    assert "mend author.url, author.model or the key that author.api_key_variable names" in caught.value.fix
    with pytest.raises(UserError, match="the author cannot be reached") as caught:
        ask(endpoint.url)
    assert caught.value.exit_code == ExitCode.MISSING_INPUT


# --- answers to prompts


def test_prompts_with_their_answers():
    prompts = [Prompt((Message("user", f"ask {number}"),), f"a:{number}") for number in range(4)]
    seen = []

    def some(batches, _):
        made = [Answer(" yes\n"), Answer("no", finished=False), Answer(" "), Answer("", problem="too long")]
        for batch in batches:
            seen.extend(batch)
            yield [made[request.seed - 6 * SEEDS_APART] for request in batch]

    grown = Grown(list(prompts))
    author = Author(some, rows_at_once=4, known=(), journal=None)
    shown = [(Message("user", "q"), Message("assistant", "a"))] * 4
    assert answered(grown, author, SAMPLING, seed=5, shown=shown) == [
        Conversation((*prompts[0].messages, Message("assistant", "yes")), "a:0")
    ]
    assert [request.messages for request in seen] == [(*shown[0], *prompt.messages) for prompt in prompts]
    assert [(one["step"], one["reason"], one["source"], one["text"]) for one in grown.refused] == [
        ("answer", CUT, "a:1", "ask 1"), ("answer", "empty, or no text", "a:2", "ask 2"),
        ("answer", "too long", "a:3", "ask 3"),
    ]  # fmt: skip


def test_the_journal_holds_plain_lines(opened, tmp_path):
    opened(count=1)
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    row = json.loads(line)
    assert row["answers"] == [{"text": "SAY 0", "finished": True, "problem": ""}]
    assert len(row["requests"]) == 64
