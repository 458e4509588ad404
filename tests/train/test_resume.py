"""Stopped by a signal and begun again: the end is that of the straight run, byte for byte. In one process."""

import os
import signal
from itertools import pairwise

import pytest

from fairlead.artifacts.manifest import digest
from fairlead.errors import ExitCode
from fairlead.runtime.progress import Progress
from fairlead.train import policy, ppo
from tiny_stages import TRAINERS, fingerprints, rows_of

# Dropout and PTX draw random numbers; the adaptive controller and the critic have state of their own.
OPTIONS = {
    "sft": ("num_epochs=2", "model.lora.dropout=0.2", "eval_every_steps=3", "neftune_alpha=5"),
    "reward": ("num_epochs=3", "model.lora.dropout=0.2", "eval_every_steps=2"),
    "dpo": ("num_epochs=3", "model.lora.dropout=0.2"),
    "kto": ("num_epochs=2", "model.lora.dropout=0.2", "eval_every_steps=2"),
    "ppo": ("num_iterations=7", "kl.controller=adaptive", "kl.horizon=20", "kl.target=0.001", "ptx_coef=0.5",
            "ptx_rows=2", "prompts_per_iteration=3", "reference=refreshed", "reference_every=2", "policy_ema=0.5"),
    "grpo": ("num_iterations=7", "num_epochs=2", "reference=ema", "reference_decay=0.5", "policy_ema=0.9",
             "dynamic_sampling_rounds=1", "length_sampler_min_tokens=3"),
}  # fmt: skip
KEPT = ("checkpoint.every_steps=3",)


def run(world, trainer, output, *more):
    ptx = (f"ptx_data={world.conversations}",) if trainer == "ppo" else ()
    return world.run(trainer, output, *ptx, *OPTIONS[trainer], *KEPT, *more)


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    """The undisturbed run of each trainer."""
    done = {}

    def of(trainer):
        if trainer not in done:
            done[trainer] = run(world, trainer, tmp_path_factory.mktemp("straight"))
        return done[trainer]

    return of


def signal_at(monkeypatch, step, number):
    """Send this process a signal while that step is under way."""
    real = Progress.advance

    def advance(progress, at, *args):
        if at == step:
            os.kill(os.getpid(), number)
        return real(progress, at, *args)

    monkeypatch.setattr(Progress, "advance", advance)


def without_early_checkpoints(stage):
    """An interruption saves at a step of its own: the straight run has none to compare with it."""
    return {name: digest for name, digest in fingerprints(stage).items() if "step-000006" in name or "step" not in name}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(("step", "number", "code"), [(1, signal.SIGINT, 130), (4, signal.SIGTERM, 143)])
def test_interrupted_and_resumed_equals_straight_through(
    world, tmp_path, monkeypatch, capsys, straight, trainer, step, number, code
):
    want = straight(trainer)
    assert "checkpoints/step-000006/state.safetensors" in fingerprints(want)
    signal_at(monkeypatch, step, number)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        run(world, trainer, tmp_path)
    assert stopped.value.code == code
    assert signal.getsignal(number) is before
    (stage,) = tmp_path.glob("0*")
    assert len(rows_of(stage / "metrics.jsonl")) == step
    assert (stage / "checkpoints" / f"step-{step:06d}").is_dir()
    assert not (stage / "manifest.json").exists()
    assert not (stage / "lock.json").exists()
    assert "the same command goes on from here" in capsys.readouterr().err
    monkeypatch.undo()
    run(world, trainer, tmp_path)
    assert f"going on from step {step}" in capsys.readouterr().err
    assert without_early_checkpoints(stage) == without_early_checkpoints(want)
    assert digest(stage) == digest(want)


