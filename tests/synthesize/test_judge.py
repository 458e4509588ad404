"""A judge behind HTTP: verdicts against loops, what is sent, what is asked again, what a user sees when it fails."""

import itertools
import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.artifacts.journal import Journal
from fairlead.config.replies import JudgeConfig
from fairlead.errors import ExitCode, UserError
from fairlead.records import Message
from fairlead.synthesize import endpoint
from fairlead.synthesize import judge as module
from fairlead.synthesize.judge import Judge, dialogue, question_text, share_beaten, verdict_of
from fake_judge import QUESTION, fake_judge, fields, longer
from oracles import selection as oracle

GROUPS = [("What is up?", ["no", "the sky", "nothing much, and you?"]), ("Say [[A]].", ["[[A]]", "yes"])]
VERDICTS = ("first", "second", "tie", "unreadable")


@pytest.fixture
def asked(tmp_path):
    """Judge the groups at an endpoint; options of the judge by name."""

    def ask(url, groups=GROUPS, *, question=QUESTION, api_key="", journal="verdicts.jsonl", **options):
        config = JudgeConfig(url=url, model="wise", **{"num_retries": 0, "num_at_once": 3} | options)
        with Journal(tmp_path / journal) as verdicts:
            return Judge(config, question, api_key, verdicts).scores(groups)

    return ask


# --- verdicts


@given(st.integers(2, 6).flatmap(lambda n: st.lists(
    st.lists(st.sampled_from(VERDICTS), min_size=n, max_size=n), min_size=n, max_size=n
)))  # fmt: skip
def test_the_share_beaten_is_the_loops(verdicts):
    shares = share_beaten(len(verdicts), lambda i, j: verdicts[i][j])
    assert shares == pytest.approx(oracle.share_beaten(verdicts))
    assert sum(shares) == pytest.approx(len(verdicts) / 2), "what one wins another loses"


def test_a_judge_that_prefers_a_place_says_nothing():
    assert share_beaten(4, lambda i, j: "first") == [0.5] * 4
    assert (share_beaten(0, lambda i, j: "first"), share_beaten(1, lambda i, j: "first")) == ([], [0.5])


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("[[A]]", "first"), ("A is fine, [[ b ]]", "second"), ("[[C]]", "tie"), ("[[A]] no: [[B]]", "second"),
        ("A", "unreadable"), ("", "unreadable"), ("[[D]]", "unreadable"),
    ],
)  # fmt: skip
def test_the_last_verdict_counts(answer, verdict):
    assert verdict_of(answer) == verdict


def test_our_own_question_takes_every_field_and_asks_for_a_verdict_that_is_read():
    assert all(f"{{{name}}}" in module.QUESTION for name in module.FIELDS)
    assert {verdict_of(f"[[{letter}]]") for letter in "ABC" if f"[[{letter}]]" in module.QUESTION} == {*VERDICTS[:3]}


def test_a_prompt_of_several_turns_is_told_with_its_roles():
    user = Message("user", "Hi")
    assert dialogue([user]) == "Hi"
    assert dialogue([Message("system", "Be kind."), user]) == "system: Be kind.\n\nuser: Hi"


# --- the endpoint


def test_every_pair_is_asked_once_in_both_orders_and_nothing_but_text_is_sent(asked):
    with fake_judge() as judge:
        scores = asked(f"{judge.url}/", max_answer_tokens=77)
    assert scores == [[0.0, 0.5, 1.0], [1.0, 0.0]]
    wanted = {(prompt, a, b) for prompt, replies in GROUPS for a, b in itertools.permutations(replies, 2)}
    assert sorted(tuple(fields(question)) for question in judge.questions) == sorted(wanted)
    for (path, headers), body in judge.requests:
        assert path == "/v1/chat/completions"
        assert "Authorization" not in headers
        question = body.pop("messages")[0]["content"]
        assert isinstance(question, str)
        assert body == {"model": "wise", "temperature": 0.0, "max_tokens": 77}


def test_text_of_a_reply_is_no_field(asked):
    with fake_judge(lambda _: "[[A]]") as judge:
        asked(judge.url, [("{second}", ["{prompt}", "x"])])
    assert sorted(map(fields, judge.questions)) == [["{second}", "x", "{prompt}"], ["{second}", "{prompt}", "x"]]


def test_the_key_is_sent_and_told_to_nobody(asked, tmp_path):
    with fake_judge() as judge:
        asked(judge.url, api_key="sk-canary")
        assert {headers["Authorization"] for (_, headers), _ in judge.requests} == {"Bearer sk-canary"}
        judge.failures = [(401, {}, b'{"error": "wrong key sk-canary"}')] * 9
        with pytest.raises(UserError, match="refuses the question") as caught:
            asked(judge.url, api_key="sk-canary", journal="other.jsonl")
    assert "wrong key ***" in str(caught.value)
    assert "canary" not in str(caught.value) + (tmp_path / "verdicts.jsonl").read_text()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_judge_is_asked_again_later(asked, monkeypatch, status):
    slept = []
    monkeypatch.setattr(endpoint.time, "sleep", slept.append)
    with fake_judge(failures=[(status, {}, b"busy")] * 3) as judge:
        assert asked(judge.url, num_retries=3, num_at_once=1) == [[0.0, 0.5, 1.0], [1.0, 0.0]]
    assert slept == [1.0, 2.0, 4.0]


