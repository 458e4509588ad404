"""The official `openai` client against the server: answers, streams, usage, errors, limits, cancellation."""

import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

USER = [{"role": "user", "content": "hi 你好 \U0001f600"}]
TEXT = USER[0]["content"]
BYTES = len(TEXT.encode())


def chat(client, model="echo", **options):
    return client.chat.completions.create(**({"model": model, "messages": USER} | options))


def streamed(client, model="echo", **options):
    return list(chat(client, model, stream=True, **options))


def test_models(client):
    assert [one.id for one in client.models.list()] == ["echo", "slow", "tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")


def test_an_answer(client):
    answer = chat(client)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    assert (answer.object, answer.model, choice.logprobs) == ("chat.completion", "echo", None)
    assert answer.id.startswith("chatcmpl-")
    assert abs(answer.created - time.time()) < 60


def test_usage(client):
    usage = chat(client).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (BYTES, BYTES + 1, 2 * BYTES + 1)


def test_a_stream_is_the_same_answer_in_pieces(client):
    events = streamed(client)
    assert "".join(one.choices[0].delta.content or "" for one in events) == TEXT
    assert events[0].choices[0].delta.role == "assistant"
    assert [one.choices[0].finish_reason for one in events if one.choices[0].finish_reason] == ["stop"]
    assert {one.object for one in events} == {"chat.completion.chunk"}
    assert len({one.id for one in events}) == 1
    assert all("\ufffd" not in (one.choices[0].delta.content or "") for one in events)
    assert len(events) > 5


def test_a_stream_with_usage(client):
    events = streamed(client, stream_options={"include_usage": True})
    assert events[-1].choices == []
    assert events[-1].usage.completion_tokens == BYTES + 1
    assert all(one.usage is None for one in events[:-1])


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens(client, name):
    answer = chat(client, **{name: 2})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("hi", "length")
    assert answer.usage.completion_tokens == 2


@pytest.mark.parametrize(("stop", "expected"), [
    ("你", "hi "), (["x", "你好"], "hi "), ("i 你", "h"), ("h", ""), ("none", TEXT), ("\U0001f600", "hi 你好 "),
])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_are_cut_off(client, stop, expected, stream):
    if stream:
        events = streamed(client, stop=stop)
        assert "".join(one.choices[0].delta.content or "" for one in events) == expected
    else:
        answer = chat(client, stop=stop)
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (expected, "stop")


def test_several_choices(client):
    answer = chat(client, n=3)
    assert [(one.index, one.message.content) for one in answer.choices] == [(0, TEXT), (1, TEXT), (2, TEXT)]
    assert answer.usage.completion_tokens == 3 * (BYTES + 1)
    events = streamed(client, n=3)
    for choice in range(3):
        mine = [one.choices[0] for one in events if one.choices[0].index == choice]
        assert "".join(one.delta.content or "" for one in mine) == TEXT


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client, stream):
    if stream:
        found = [token for one in streamed(client, logprobs=True, top_logprobs=3) if one.choices[0].logprobs
                 for token in one.choices[0].logprobs.content]  # fmt: skip
    else:
        found = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert [one.token for one in found[:3]] == ["h", "i", " "]
    assert len(found) == BYTES
    assert [len(one.top_logprobs) for one in found] == [3] * BYTES
    assert found[0].logprob == pytest.approx(-0.1)
    assert bytes(byte for one in found for byte in one.bytes) == TEXT.encode()


def test_messages_of_parts_and_of_a_developer(client):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
    assert chat(client, messages=messages).choices[0].message.content == "one two"


def test_completions(client):
    answer = client.completions.create(model="echo", prompt="once", max_tokens=3, logprobs=2)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, answer.object) == ("onc", "length", "text_completion")
    assert (choice.logprobs.tokens, choice.logprobs.text_offset) == (["o", "n", "c"], [0, 1, 2])
    assert [len(top) for top in choice.logprobs.top_logprobs] == [2, 2, 2]
    assert client.completions.create(model="echo", prompt="once", echo=True).choices[0].text == "onceonce"
    events = client.completions.create(model="echo", prompt="once", stream=True)
    assert "".join(one.choices[0].text for one in events) == "once"
    echoed = client.completions.create(model="echo", prompt="once", echo=True, n=2, logprobs=1, stream=True)
    ends = ["", ""]
    for one in echoed:
        (choice,) = one.choices
        if choice.logprobs:
            assert choice.logprobs.text_offset[0] == len(ends[choice.index])
        ends[choice.index] += choice.text
    assert ends == ["onceonce"] * 2


def test_several_prompts(client):
    """Choices of the first prompt stand before those of the second."""
    ask = {"model": "echo", "prompt": ["one", "zwei"], "n": 2, "max_tokens": 3, "echo": True}
    answer = client.completions.create(**ask)
    expected = ["oneone", "oneone", "zweizwe", "zweizwe"]
    assert [(one.index, one.text) for one in answer.choices] == list(enumerate(expected))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 12)
    said = [""] * 4
    for event in client.completions.create(**ask, stream=True):
        for choice in event.choices:
            said[choice.index] += choice.text
    assert said == expected


def test_as_many_choices_as_may_be(client):
    answer = client.completions.create(model="echo", prompt=["a"] * 8, n=2)
    assert [one.index for one in answer.choices] == list(range(16))
    for options, param in (({"prompt": ["a"] * 6, "n": 3}, "n"), ({"prompt": ["a"] * 17}, "prompt"),
                           ({"prompt": []}, "prompt"), ({"prompt": ["a", ""]}, "prompt")):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="echo", **options)
        assert caught.value.param == param


# --- the engine


