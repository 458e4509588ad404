"""Responses that share a prompt in a forward pass say what each says alone in transformers, gradients included."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fairlead.config.common import ModelConfig
from fairlead.data.collate import collate, collate_ranked
from fairlead.data.examples import Example, RankedExample
from fairlead.models.build import add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from model_setting import TOLERANCE, frozen, in_training, plain, plain_logprobs, rows_of, runtime_of
from tiny import PACKABLE, WINDOW

Tiny = Callable[[str], Path]
plain_once = cache(plain)
RESPONSES = st.lists(st.integers(0, 2 * WINDOW), min_size=1, max_size=4)
LENGTHS = st.lists(st.tuples(st.integers(1, 2 * WINDOW), RESPONSES), min_size=1, max_size=3)  # prompt, responses


def scorer(folder: Path, *, checkpointing: bool = False, output: str = "scores") -> Roles:
    """One role, `reward`, in full training, with a head that is not small."""
    roles, runtime = Roles(), runtime_of()
    model = ModelConfig(tuning="full", activation_checkpointing=checkpointing)
    add_trainable(roles, "reward", resolve(str(folder)), output, model, runtime, dropout=0.0)
    with torch.no_grad():
        roles.head("reward").weight.copy_(torch.linspace(-1.0, 1.0, roles.head("reward").in_features)[None])
    return ready(roles, model, runtime)


scorer_once = cache(scorer)
policy_once = cache(frozen)


def ranked(prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> RankedExample:
    examples = [Example((*prompt, *r), (False,) * len(prompt) + (True,) * len(r)) for r in responses]
    return RankedExample(tuple(examples))


def alone(model: torch.nn.Module, head: Tensor, rows: Sequence[RankedExample]) -> Tensor:
    """The head on the last hidden state of each response, each run alone."""
    ids = [torch.tensor([response.input_ids]) for row in rows for response in row.responses]
    return torch.stack([(model.base_model(one).last_hidden_state[0, -1] * head[0]).sum() for one in ids])


def some_rows(lengths: Sequence[tuple[int, Sequence[int]]], seed: int) -> list[RankedExample]:
    """Rows of a prompt and different responses; a length of the prompt, lengths of the responses."""
    rows = []
    for number, (prompt, responses) in enumerate(lengths):
        texts = rows_of([prompt, *responses], seed * 100 + number)
        rows.append(ranked(texts[0], [(k, *text) for k, text in enumerate(texts[1:])]))
    return rows


@pytest.mark.parametrize("family", PACKABLE)
@settings(max_examples=10)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
@torch.no_grad()
def test_scores_are_those_of_each_response_alone(tiny: Tiny, family: str, lengths: list, seed: int) -> None:
    rows, roles = some_rows(lengths, seed), scorer_once(tiny(family))
    batch = collate_ranked(rows, share_prompts=True).packed
    assert batch.num_tokens == sum(n + sum(1 + k for k in ks) for n, ks in lengths), "each prompt is there once"
    expected = alone(plain_once(tiny(family)), roles.head("reward").weight, rows)
    torch.testing.assert_close(roles(batch, "reward"), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", PACKABLE)
def test_gradients_are_those_of_each_response_alone(tiny: Tiny, family: str, checkpointing: bool) -> None:
    rows = some_rows([(9, (4, 20, 3, 0)), (1, (5, 2)), (14, (14,))], seed=1)
    roles = scorer(tiny(family), checkpointing=checkpointing)
    weights = torch.linspace(-1.0, 1.0, 7)
    (roles(collate_ranked(rows, share_prompts=True).packed, "reward") * weights).sum().backward()
    oracle, head = plain(tiny(family)), roles.head("reward").weight.detach()
    (alone(oracle, head, rows) * weights).sum().backward()
    expected = {name: p.grad for name, p in oracle.named_parameters() if p.grad is not None}
    found = {name.split(".", 2)[2]: p.grad for name, p in roles.trainable("reward").items() if "heads." not in name}
    assert expected.keys() <= found.keys()
    for name, gradient in expected.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize(
    ("responses", "own"),
    [
        (([1, 2, 3], [1, 2, 4]), (4, 1)),  # tokens in common after the prompt are shared too
        (([1, 2, 3], [1, 2]), (4, 1)),  # the beginning of the first response keeps its last token
        (([1, 2], [1, 2, 3]), (3, 1)),
        (([1], [2, 2]), (2, 2)),
    ],
)
@torch.no_grad()
def test_at_least_one_token_is_a_responses_own(
    tiny: Tiny, responses: Sequence[list[int]], own: tuple[int, int]
) -> None:
    row, roles = ranked([7], responses), scorer_once(tiny("llama"))
    batch = collate_ranked([row], share_prompts=True).packed
    assert batch.lengths == own
    assert batch.position_ids[-1] == len(responses[1])
    expected = alone(plain_once(tiny("llama")), roles.head("reward").weight, [row])
    torch.testing.assert_close(roles(batch, "reward"), expected, rtol=1e-5, atol=2e-5)


def sequences(lengths: Sequence[tuple[int, Sequence[int]]], seed: int) -> list[Example]:
    """The same responses in an order that mixes the prompts; some first tokens are the same."""
    return [r for k in range(4) for row in some_rows(lengths, seed) for r in row.responses[k : k + 1]]


@pytest.mark.parametrize("family", PACKABLE)
@settings(max_examples=10)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
@torch.no_grad()
def test_log_probabilities_are_those_of_each_response_alone(tiny: Tiny, family: str, lengths: list, seed: int) -> None:
    examples, roles = sequences(lengths, seed), policy_once(tiny(family))
    batch = collate(examples, share_prompts=True)
    assert batch.num_tokens == sum(len(p) for p in {e.prompt for e in examples}) + sum(e.num_trained for e in examples)
    expected = trained_logprobs(plain_once(tiny(family)), examples)
    torch.testing.assert_close(roles(batch, "policy").logprobs, expected, **TOLERANCE)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", PACKABLE)
def test_gradients_of_a_policy_are_those_of_each_response_alone(tiny: Tiny, family: str, checkpointing: bool) -> None:
    examples = sequences([(9, (4, 20, 3, 0)), (1, (5, 2)), (14, (14,))], seed=1)
    roles = in_training(tiny(family), tuning="full", checkpointing=checkpointing)
    logprobs = roles(collate(examples, share_prompts=True), "policy").logprobs
    weights = torch.linspace(-1.0, 1.0, len(logprobs))
    (logprobs * weights).sum().backward()
    oracle = plain(tiny(family))
    (trained_logprobs(oracle, examples) * weights).sum().backward()
    for name, parameter in roles.trainable("policy").items():
        gradient = oracle.get_parameter(name.split(".", 2)[2]).grad
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5 * scale, msg=lambda m, n=name: n + m)


@torch.no_grad()
def test_a_critic_values_what_stands_before_each_token(tiny: Tiny) -> None:
    roles, examples = scorer(tiny("llama"), output="values"), sequences([(5, (3, 0, 2)), (2, (1,))], seed=4)
    apart, together = (roles(collate(examples, share_prompts=share), "reward") for share in (False, True))
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=2e-5)


def trained_logprobs(model: torch.nn.Module, examples: Sequence[Example]) -> Tensor:
    """Log-probability of every trained token, each sequence run alone."""
    masks = torch.tensor([trained for example in examples for trained in example.trained[1:]])
    return plain_logprobs(model, [example.input_ids for example in examples])[masks]
