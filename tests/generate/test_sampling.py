import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fairlead.generate.sampling import keep_min_p, keep_top_k, keep_top_p, next_tokens, penalise_repetition
from oracles import sampling as oracle
from oracles.reductions import softmax

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
OPTIONS = [
    PLAIN,
    PLAIN | {"temperature": 0.6},
    PLAIN | {"top_k": 5},
    PLAIN | {"top_p": 0.7},
    PLAIN | {"min_p": 0.2},
    PLAIN | {"repetition_penalty": 1.5},
    {"temperature": 1.4, "top_k": 9, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.3},
]
VOCABULARY = 16


def draw_logits(rows, seed=0):
    return 2.0 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def draw_uniforms(rows, seed=0):
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed))


def mark_seen(ids):
    return torch.zeros(len(ids), VOCABULARY, dtype=torch.bool).scatter_(1, ids, True)


def transformers_scores(ids, logits, options):
    processors = LogitsProcessorList()
    if options["repetition_penalty"] != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    processors.append(TemperatureLogitsWarper(options["temperature"]))
    if options["top_k"]:
        processors.append(TopKLogitsWarper(options["top_k"]))
    if options["top_p"] < 1.0:
        processors.append(TopPLogitsWarper(options["top_p"]))
    if options["min_p"]:
        processors.append(MinPLogitsWarper(options["min_p"]))
    return processors(ids, logits)


# --- filters against transformers ---


@given(st.integers(0, 1000), st.integers(1, 20), st.floats(0.01, 0.99), st.floats(0.01, 1.0), st.floats(0.5, 3.0))
def test_each_filter_equals_transformers(seed, top_k, top_p, min_p, penalty):
    logits = draw_logits(3, seed)
    ids = torch.randint(VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(seed))
    for ours, theirs in (
        (keep_top_k(logits, top_k), TopKLogitsWarper(top_k)),
        (keep_top_p(logits, top_p), TopPLogitsWarper(top_p)),
        (keep_min_p(logits, min_p), MinPLogitsWarper(min_p)),
        (penalise_repetition(logits, mark_seen(ids), penalty), RepetitionPenaltyLogitsProcessor(penalty)),
    ):
        assert torch.equal(ours, theirs(ids, logits))


@pytest.mark.parametrize("options", OPTIONS)
def test_the_whole_chain_equals_transformers_at_every_uniform(options):
    """A fine grid of uniforms hits each token in proportion to its probability: exact up to one grid point."""
    num = 4000
    logits, ids = draw_logits(1), torch.tensor([[1, 4, 4, 7, 11]])
    expected = transformers_scores(ids, logits, options).double().softmax(-1)[0]
    grid = (torch.arange(num, dtype=torch.float64) + 0.5) / num
    tokens, _ = next_tokens(logits.expand(num, -1), grid, mark_seen(ids).expand(num, -1), **options)
    counts = tokens.bincount(minlength=VOCABULARY)
    assert (counts - num * expected).abs().max() <= 1.0
    assert not counts[expected == 0].any()
    assert (tokens.diff() >= 0).all()  # the inverse of a cumulative distribution rises


# --- against the loop from the definitions ---


@given(
    st.integers(0, 1000),
    st.floats(0, 1, exclude_max=True),
    st.fixed_dictionaries(
        {
            "temperature": st.floats(0.3, 3.0),
            "top_k": st.integers(0, 18),
            "top_p": st.floats(0.05, 1.0),
            "min_p": st.floats(0.0, 0.9),
            "repetition_penalty": st.floats(0.6, 2.0),
        }
    ),
)
def test_equals_the_loop(seed, uniform, options):
    logits = draw_logits(1, seed).double()
    ids = torch.randint(VOCABULARY, (1, 5), generator=torch.Generator().manual_seed(seed))
    tokens, logprobs = next_tokens(logits, torch.tensor([uniform]).double(), mark_seen(ids), **options)
    row = logits[0].tolist()
    expected = oracle.filtered_distribution(row, mark_seen(ids)[0].tolist(), **options)
    assert tokens.item() == oracle.inverse_cdf(expected, uniform)
    unfiltered = softmax([x / options["temperature"] for x in row])
    assert logprobs.item() == pytest.approx(math.log(unfiltered[tokens.item()]), abs=1e-9)


# --- the distribution, the rows, the edges ---


