import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.collate import collate, collate_pairs
from fairlead.data.examples import Example, PairExample

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


def test_no_batch_without_a_sequence():
    with pytest.raises(AssertionError):
        collate([])
