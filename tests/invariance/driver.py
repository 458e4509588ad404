"""Runs trainers in this process, alone or as a rank under torchrun: `driver.py JOBS.json`.

JOBS.json is a list of {"stage", "config", "interrupt"}: the stage's name, its configuration as JSON, and whether to
send it SIGTERM after its first step and start it again.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.stages import DpoConfig, KtoConfig, RewardConfig, SftConfig
from fairlead.train.dpo import train_dpo
from fairlead.train.grpo import train_grpo
from fairlead.train.kto import train_kto
from fairlead.train.ppo import train_ppo
from fairlead.train.reward import train_reward
from fairlead.train.sft import train_sft
from fairlead.train.stage import Stage

TRAINERS = {
    "sft": (SftConfig, train_sft), "reward": (RewardConfig, train_reward),
    "dpo": (DpoConfig, train_dpo), "kto": (KtoConfig, train_kto), "ppo": (PpoConfig, train_ppo),
    "grpo": (GrpoConfig, train_grpo),
}  # fmt: skip


def run(jobs: Sequence[dict[str, Any]]) -> None:
    """Train each job in turn with the real trainers."""
    for job in jobs:
        config_of, train = TRAINERS[job["stage"]]
        config = config_of.model_validate(job["config"])
        if job["interrupt"]:
            interrupt_first_step(lambda: train(config))  # noqa: B023 - called at once
        train(config)


def interrupt_first_step(train: Any) -> None:
    record = Stage.record

    def record_and_stop(self: Stage, *args: Any, **kwargs: Any) -> None:
        record(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)

    Stage.record = record_and_stop
    try:
        with pytest.raises(SystemExit) as stopped:
            train()
    finally:
        Stage.record = record
    assert stopped.value.code == 128 + signal.SIGTERM


if __name__ == "__main__":
    run(orjson.loads(Path(sys.argv[1]).read_bytes()))