def test_a_server_that_says_when_is_heard(asked, monkeypatch):
    slept = []
    monkeypatch.setattr(endpoint.time, "sleep", slept.append)
    with fake_judge(failures=[(429, {"Retry-After": "7"}, b""), (429, {"Retry-After": "9999"}, b"")]) as judge:
        asked(judge.url, num_retries=3, num_at_once=1)
    assert slept == [7.0, endpoint.LONGEST_WAIT_SECONDS]


@pytest.mark.parametrize("limit", [1, 4])
def test_questions_under_way_at_once(asked, limit):
    under_way, most, lock = [], [], threading.Lock()

    def counted(question):
        with lock:
            under_way.append(question)
            most.append(len(under_way))
        time.sleep(0.05)
        with lock:
            under_way.remove(question)
        return longer(question)

    with fake_judge(counted) as judge:
        asked(judge.url, num_at_once=limit)
    assert max(most) == limit


def fails(asked, code, *words, **options):
    with pytest.raises(UserError) as caught:
        asked(**options)
    assert caught.value.exit_code == code
    for word in words:
        assert word in str(caught.value)


def test_nobody_listens(asked):
    with fake_judge() as judge:
        url = judge.url
    fails(asked, ExitCode.MISSING_INPUT, "the judge cannot be reached", url, "refused", "judge.url", url=url)


def test_no_answer_in_time(asked):
    def slow(question):
        time.sleep(1.0)
        return longer(question)

    with fake_judge(slow) as judge:
        fails(asked, ExitCode.MISSING_INPUT, "timed out", "0.1 seconds", url=judge.url, timeout_seconds=0.1)


@pytest.mark.parametrize(
    ("answer", "says"),
    [((404, {}, b"no such model"), "404: no such model"), ((302, {"Location": "http://127.0.0.1:1/"}, b""), "302")],
)
def test_what_no_patience_mends_is_told_at_once(asked, monkeypatch, answer, says):
    monkeypatch.setattr(endpoint.time, "sleep", lambda _: pytest.fail("it waits"))
    with fake_judge(failures=[answer] * 20) as judge:
        fails(asked, ExitCode.USAGE, "refuses the question", says, url=judge.url, num_retries=4)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}']
)
def test_an_answer_of_another_kind(asked, body):
    with fake_judge(failures=[(200, {}, body)] * 20) as judge:
        fails(asked, ExitCode.BAD_DATA, "cannot be read", "choices[0].message.content", url=judge.url)


def test_a_judge_without_verdicts(asked):
    with fake_judge(lambda _: "both are nice") as judge:
        fails(asked, ExitCode.BAD_DATA, "no verdict", "4 of 4", "judge.prompt_file", url=judge.url)


def test_a_few_answers_without_a_verdict_are_ties(asked):
    with fake_judge(lambda question: "hm" if "the sky" in question else longer(question)) as judge:
        groups = [("p", ["a", "the sky"]), ("q", ["a", "bb", "ccc"])]
        assert asked(judge.url, groups) == [[0.5, 0.5], [0.0, 0.5, 1.0]]


def test_no_question_is_asked_twice(asked, tmp_path):
    """The endpoint goes away in the middle; the next run asks what is left."""
    with fake_judge() as judge:
        judge.answer = lambda question: judge.failures.extend([(500, {}, b"")] * 99) or longer(question)
        with pytest.raises(UserError, match="cannot be reached"):
            asked(judge.url, num_at_once=1)
        judge.failures.clear()
        judge.answer = longer
        assert asked(judge.url, num_at_once=1) == [[0.0, 0.5, 1.0], [1.0, 0.0]]
        assert asked(judge.url) == [[0.0, 0.5, 1.0], [1.0, 0.0]]
    assert len(judge.questions) == len(set(judge.questions)) == 8
    assert {*json.loads((tmp_path / "verdicts.jsonl").read_text().splitlines()[0])} == {"question", "verdict"}


# --- the question


def test_a_question_of_ones_own(tmp_path):
    assert question_text("") == module.QUESTION
    file = tmp_path / "question.txt"
    file.write_text(QUESTION)
    assert question_text(str(file)) == QUESTION


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [(None, ExitCode.MISSING_INPUT, "cannot be read"), (b"\xff", ExitCode.MISSING_INPUT, "UTF-8"),
     (b"{prompt} {first}", ExitCode.BAD_DATA, "no {second}")],
)  # fmt: skip
def test_a_question_that_cannot_be_asked(tmp_path, content, code, says):
    file = tmp_path / "question.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        question_text(str(file))
    assert caught.value.exit_code == code
