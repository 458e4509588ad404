"""F6, F7: torn, zeroed, deleted and bit-flipped files are found, and the last good checkpoint is used."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fairlead.artifacts.checkpoints import latest_checkpoint, save_checkpoint
from fairlead.errors import ExitCode, UserError

FILES = ("manifest.json", "model/adapter_model.safetensors", "optimizer.safetensors", "position.json")


def write(tmp):
    (tmp / "model").mkdir()
    save_file({"w": np.random.default_rng(0).normal(size=(8, 8))}, tmp / "model" / "adapter_model.safetensors")
    save_file({"m": np.random.default_rng(1).normal(size=(8, 8))}, tmp / "optimizer.safetensors")
    (tmp / "position.json").write_bytes(b'{"epoch":1,"row":17}')


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    for step in (20, 40):
        save_checkpoint(folder, step, write, facts={"seed": 42, "world_size": 1}, keep=2)
    return folder


def damage(path, how):
    raw = path.read_bytes()
    match how:
        case "deleted":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(raw[: len(raw) // 2])
        case "zeroed":
            path.write_bytes(bytes(len(raw)))
        case "longer":
            path.write_bytes(raw + b"\n")
    return raw


@pytest.mark.parametrize("how", ["deleted", "emptied", "cut", "zeroed", "longer"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_skipped_with_its_reason(stage, name, how):
    path = stage / "checkpoints" / "step-000040" / name
    raw = damage(path, how)
    try:
        found = latest_checkpoint(stage)
        assert found.step == 20
        [(skipped, reason)] = found.skipped
        assert skipped == stage / "checkpoints" / "step-000040"
        assert name in reason
    finally:
        path.write_bytes(raw)
    assert latest_checkpoint(stage).step == 40


def test_the_whole_folder_gone_or_empty(stage, tmp_path):
    shutil.copytree(stage, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-000040"
    shutil.rmtree(newest)
    newest.mkdir()
    assert latest_checkpoint(tmp_path / "run").step == 20
    newest.rmdir()
    assert latest_checkpoint(tmp_path / "run").skipped == ()


@settings(max_examples=200)
@given(st.data())
def test_any_flipped_bit_is_found(stage, data):
    path = stage / "checkpoints" / "step-000040" / data.draw(st.sampled_from(FILES))
    raw = path.read_bytes()
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        found = latest_checkpoint(stage)
    finally:
        path.write_bytes(raw)
    assert found.step == 20
    assert path.name in found.skipped[0][1]


def test_message_of_a_flipped_bit(tmp_path):
    path = save_checkpoint(tmp_path, 40, write, facts={}, keep=2) / "optimizer.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(
        UserError, match=r"sha256 mismatch in .*optimizer\.safetensors \(want \w+\.\. got \w+\.\.\)"
    ) as e:
        latest_checkpoint(tmp_path)
    assert e.value.exit_code == ExitCode.BAD_DATA
