"""A batch that requests enter and leave at any time, each with options of its own, against batches of one."""

from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config.common import SamplingConfig
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Penalties, Request, repeating, uniforms_of
from fairlead.generate.sampling import forbid, likeliest, penalise_drawn
from model_setting import TOLERANCE, frozen, rows_of, runtime_of

END_TOKENS = tuple(range(2, 320, 16))
PROMPTS = rows_of([1, 5, 19, 3, 9, 30, 1, 12])
OPTIONS = [
    (SamplingConfig(temperature=0.0), Penalties()),
    (SamplingConfig(temperature=0.8, top_k=20), Penalties()),
    (SamplingConfig(temperature=1.0, repetition_penalty=1.3), Penalties()),
    (SamplingConfig(temperature=1.0), Penalties(presence=1.5, frequency=0.5)),
    (SamplingConfig(temperature=0.0), Penalties(no_repeat_ngram=2)),
    (SamplingConfig(temperature=0.9, top_p=0.9), Penalties(frequency=-0.3, no_repeat_ngram=3)),
]  # fmt: skip
frozen_once = cache(frozen)


@pytest.fixture
def engine(tiny):
    return Engine(frozen_once(tiny("llama")), "policy", END_TOKENS, runtime_of(), rows_at_once=5)


def asked(number, **options):
    sampling, penalties = OPTIONS[number % len(OPTIONS)]
    sampling = sampling.model_copy(update={"max_new_tokens": 24})
    prompt = PROMPTS[number % len(PROMPTS)]
    return Request(number, prompt, sampling, uniforms_of(number, 24), 24, penalties, **options)


@torch.no_grad()
def finish(engine, requests, *, each_turn=lambda turn: None):
    batch = engine.batch()
    for request in requests:
        batch.add(request)
    turn = 0
    with engine.weights():
        while batch.busy:
            batch.turn()
            each_turn(turn)
            turn += 1
    return requests


def alone(engine, number):
    return finish(engine, [asked(number)])[0]


def test_requests_of_all_kinds_together_are_what_they_are_alone(engine):
    together = finish(engine, [asked(number) for number in range(18)])
    assert len({request.response.tokens for request in together}) > 10
    for request in together:
        expected = alone(engine, request.index)
        assert request.tokens == expected.tokens
        torch.testing.assert_close(torch.tensor(request.logprobs), torch.tensor(expected.logprobs), **TOLERANCE)


@torch.no_grad()
def test_requests_enter_while_others_run(engine):
    batch, all_of_them = engine.batch(), [asked(number) for number in range(12)]
    later = iter(all_of_them)
    with engine.weights():
        for request in later:
            batch.add(request)
            batch.turn()
            batch.turn()
        while batch.busy:
            batch.turn()
    assert [r.tokens for r in all_of_them] == [alone(engine, r.index).tokens for r in all_of_them]


def test_who_is_cancelled_leaves_and_nobody_else_notices(engine):
    requests = [asked(number) for number in range(9)]

    def cancel(turn):
        if turn == 3:
            requests[1].cancelled = requests[8].cancelled = True  # one that runs, one that waits

    finish(engine, requests, each_turn=cancel)
    assert len(requests[1].tokens) <= 4
    assert requests[8].tokens == []
    for request in requests:
        if not request.cancelled:
            assert request.tokens == alone(engine, request.index).tokens


def test_every_token_is_heard_of_once(engine):
    heard = Counter()
    requests = [asked(number, on_token=lambda request: heard.update([request.index])) for number in range(9)]
    finish(engine, requests)
    assert heard == {request.index: len(request.tokens) for request in requests}


def test_the_likeliest_tokens_come_with_the_drawn_one(engine):
    requests = finish(engine, [asked(0, num_top=3), asked(1, num_top=5), asked(0)])
    assert requests[2].top == []
    for request, num in zip(requests, (3, 5), strict=False):
        assert [len(top) for top in request.top] == [num] * len(request.tokens)
    greedy = requests[0]
    assert [top[0][0] for top in greedy.top] == greedy.tokens
    assert [top[0][1] for top in greedy.top] == pytest.approx(greedy.logprobs)


def test_no_run_of_tokens_comes_twice(engine):
    (request,) = finish(engine, [asked(4)])
    said = (*request.prompt, *request.tokens)
    pairs = list(pairwise(said))[len(request.prompt) - 1 :]
    known = set(pairwise(request.prompt))
    assert len(set(pairs)) == len(pairs)
    assert not known.intersection(pairs)


def test_penalties_change_what_is_drawn_and_not_its_logprob(tiny):
    """The log-probability stays that of the model, which the trainer computes again."""
    engine, sampling = Engine(frozen_once(tiny("llama")), "policy", (), runtime_of()), OPTIONS[0][0]
    said = [
        finish(engine, [Request(0, PROMPTS[1], sampling, uniforms_of(0, 24), 24, penalties)])[0]
        for penalties in (Penalties(), Penalties(presence=2.0), Penalties(frequency=2.0))
    ]
    for penalised in said[1:]:
        assert max(Counter(penalised.tokens).values()) < max(Counter(said[0].tokens).values())
        same = next(i for i, (a, b) in enumerate(zip(said[0].tokens, penalised.tokens, strict=True)) if a != b)
        assert penalised.logprobs[:same] == pytest.approx(said[0].logprobs[:same], abs=1e-5)
        assert penalised.logprobs[same] < said[0].logprobs[same]  # not the likeliest any more, and said so


# --- the formulas

rows = st.lists(st.lists(st.integers(0, 4), max_size=12), min_size=1, max_size=3)


@given(rows, st.floats(-2, 2), st.floats(-2, 2))
def test_penalties_equal_the_loop(said, presence, frequency):
    logits = torch.randn(len(said), 5, dtype=torch.float64)
    counts = torch.tensor([[row.count(token) for token in range(5)] for row in said], dtype=torch.int32)
    found = penalise_drawn(logits, counts, presence, frequency)
    for row, tokens in enumerate(said):
        for token in range(5):
            count = tokens.count(token)
            expected = logits[row, token].item() - (presence if count else 0) - frequency * count
            assert found[row, token].item() == pytest.approx(expected, abs=1e-5)


@given(st.lists(st.integers(0, 3), max_size=14), st.integers(0, 4))
def test_repeating_equals_transformers(tokens, size):
    found = repeating(tokens, size)
    expected = [
        token
        for token in range(4)
        if size
        and any((*tokens, token)[-size:] == tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1))
        and len(tokens) + 1 >= size
    ]
    assert found == expected
    if size and len(tokens) >= size:
        from transformers import NoRepeatNGramLogitsProcessor

        logits = NoRepeatNGramLogitsProcessor(size)(torch.tensor([tokens]), torch.zeros(1, 4))
        assert found == (logits[0] == -torch.inf).nonzero()[:, 0].tolist()


def test_forbid_by_hand():
    found = forbid(torch.zeros(2, 3), [[1], []])
    assert found.tolist() == [[0, -torch.inf, 0], [0, 0, 0]]


def test_likeliest_by_hand():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    (found,) = likeliest(logits, 2.0, 2)
    logprobs = torch.log_softmax(logits / 2, dim=-1)[0]
    assert [token for token, _ in found] == [1, 2]
    assert [value for _, value in found] == pytest.approx([logprobs[1].item(), logprobs[2].item()])
