"""Twenty steps of every trainer against the numbers in tests/golden (see golden.py for how to write them anew).

The tolerance is ten times what another order of float32 sums moves (other micro-batches, measured below).
"""

import json

import pytest

from tiny_stages import TRAINERS
from train.golden import FOLDER, trajectory

REL, ABS = 2e-3, 2e-4


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_trajectory_is_the_golden_one(world, tmp_path, trainer):
    golden = json.loads((FOLDER / f"{trainer}.json").read_text())["steps"]
    found = trajectory(world, trainer, tmp_path)
    assert found.keys() == golden.keys()
    for name, numbers in golden.items():
        assert len(numbers) == 20
        assert found[name] == pytest.approx(numbers, rel=REL, abs=ABS), name


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_tolerance_is_well_above_rounding(world, tmp_path, trainer):
    one, other = (trajectory(world, trainer, tmp_path / n, f"batch.micro_batch_tokens={n}") for n in ("150", "9000"))
    for name, numbers in one.items():
        assert other[name] == pytest.approx(numbers, rel=REL / 10, abs=ABS / 10), name
