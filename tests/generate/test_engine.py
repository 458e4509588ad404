"""The engine against transformers' own `generate`, against the trainer's forward, and against itself."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch

from fairlead.batches import PackedBatch
from fairlead.config.common import ModelConfig, RuntimeConfig, SamplingConfig
from fairlead.generate import batch as batch_module
from fairlead.generate import engine as engine_module
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.prepacked import Prepacked
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.runtime.start import Runtime, start
from model_setting import TOLERANCE, frozen, in_training, packed, plain, rows_of, runtime_of
from tiny import FAMILIES, WINDOW, tiny_tokenizer

Tiny = Callable[[str], Path]
frozen_once = cache(frozen)

END_TOKENS = tuple(range(2, 320, 16))  # many, so that rows end at different times
PROMPTS = rows_of([1, 5, 2 * WINDOW + 1, 3, 9, 30, 1, 12] * 3)
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=3 * WINDOW)


def respond(
    roles: Roles,
    prompts: Sequence[tuple[int, ...]],
    sampling: SamplingConfig,
    *,
    first_seed: int = 0,
    **options: object,
) -> list[Response]:
    engine = Engine(roles, "policy", END_TOKENS, runtime_of(), **options)
    return engine.generate(prompts, sampling, seeds=range(first_seed, first_seed + len(prompts)))


def generated(folder: Path, prompt: tuple[int, ...], **options: object) -> tuple[int, ...]:
    model = plain(folder)
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=list(END_TOKENS), pad_token_id=0,
        max_new_tokens=GREEDY.max_new_tokens, **options,
    )  # fmt: skip
    return tuple(out[0, len(prompt) :].tolist())


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(tiny: Tiny, family: str) -> None:
    expected = [generated(tiny(family), prompt) for prompt in PROMPTS]
    responses = respond(frozen_once(tiny(family)), PROMPTS, GREEDY)
    assert [r.tokens for r in responses] == expected
    assert [r.finished for r in responses] == [tokens[-1] in END_TOKENS for tokens in expected]
    assert len({len(tokens) for tokens in expected}) > 1, "rows should end at different times"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reference_twin_says_the_same(tiny: Tiny, family: str) -> None:
    sampling = SamplingConfig(temperature=0.8, max_new_tokens=12)
    fast = respond(frozen_once(tiny(family)), PROMPTS, sampling)
    runtime = runtime_of(fast=False)
    twin = Engine(frozen_once(tiny(family), fast=False), "policy", END_TOKENS, runtime)
    slow = twin.generate(PROMPTS, sampling, seeds=range(len(PROMPTS)))
    assert [r.tokens for r in slow] == [r.tokens for r in fast]
    torch.testing.assert_close(_logprobs(slow), _logprobs(fast), **TOLERANCE)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.6])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logprobs_are_those_of_the_trainer(tiny: Tiny, family: str, temperature: float) -> None:
    roles = frozen_once(tiny(family))
    responses = respond(roles, PROMPTS, SamplingConfig(temperature=temperature, max_new_tokens=20))
    rows = [(*prompt, *r.tokens) for prompt, r in zip(PROMPTS, responses, strict=True)]
    trained = [(False,) * len(p) + (True,) * len(r.tokens) for p, r in zip(PROMPTS, responses, strict=True)]
    expected = roles(packed(rows, trained), "policy", temperature=temperature or 1.0).logprobs
    torch.testing.assert_close(_logprobs(responses), expected, **TOLERANCE)


@pytest.mark.parametrize("family", ["llama", "mistral", "bloom"])
def test_neighbours_change_nothing(tiny: Tiny, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shares the batch, and whenever a request enters it, alone or with others."""
    roles, sampling = frozen_once(tiny(family)), SamplingConfig(max_new_tokens=20)
    together = respond(roles, PROMPTS, sampling)
    for rows_at_once, enter_together, prompt_tokens in ((64, 8, 8192), (5, 1, 8192), (7, 3, 8192), (64, 8, 20)):
        monkeypatch.setattr(batch_module, "ENTER_TOGETHER", enter_together)
        monkeypatch.setattr(batch_module, "PROMPT_TOKENS", prompt_tokens)
        again = respond(roles, PROMPTS, sampling, rows_at_once=rows_at_once)
        assert [r.tokens for r in again] == [r.tokens for r in together]
        torch.testing.assert_close(_logprobs(again), _logprobs(together), **TOLERANCE)
    for row, prompt in enumerate(PROMPTS[:8]):
        assert respond(roles, [prompt], sampling, first_seed=row)[0].tokens == together[row].tokens