@pytest.mark.parametrize("trainer", ["sft", "ppo"])
def test_a_signal_in_the_last_step_saves_and_the_next_run_only_finishes(
    world, tmp_path, monkeypatch, straight, trainer
):
    want = straight(trainer)
    last = len(rows_of(want / "metrics.jsonl"))
    signal_at(monkeypatch, last, signal.SIGINT)
    with pytest.raises(SystemExit):
        run(world, trainer, tmp_path)
    monkeypatch.undo()
    stage = run(world, trainer, tmp_path)
    kept = {name: value for name, value in fingerprints(want).items() if "step" not in name}
    assert {name: value for name, value in fingerprints(stage).items() if "step" not in name} == kept


def test_a_signal_while_the_end_is_measured_finishes_the_stage_first(world, tmp_path, monkeypatch):
    real = policy.role_tensors
    monkeypatch.setattr(policy, "role_tensors", lambda *args: (os.kill(os.getpid(), signal.SIGTERM), real(*args))[1])
    with pytest.raises(SystemExit) as stopped:
        run(world, "sft", tmp_path)
    assert stopped.value.code == ExitCode.TERMINATED
    assert (tmp_path / "01-sft" / "manifest.json").is_file()


def test_other_threads_resume_with_a_warning(world, tmp_path, monkeypatch, capsys, straight):
    signal_at(monkeypatch, 4, signal.SIGINT)
    with pytest.raises(SystemExit):
        run(world, "sft", tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("fairlead.runtime.start.torch.set_num_threads", lambda _: None)  # it is said, not done
    stage = run(world, "sft", tmp_path, "runtime.num_threads=2")
    assert "warning: resuming is not bit-exact: num_threads 1 -> 2" in capsys.readouterr().err
    found, want = ([row["loss"] for row in rows_of(s / "metrics.jsonl")] for s in (stage, straight("sft")))
    assert found == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("trainer", ["reward", "ppo"])
def test_a_torn_checkpoint_is_skipped_with_a_warning(world, tmp_path, monkeypatch, capsys, straight, trainer):
    signal_at(monkeypatch, 5, signal.SIGINT)
    with pytest.raises(SystemExit):
        run(world, trainer, tmp_path)
    monkeypatch.undo()
    (torn,) = tmp_path.glob("0*/checkpoints/step-000005/state.safetensors")
    torn.write_bytes(torn.read_bytes()[:-100])
    stage = run(world, trainer, tmp_path)
    said = capsys.readouterr().err
    assert "warning: skipped step-000005: sha256 mismatch" in said
    assert "going on from step 3" in said
    assert without_early_checkpoints(stage) == without_early_checkpoints(straight(trainer))


def test_timings_keep_the_lines_of_the_cut_session(world, tmp_path, monkeypatch):
    """The clock's file is not rolled back: what was spent was spent."""
    with monkeypatch.context() as patch:
        real = Progress.advance

        def advance(progress, at, *args):
            if at == 5:
                raise KeyboardInterrupt
            return real(progress, at, *args)

        patch.setattr(Progress, "advance", advance)
        with pytest.raises(KeyboardInterrupt):
            run(world, "sft", tmp_path)
    stage = run(world, "sft", tmp_path)
    assert [row["step"] for row in rows_of(stage / "timings.jsonl")] == [1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert [row["step"] for row in rows_of(stage / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_the_adaptive_coefficient_moves_towards_its_target(world, straight):
    """Its value in metrics.jsonl follows the published rule from the KL that stands beside it."""
    rows = rows_of(straight("ppo") / "metrics.jsonl")
    assert rows[0]["kl_coef"] == 0.05
    for now, later in pairwise(rows):
        error = min(max(now["kl_mean"] / 0.001 - 1, -0.2), 0.2)
        assert later["kl_coef"] == pytest.approx(now["kl_coef"] * (1 + error * 3 / 20))
    assert len({row["kl_coef"] for row in rows}) == len(rows)
    assert ppo.next_kl_coef(0.1, 9.0, 20, target=3.0, horizon=20) == pytest.approx(0.12)
