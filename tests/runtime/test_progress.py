"""The line of progress: what it shows, and when."""

import pytest

from fairlead.runtime import progress
from fairlead.runtime.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_speed_and_time_left(clock, capsys):
    line = Progress("sft", 10, 20, visible=True)
    clock[0] += 4.0
    assert line.advance(11, 800, {"loss": 1.5, "lr": 0.1}) == 4.0
    assert capsys.readouterr().err == "sft  step 11/20  loss 1.500  200 tokens/s  0:36 left\n"
    clock[0] += 2.0
    assert line.advance(12, 400, {"loss": 1.25}) == 2.0
    assert capsys.readouterr().err == "", "not every step has a line where no terminal is"
    assert line.seconds == 6.0
    clock[0] += 30.0
    line.advance(13, 0, {})
    assert "1:24 left" in capsys.readouterr().err
    line.advance(20, 0, {})
    assert "step 20/20" in capsys.readouterr().err


def test_the_rest_of_a_journey_counts(clock, capsys):
    with progress.followed_by(300.0):
        line = Progress("sft", 0, 4, visible=True)
    clock[0] += 10.0
    line.advance(1, 50, {})
    assert capsys.readouterr().err == "sft  step 1/4    5 tokens/s  0:30 left, 5:30 in all\n"
    assert "in all" not in Progress("sft", 0, 4, visible=True)._line(0, {})


def test_other_ranks_are_silent_and_still_measure(clock, capsys):
    line = Progress("ppo", 0, 1, visible=False)
    clock[0] += 1.0
    assert line.advance(1, 10, {}) == 1.0
    assert capsys.readouterr().err == ""


def test_two_steps_in_one_tick_have_a_duration(clock):
    line = Progress("ppo", 0, 2, visible=False)
    assert line.advance(1, 10, {}) > 0
