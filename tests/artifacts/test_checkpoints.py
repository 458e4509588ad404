import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.artifacts.checkpoints import differences, last_step, latest_checkpoint, save_checkpoint
from fairlead.errors import ExitCode, UserError


def save(folder, step, *, keep=2, text=None):
    def write(tmp):
        (tmp / "model").mkdir()
        (tmp / "model" / "weights.safetensors").write_bytes((text or f"weights of {step}").encode())
        (tmp / "state.json").write_bytes(b"{}")

    return save_checkpoint(folder, step, write, facts={"seed": 42, "metrics_bytes": step * 10}, keep=keep)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_round_trip(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert last_step(tmp_path) is None
    path = save(tmp_path, 40)
    assert path == tmp_path / "checkpoints" / "step-000040"
    found = latest_checkpoint(tmp_path)
    assert (found.path, found.step, found.skipped) == (path, 40, ())
    assert found.facts == {"seed": 42, "metrics_bytes": 400}
    assert (path / "model" / "weights.safetensors").read_bytes() == b"weights of 40"


@settings(max_examples=15)  # each saves up to six times, with all its fsyncs
@given(st.lists(st.integers(1, 2_000_000), unique=True, min_size=1, max_size=6).map(sorted), st.integers(2, 4))
def test_the_newest_are_kept(tmp_path_factory, steps, keep):
    folder = tmp_path_factory.mktemp("run")
    for step in steps:
        save(folder, step, keep=keep)
    assert names(folder) == sorted(f"step-{step:06d}" for step in steps[-keep:])
    assert latest_checkpoint(folder).step == last_step(folder) == steps[-1]


def test_going_back_replaces_what_comes_later(tmp_path):
    for step in (20, 40, 60):
        save(tmp_path, step, keep=3)
    (tmp_path / "checkpoints" / "step-000060" / "state.json").write_bytes(b"x")
    assert latest_checkpoint(tmp_path).step == 40
    save(tmp_path, 50)
    assert names(tmp_path) == ["step-000040", "step-000050"]
    save(tmp_path, 50, text="again")
    assert names(tmp_path) == ["step-000040", "step-000050"]
    assert (latest_checkpoint(tmp_path).path / "model" / "weights.safetensors").read_bytes() == b"again"


def test_no_good_one_left_is_an_error_and_not_a_fresh_start(tmp_path):
    for step in (1, 2):
        (save(tmp_path, step) / "state.json").unlink()
    with pytest.raises(UserError) as caught:
        latest_checkpoint(tmp_path)
    assert caught.value.exit_code == ExitCode.BAD_DATA
    for word in ("step-000001/state.json is missing", "step-000002/state.json is missing", "Fix: delete"):
        assert word in str(caught.value)


def test_a_checkpoint_renamed_by_hand_is_skipped(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    path.rename(path.with_name("step-000009"))
    found = latest_checkpoint(tmp_path)
    assert found.step == 1
    assert "holds step 2" in found.skipped[0][1]


def test_a_failing_writer_changes_nothing(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(ZeroDivisionError):
        save_checkpoint(tmp_path, 2, lambda tmp: 1 / 0, facts={}, keep=2)
    assert names(tmp_path) == ["step-000001"]
    with pytest.raises(ValueError, match=r"facts\.loss=nan"):
        save_checkpoint(tmp_path, 2, lambda tmp: None, facts={"loss": float("nan")}, keep=2)
    assert names(tmp_path) == ["step-000001"]


def test_differences_of_machine_shape():
    saved = {"num_threads": 2, "world_size": 1, "seed": 42}
    assert differences(saved, {"num_threads": 2, "seed": 42}) == []
    assert differences(saved, {"num_threads": 1, "world_size": 1}) == ["num_threads 2 -> 1"]
    assert differences(saved, {"dtype": "float32"}) == ["dtype None -> float32"]