def test_each_of_several_prompts_is_answered_as_alone(client):
    options = {"model": "tiny", "seed": 3, "n": 2, "max_tokens": 12}
    together = client.completions.create(prompt=["the fox", "你好"], **options)
    alone = [client.completions.create(prompt=prompt, **options) for prompt in ("the fox", "你好")]
    assert [one.text for one in together.choices] == [one.text for answer in alone for one in answer.choices]


def test_bytes_of_tokens_that_are_a_part_of_a_character(client):
    """Each token of a drawn text that ends within characters, joined, is what the tokenizer says of all of them."""
    found = chat(client, "tiny", logprobs=True, max_tokens=60, temperature=1.6, seed=2).choices[0].logprobs.content
    parts = [bytes(one.bytes) for one in found]
    assert any("\ufffd" in part.decode(errors="replace") for part in parts)
    assert all(part.decode(errors="replace") == one.token for part, one in zip(parts, found, strict=True))


def test_greedy_answers_are_equal_whoever_else_asks(client):
    """Many at once, streamed or not, with options of all kinds beside them."""
    alone = chat(client, "tiny", temperature=0, max_tokens=20).choices[0].message.content
    options = [{}, {"temperature": 0}, {"top_p": 0.5}, {"seed": 7, "temperature": 0.9}, {"frequency_penalty": 1.0}] * 4
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda given: chat(client, "tiny", max_tokens=20, **given), options))
    greedy = [
        one.choices[0].message.content
        for one, given in zip(answers, options, strict=True)
        if given == {"temperature": 0}
    ]
    assert greedy == [alone] * 4


def test_a_seed_says_it_again(client):
    said = [chat(client, "tiny", seed=seed, max_tokens=20).choices[0].message.content for seed in (5, 5, 6)]
    assert said[0] == said[1] != said[2]
    two = chat(client, "tiny", seed=5, n=2, max_tokens=20)
    assert [one.message.content for one in two.choices] == [said[0], said[2]]


def test_a_stream_of_the_engine_is_its_answer(client):
    options = {"seed": 3, "max_tokens": 24, "temperature": 1.3}
    whole = chat(client, "tiny", **options)
    events = streamed(client, "tiny", **options)
    assert "".join(one.choices[0].delta.content or "" for one in events) == whole.choices[0].message.content
    assert events[-1].choices[0].finish_reason == whole.choices[0].finish_reason


@pytest.mark.parametrize("option", [
    {"temperature": 0.1}, {"top_p": 0.01}, {"presence_penalty": 2.0}, {"frequency_penalty": 2.0},
    {"extra_body": {"top_k": 1}},
    {"extra_body": {"min_p": 0.9}}, {"extra_body": {"repetition_penalty": 5.0}},
    {"extra_body": {"no_repeat_ngram_size": 1}},
])  # fmt: skip
def test_an_option_has_an_effect(client, option):
    plain = [chat(client, "tiny", seed=seed, max_tokens=40).choices[0].message.content for seed in range(4)]
    changed = [chat(client, "tiny", seed=seed, max_tokens=40, **option).choices[0].message.content for seed in range(4)]
    assert plain != changed


# --- errors


@pytest.mark.parametrize(("options", "param"), [
    ({"temperature": 2.5}, "temperature"), ({"temperature": -1}, "temperature"), ({"top_p": 0}, "top_p"),
    ({"n": 10**9}, "n"), ({"n": 0}, "n"), ({"max_tokens": -1}, "max_tokens"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"seed": 1.5}, "seed"), ({"stop": ["a"] * 5}, "stop"), ({"top_logprobs": 21}, "top_logprobs"),
    ({"extra_body": {"n_discard": -1}}, "n_discard"), ({"tools": []}, "tools"),
    ({"user": "x"}, "user"), ({"messages": []}, "messages"),
    ({"messages": [{"role": "gpt2", "content": "x"}]}, "messages[0].role"), ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
])  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **options)
    if param is not None:
        assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert "fairlead" not in caught.value.message


def test_a_context_that_is_too_short(client):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, max_tokens=4096)
    assert caught.value.code == "context_length_exceeded"
    assert (caught.value.param, f"the prompt has {BYTES}" in caught.value.message) == ("messages", True)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="echo", prompt="x" * 5000)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


def test_a_model_that_is_not_there(client):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, "gpt-4")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_body_that_is_too_large(client):
    with pytest.raises(openai.APIStatusError) as caught:
        chat(client, messages=[{"role": "user", "content": "x" * 900_000}] * 2)
    assert caught.value.status_code == 413


# --- cancellation


def test_a_stream_that_is_closed_ends_the_work(client, site):
    slow = site.server.models["slow"]
    stream = chat(client, "slow", messages=[{"role": "user", "content": "x" * 500}], stream=True)
    next(iter(stream))
    wait_until(lambda: slow.running == 1)
    stream.close()
    wait_until(lambda: slow.running == 0 and site.server.gate.running == 0)


def test_an_answer_that_nobody_waits_for_ends_the_work(client, site):
    slow = site.server.models["slow"]
    with pytest.raises(openai.APITimeoutError):
        chat(client.with_options(timeout=0.5), "slow", messages=[{"role": "user", "content": "x" * 500}])
    wait_until(lambda: slow.running == 0 and site.server.gate.running == 0)


def test_the_engine_lets_go_of_who_has_gone(client, site, model):
    streams = [chat(client, "tiny", stream=True, max_tokens=60, stop=["none"], seed=seed) for seed in range(5)]
    for stream in streams:
        next(iter(stream))
        stream.close()
    wait_until(lambda: site.server.gate.running == 0 and not model._tell)
    assert chat(client, "tiny", max_tokens=3).usage.completion_tokens <= 3


def wait_until(holds, seconds=5.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not end"
        time.sleep(0.01)