def forwards_of(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The lengths of the sequences of every forward from here on."""
    lengths: list[tuple[int, ...]] = []
    forward = roles.forward

    def counted(batch: PackedBatch, *arguments: object, **options: object) -> object:
        lengths.append(batch.lengths)
        return forward(batch, *arguments, **options)

    monkeypatch.setattr(roles, "forward", counted)
    return lengths


def test_rows_leave_and_waiting_prompts_enter(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token is computed for a request that has ended, and places that become free are taken again."""
    monkeypatch.setattr(batch_module, "ENTER_TOGETHER", 3)
    roles = frozen(tiny("llama"))
    forwards = forwards_of(roles, monkeypatch)
    responses = respond(roles, PROMPTS, GREEDY, rows_at_once=6)
    steps = [lengths for lengths in forwards if lengths == (1,) * len(lengths)]
    reads = [lengths for lengths in forwards if lengths != (1,) * len(lengths)]
    assert sum(map(len, steps)) == sum(len(r.tokens) - 1 for r in responses)
    assert len(reads) > 1
    assert all(len(lengths) >= 3 for lengths in reads[:-1])
    assert max(map(len, steps)) == 6


def test_a_group_reads_its_prompt_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    roles, sampling = frozen(tiny("llama")), SamplingConfig(max_new_tokens=9)
    prompts = [prompt for prompt in PROMPTS[1:4] for _ in range(4)]
    forwards = forwards_of(roles, monkeypatch)
    responses = respond(roles, prompts, sampling)
    assert forwards[0] == tuple(map(len, PROMPTS[1:4]))
    assert len({r.tokens for r in responses}) > 6, "each of a group has its own seed"
    for seed, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        assert respond(roles, [prompt], sampling, first_seed=seed)[0].tokens == response.tokens


def test_the_prompts_of_one_read_are_bounded(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "PROMPT_TOKENS", 20)
    roles = frozen(tiny("llama"))
    forwards = forwards_of(roles, monkeypatch)
    respond(roles, PROMPTS, SamplingConfig(max_new_tokens=1))
    assert all(sum(lengths) <= 20 or len(lengths) == 1 for lengths in forwards)
    assert max(map(len, forwards)) > 1


def test_seeds_decide_the_tokens(tiny: Tiny) -> None:
    roles, sampling = frozen_once(tiny("llama")), SamplingConfig(max_new_tokens=8)
    one, other = (respond(roles, PROMPTS, sampling, first_seed=seed) for seed in (0, 1000))
    assert [r.tokens for r in one] != [r.tokens for r in other]


def test_what_a_role_samples_follows_its_distribution(tiny: Tiny) -> None:
    """First tokens of 4000 requests: chi-square of the 20 most likely tokens against the probabilities reported."""
    roles, prompt = frozen_once(tiny("llama")), PROMPTS[2]
    count = 4000
    responses = respond(roles, [prompt] * count, SamplingConfig(max_new_tokens=1), rows_at_once=500)
    drawn = torch.bincount(torch.tensor([r.tokens[0] for r in responses]), minlength=320)
    with torch.no_grad():
        logits = plain(tiny("llama"))(torch.tensor([prompt])).logits[0, -1]
    expected = torch.softmax(logits, -1) * count
    top = expected.topk(20).indices
    chi_square = float(((drawn[top] - expected[top]) ** 2 / expected[top]).sum())
    assert chi_square < 45  # P(chi-square of 20 degrees > 45) = 0.001


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_repetition_penalty_is_that_of_transformers(tiny: Tiny, family: str) -> None:
    sampling = GREEDY.model_copy(update={"repetition_penalty": 1.5})
    prompts = PROMPTS[:8]
    expected = [generated(tiny(family), prompt, repetition_penalty=1.5) for prompt in prompts]
    assert [r.tokens for r in respond(frozen_once(tiny(family)), prompts, sampling)] == expected
    assert expected != [generated(tiny(family), prompt) for prompt in prompts]


def test_a_stop_string_ends_a_response(tiny: Tiny) -> None:
    roles, tokenizer = frozen_once(tiny("llama")), tiny_tokenizer()
    free = respond(roles, PROMPTS, GREEDY)
    texts = [tokenizer.decode(r.tokens) for r in free]
    row = max(range(len(texts)), key=lambda i: len(free[i].tokens))
    stop = tokenizer.decode(free[row].tokens[3:6])  # over a token boundary
    sampling = GREEDY.model_copy(update={"stop": (stop,)})
    stopped = respond(roles, PROMPTS, sampling, decode=tokenizer.decode)
    for before, after, text in zip(free, stopped, texts, strict=True):
        assert after.tokens == before.tokens[: len(after.tokens)]
        if stop in text:
            assert after.finished
            assert stop in tokenizer.decode(after.tokens)
            assert stop not in tokenizer.decode(after.tokens[:-1])
        else:
            assert after.tokens == before.tokens
    assert len(stopped[row].tokens) < len(free[row].tokens)


def test_every_token_is_heard_once_in_order(tiny: Tiny) -> None:
    heard: dict[int, list[int]] = {}
    engine = Engine(frozen_once(tiny("llama")), "policy", END_TOKENS, runtime_of(), rows_at_once=7)
    responses = engine.generate(
        PROMPTS, GREEDY, seeds=range(len(PROMPTS)), on_token=lambda i, token: heard.setdefault(i, []).append(token)
    )
    assert [tuple(heard[i]) for i in range(len(PROMPTS))] == [r.tokens for r in responses]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_model_in_training_samples_as_it_is(tiny: Tiny, tuning: str) -> None:
    """Between two updates, with activation checkpointing and adapter dropout on: neither reaches the sampler."""
    quiet = in_training(tiny("llama"), tuning=tuning)
    roles = in_training(tiny("llama"), tuning=tuning, checkpointing=True, dropout=0.5)
    with torch.no_grad():
        for one, other in zip(*(r.trainable("policy").values() for r in (quiet, roles)), strict=True):
            one.copy_(one + torch.randn_like(one) * 0.2)  # a new adapter says nothing
            other.copy_(one)
    roles(packed(PROMPTS), "policy").logprobs.sum().backward()
    assert roles.training
    assert [r.tokens for r in respond(roles, PROMPTS, GREEDY)] == [r.tokens for r in respond(quiet, PROMPTS, GREEDY)]


def half_precision(folder: Path, *, trainable: bool) -> tuple[Roles, Runtime]:
    roles, runtime = Roles(), start(RuntimeConfig(device="cpu", dtype="bfloat16", num_threads=1))
    if trainable:
        model = ModelConfig(tuning="full")
        add_trainable(roles, "policy", resolve(str(folder)), "logprobs", model, runtime, dropout=0.0)
        return ready(roles, model, runtime), runtime
    add_frozen(roles, "policy", resolve(str(folder)), "logprobs", runtime)
    return roles, runtime


@pytest.mark.parametrize("trainable", [True, False])
def test_laid_out_weights_are_those_of_now(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, trainable: bool) -> None:
    """In training they are made anew for every call; a frozen model keeps them, and says the same without them."""
    made: list[Prepacked] = []

    class Counted(Prepacked):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__(model)
            made.append(self)

    monkeypatch.setattr(engine_module, "Prepacked", Counted)
    roles, runtime = half_precision(tiny("llama"), trainable=trainable)
    engine = Engine(roles, "policy", END_TOKENS, runtime)

    def said(engine: Engine = engine) -> list[tuple[int, ...]]:
        return [r.tokens for r in engine.generate(PROMPTS, GREEDY, seeds=range(len(PROMPTS)))]

    first = said()
    assert said() == first
    assert len(made) == (2 if trainable else 1)
    if trainable:
        with torch.no_grad():
            for parameter in roles.trainable("policy").values():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        assert said() != first
    monkeypatch.setattr(engine_module, "free_memory_bytes", lambda: 0)
    count = len(made)
    assert said(Engine(roles, "policy", END_TOKENS, runtime)) == said(engine)
    assert len(made) == count


def _logprobs(responses: Sequence[Response]) -> torch.Tensor:
    return torch.tensor([value for r in responses for value in r.logprobs])
