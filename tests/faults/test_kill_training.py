"""F1: a trainer killed with SIGKILL at chosen points, then the same command: the end is that of the straight run.

A child process (a fork, so that torch is imported once) kills itself at the point; experiments/kill_resume.py does the
same at random moments from outside.
"""

import os
import signal
from itertools import count

import pytest
import safetensors.torch

from fairlead.artifacts import checkpoints
from fairlead.runtime import checkpoints as runtime_checkpoints
from fairlead.train import stage as stage_module
from fairlead.train.stage import Stage
from tiny_stages import TinyWorld, fingerprints, rows_of

OPTIONS = {
    "sft": ("num_epochs=2", "model.lora.dropout=0.1"),  # 8 steps
    "reward": ("num_epochs=3",),  # 9 steps
    "dpo": ("num_epochs=3",),
    "kto": ("num_epochs=2",),
    "ppo": ("num_iterations=5", "prompts_per_iteration=3", "kl.controller=adaptive", "kl.horizon=50"),
}


def run(world, trainer, output):
    return world.run(trainer, output, *OPTIONS[trainer], "checkpoint.every_steps=2")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return TinyWorld(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    done = {}

    def of(trainer):
        if trainer not in done:
            done[trainer] = run(world, trainer, tmp_path_factory.mktemp("straight"))
        return done[trainer]

    return of


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(number, module, name, patch, *, after=False):
    """Die at the number-th call of module.name, before it or right after it."""
    real, calls = getattr(module, name), count(1)

    def replacement(*args, **options):
        strike = next(calls) == number
        if strike and not after:
            die()
        result = real(*args, **options)
        if strike:
            die()
        return result

    patch.setattr(module, name, replacement)


POINTS = {
    "before the first step": lambda patch: on_call(1, Stage, "record", patch),
    "with steps that no checkpoint holds": lambda patch: on_call(3, Stage, "maybe_save", patch),
    "half of a checkpoint is written": lambda patch: on_call(2, runtime_checkpoints, "save_file", patch, after=True),
    "old checkpoints are being deleted": lambda patch: on_call(1, checkpoints, "remove", patch),
    "the model is written, the manifest is not": lambda patch: on_call(1, stage_module, "write_manifest", patch),
    "the manifest is written, the pages are not": lambda patch: on_call(1, stage_module, "model_card", patch),
}
CHOSEN = [("sft", point) for point in POINTS] + [
    (trainer, point)
    for trainer in ("reward", "dpo", "kto", "ppo")
    for point in ("with steps that no checkpoint holds", "half of a checkpoint is written")
]


def killed(action, point):
    """Run the action in a child that dies at the point; whether it did."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                POINTS[point](patch)
                action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(("trainer", "point"), CHOSEN)
def test_killed_and_run_again_equals_straight_through(world, tmp_path, straight, trainer, point):
    want = straight(trainer)
    assert safetensors.torch.save_file is runtime_checkpoints.save_file
    assert killed(lambda: run(world, trainer, tmp_path), point)
    (stage,) = tmp_path.glob("0*")
    assert (stage / "manifest.json").exists() == (point == "the manifest is written, the pages are not")
    assert (stage / "lock.json").exists(), "the dead process left its lock"
    run(world, trainer, tmp_path)
    assert fingerprints(stage) == fingerprints(want)
    assert len(rows_of(stage / "timings.jsonl")) >= len(rows_of(stage / "metrics.jsonl"))
    assert (stage / "report.html").is_file()
    assert not (stage / "lock.json").exists()
    assert not list(stage.rglob("*.tmp-*")), "what the dead process left is swept"


def test_killed_twice_in_a_row(world, tmp_path, straight):
    assert killed(lambda: run(world, "sft", tmp_path), "with steps that no checkpoint holds")
    assert killed(lambda: run(world, "sft", tmp_path), "half of a checkpoint is written")
    assert fingerprints(run(world, "sft", tmp_path)) == fingerprints(straight("sft"))
