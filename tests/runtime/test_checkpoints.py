"""Training state to disk and back, bit for bit; what differs between machines is said."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.config.common import RuntimeConfig
from fairlead.runtime.checkpoints import load_state, save_state
from fairlead.runtime.start import start

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.float64)


@pytest.fixture(scope="module")
def runtime():
    return start(RuntimeConfig(device="cpu", dtype="float32", num_threads=1))


@given(
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
    value=st.floats(allow_nan=False, allow_infinity=False),
)
def test_tensors_and_numbers_come_back_bit_for_bit(tmp_path_factory, runtime, shapes, dtype, seed, value):
    folder = tmp_path_factory.mktemp("stage")
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"a.{i}": torch.randn(shape, generator=generator).to(dtype) for i, shape in enumerate(shapes)}
    tensors["turned"] = torch.randn(3, 2, generator=generator).T  # not contiguous
    numbers = {"kl_coef": value, "tokens": 3, "parent": [{"loss": value}]}
    save_state(folder, 7, tensors, numbers, {"metrics": 11, "samples": 0}, keep=2, runtime=runtime)
    state = load_state(folder, runtime)
    assert (state.step, state.numbers, state.journals, state.warnings) == (
        7,
        numbers,
        {"metrics": 11, "samples": 0},
        (),
    )
    assert state.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state.tensors[name].dtype == tensor.dtype
        assert torch.equal(state.tensors[name], tensor)


def test_nothing_to_go_on_from(tmp_path, runtime):
    assert load_state(tmp_path, runtime) is None


def test_equal_states_are_equal_bytes(tmp_path, runtime):
    for name in ("a", "b"):
        save_state(tmp_path / name, 1, {"x": torch.arange(3.0), "b": torch.ones(2)}, {"z": 1, "a": 2}, {}, keep=2,
                   runtime=runtime)  # fmt: skip
    files = [{p.name: p.read_bytes() for p in (tmp_path / name / "checkpoints" / "step-000001").iterdir()}
             for name in ("a", "b")]  # fmt: skip
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_threads": 2}, "num_threads 1 -> 2"),
        ({"dtype": torch.bfloat16}, "dtype float32 -> bfloat16"),
        ({"sharded": True}, "distributed replicated -> fsdp"),
    ],
)
def test_another_machine_is_said(tmp_path, runtime, changed, said):
    save_state(tmp_path, 1, {"x": torch.ones(1)}, {}, {"metrics": 0}, keep=2, runtime=runtime)
    assert load_state(tmp_path, replace(runtime, **changed)).warnings == (f"resuming is not bit-exact: {said}",)


def test_another_world_size_is_said(tmp_path, runtime):
    save_state(tmp_path, 1, {"x": torch.ones(1)}, {}, {"metrics": 0}, keep=2, runtime=runtime)
    other = replace(runtime, ranks=replace(runtime.ranks, world_size=2))
    assert load_state(tmp_path, other).warnings == ("resuming is not bit-exact: world_size 1 -> 2",)