@pytest.mark.parametrize("options", OPTIONS)
def test_sampled_frequencies_pass_a_chi_square_test(options):
    num = 20_000
    logits, ids = draw_logits(1, seed=3), torch.tensor([[0, 2, 9]])
    expected = num * transformers_scores(ids, logits, options).double().softmax(-1)[0]
    tokens, _ = next_tokens(logits.expand(num, -1), draw_uniforms(num), mark_seen(ids).expand(num, -1), **options)
    counts = tokens.bincount(minlength=VOCABULARY)
    kept = expected > 0
    assert counts[~kept].sum() == 0
    statistic = ((counts - expected)[kept].square() / expected[kept]).sum().item()
    # Wilson-Hilferty: (X / k)^(1/3) is nearly normal; 3.7 standard deviations is one in ten thousand.
    degrees = int(kept.sum()) - 1
    spread = 2 / (9 * degrees)
    assert statistic < degrees * (1 - spread + 3.7 * math.sqrt(spread)) ** 3


@pytest.mark.parametrize("options", [*OPTIONS, PLAIN | {"temperature": 0.0}])
def test_a_row_does_not_depend_on_the_others(options):
    logits, uniforms, seen = draw_logits(9), draw_uniforms(9), draw_logits(9, seed=1) > 0
    together = next_tokens(logits, uniforms, seen, **options)
    for b in range(9):
        alone = next_tokens(logits[b : b + 1], uniforms[b : b + 1], seen[b : b + 1], **options)
        assert all(torch.equal(x[b : b + 1], y) for x, y in zip(together, alone, strict=True))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    shuffled = next_tokens(logits[order], uniforms[order], seen[order], **options)
    assert all(torch.equal(x[order], y) for x, y in zip(together, shuffled, strict=True))


def test_temperature_0_takes_the_most_likely_token_at_its_temperature_1_logprob():
    logits, uniforms = draw_logits(5), draw_uniforms(5)
    tokens, logprobs = next_tokens(logits, uniforms, None, **PLAIN | {"temperature": 0.0, "top_k": 3, "top_p": 0.5})
    assert torch.equal(tokens, logits.argmax(-1))
    assert torch.equal(logprobs, logits.log_softmax(-1).amax(-1))
    assert torch.equal(tokens, next_tokens(logits, 1 - uniforms, None, **PLAIN | {"temperature": 0.0})[0])


def test_temperature_0_still_penalises_repetition():
    logits, seen = torch.tensor([[2.0, 1.5, -1.0]]), torch.tensor([[True, False, False]])
    tokens, logprobs = next_tokens(
        logits, torch.zeros(1), seen, **PLAIN | {"temperature": 0.0, "repetition_penalty": 2.0}
    )
    assert tokens.tolist() == [1]
    assert torch.equal(logprobs, logits.log_softmax(-1)[:, 1])


def test_logprobs_leave_filters_and_penalty_out_but_not_the_temperature():
    logits, uniforms, seen = draw_logits(50), draw_uniforms(50), draw_logits(50, seed=1) > 0
    tokens, logprobs = next_tokens(logits, uniforms, seen, **OPTIONS[-1])
    own = (logits / OPTIONS[-1]["temperature"]).log_softmax(-1)
    assert torch.equal(logprobs, own.gather(1, tokens[:, None])[:, 0])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2**-24, 1.0])
def test_the_ends_of_the_unit_interval_draw_a_possible_token(options, uniform):
    logits, seen = draw_logits(30), torch.zeros(30, VOCABULARY, dtype=torch.bool)
    logits[:, [0, 5, VOCABULARY - 1]] = -torch.inf
    tokens, logprobs = next_tokens(logits, torch.full((30,), uniform), seen, **options)
    possible = transformers_scores(torch.zeros(30, 0, dtype=torch.int64), logits, options).isfinite()
    first = possible.int().argmax(-1)
    last = VOCABULARY - 1 - possible.flip(-1).int().argmax(-1)
    assert torch.equal(tokens, first if uniform == 0.0 else last)
    assert logprobs.isfinite().all()


def test_the_smallest_top_p_keeps_the_most_likely_token():
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))  # sums a little off 1 in float32
    kept = keep_top_p(logits, 1e-9).isfinite()
    assert torch.equal(kept, logits == logits.amax(-1, keepdim=True))


def test_16_bit_logits_are_sampled_in_float32():
    logits, uniforms = draw_logits(4).bfloat16(), draw_uniforms(4)
    got, expected = (next_tokens(x, uniforms, None, **PLAIN) for x in (logits, logits.float()))
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))
    assert got[1].dtype == torch.float32


def test_a_penalty_needs_the_tokens_seen():
    with pytest.raises(AssertionError, match="seen"):
        next_tokens(draw_logits(1), draw_uniforms(1), None, **PLAIN | {"repetition_penalty": 1.1})
