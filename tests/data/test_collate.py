import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.collate import collate, collate_pairs, collate_ranked
from fairlead.data.examples import Example, PairExample, RankedExample

TOKENS = st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=9)
EXAMPLES = TOKENS.map(lambda tokens: Example(tuple(t for t, _ in tokens), tuple(m for _, m in tokens)))


@given(st.lists(EXAMPLES, min_size=1, max_size=6))
def test_a_batch_is_its_sequences_end_to_end(examples):
    batch = collate(examples)
    targets, position = [], 0
    for example, start in zip(examples, batch.starts.tolist(), strict=True):
        length = len(example.input_ids)
        assert start == position
        assert batch.input_ids[start : start + length].tolist() == list(example.input_ids)
        assert batch.position_ids[start : start + length].tolist() == list(range(length))
        targets += [start + i for i in range(1, length) if example.trained[i]]  # the first token is never a target
        position += length
    assert batch.num_tokens == position
    assert batch.targets.tolist() == targets
    assert batch.weights.tolist() == [1.0] * len(targets)
    assert (batch.input_ids.dtype, batch.targets.dtype, batch.weights.dtype) == (
        torch.int64,
        torch.int64,
        torch.float32,
    )
    owners = batch.sequence_of_target.tolist()
    assert [sum(o == s for o in owners) for s in range(len(examples))] == [e.num_trained for e in examples]


@given(st.lists(st.tuples(EXAMPLES, EXAMPLES), min_size=1, max_size=4))
def test_pairs_alternate(pairs):
    batch = collate_pairs([PairExample(chosen, rejected) for chosen, rejected in pairs])
    ids = [token for chosen, rejected in pairs for token in (*chosen.input_ids, *rejected.input_ids)]
    assert batch.packed.input_ids.tolist() == ids
    assert len(batch.packed.lengths) == 2 * batch.num_pairs == 2 * len(pairs)
    assert batch.pair_weights.tolist() == [1.0] * len(pairs)


@st.composite
def ranked_rows(draw):
    """Responses that begin alike and are all different; some rows are graded, with equal grades among them."""
    prompt = draw(st.lists(st.integers(0, 99), min_size=1, max_size=5))
    tails = draw(st.lists(st.lists(st.integers(0, 2), max_size=3).map(tuple), min_size=1, max_size=4, unique=True))
    trained = [(False,) * len(prompt) + (True,) * len(tail) for tail in tails]
    responses = [Example((*prompt, *tail), mask) for tail, mask in zip(tails, trained, strict=True)]
    grades = st.lists(st.integers(0, 2).map(float), min_size=len(tails), max_size=len(tails))
    found = sorted(draw(grades), reverse=True) if draw(st.booleans()) else []
    return RankedExample(tuple(responses), tuple(found))


@given(st.lists(ranked_rows(), min_size=1, max_size=4))
def test_ranked_rows_keep_their_pairs_weights_and_grades(rows):
    batch = collate_ranked(rows, share_prompts=False)
    responses = [response for row in rows for response in row.responses]
    assert batch.packed.input_ids.tolist() == [token for response in responses for token in response.input_ids]
    pairs, weights, grades, first = [], [], [], 0
    for row in rows:
        count = len(row.responses)
        better_than = [
            (first + i, first + j)
            for i in range(count)
            for j in range(i + 1, count)
            if not row.grades or row.grades[i] > row.grades[j]
        ]
        pairs += better_than
        weights += [1 / len(better_than) for _ in better_than]
        grades += row.grades or [0.0] * count
        first += count
    assert list(zip(batch.better.tolist(), batch.worse.tolist(), strict=True)) == pairs
    assert batch.pair_weights.tolist() == pytest.approx(weights)
    assert batch.grades.tolist() == grades
    assert batch.response_weights.tolist() == pytest.approx([1 / len(r.responses) for r in rows for _ in r.responses])
    idle = batch.without_weight()
    assert not idle.pair_weights.any()
    assert not idle.response_weights.any()
    assert idle.packed is batch.packed


@given(st.lists(ranked_rows(), min_size=1, max_size=4))
def test_sharing_leaves_every_sequence_whole(rows):
    """Its prefix and its own tokens make the response again, at the positions it has alone."""
    apart, batch = (collate_ranked(rows, share_prompts=share) for share in (False, True))
    packed, start = batch.packed, 0
    responses = [response for row in rows for response in row.responses]
    prefixes = packed.prefixes or ((0, 0),) * len(responses)
    for response, (before, shared), length in zip(responses, prefixes, packed.lengths, strict=True):
        assert length >= 1
        own = slice(start, start + length)
        there = [*packed.input_ids[before : before + shared].tolist(), *packed.input_ids[own].tolist()]
        assert there == list(response.input_ids)
        assert packed.position_ids[own].tolist() == list(range(shared, shared + length))
        start += length
    assert packed.num_tokens == start == sum(row.num_tokens - sum(row.shared_lengths) for row in rows)
    for name in ("better", "worse", "pair_weights", "grades", "response_weights"):
        assert getattr(batch, name).equal(getattr(apart, name))


@given(st.lists(ranked_rows(), min_size=1, max_size=4), st.booleans())
def test_shared_prompts_leave_every_target_and_what_predicts_it(rows, repeated):
    """The token before each target, and the target, are those of the sequences laid out one by one."""
    examples = [response for row in rows * (1 + repeated) for response in row.responses]
    apart, together = (collate(examples, share_prompts=share) for share in (False, True))
    assert apart.predictors.equal(apart.targets - 1)
    for name in ("targets", "predictors"):
        for tokens in ("input_ids", "position_ids"):
            there = (getattr(batch, tokens)[getattr(batch, name)] for batch in (apart, together))
            assert next(there).equal(next(there))
    assert together.num_targets.equal(apart.num_targets)
    seen: set[tuple[int, ...]] = set()
    for example, length in zip(examples, together.lengths, strict=True):
        there_already = example.prompt in seen and example.num_trained > 0
        assert length == len(example.input_ids) - len(example.prompt) * there_already
        seen.add(example.prompt)


def test_no_batch_without_a_sequence():
    with pytest.raises(AssertionError):
        collate([])
