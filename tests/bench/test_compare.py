"""The frame of the benches, on sides that do nothing but sleep, and the prompts of the rollout works."""

from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SIDE = """
import sys, time
from side import Turn
turn = Turn()
turn.imported()
print("a library talks")
turn.begin(name="{name}")
number = 0
while True:
    time.sleep({seconds})
    number += 1
    turn.end(units=10, loss={loss} + number, seconds_before={before})
"""


def side(folder: Path, name: str, *, seconds: float, loss: float = 1.0, before: float = 0.0) -> str:
    path = folder / f"{name}.py"
    path.write_text(SIDE.format(name=name, seconds=seconds, loss=loss, before=before))
    return str(path)


@pytest.fixture
def frame(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import compare
    import works

    def run(ours, peer, **options):
        work = works.Work(
            what="", unit="tokens", wanted=2.0, ours=ours, peer=peer, peer_name="a peer", agree={"loss": 0.1}, **options
        )
        return compare.compare("work", work, 3)

    return run


def test_two_living_processes_in_turn(frame, tmp_path):
    result = frame(side(tmp_path, "ours", seconds=0.05), side(tmp_path, "theirs", seconds=0.2))
    assert 2.5 < result["ratio"]["median"] < 4.5
    assert result["ratio"]["least"] <= result["ratio"]["median"] <= result["ratio"]["greatest"]
    assert [len(result[key]["rounds"]) for key in ("fairlead", "peer")] == [4, 4], "the warm-up is kept, not counted"
    assert result["fairlead"]["facts"] == {"name": "ours"}
    assert result["agree"]["loss"] == {"greatest_difference": 0.0, "allowed": 0.1, "holds": True}


def test_what_was_done_before_a_round_counts(frame, tmp_path):
    peer = side(tmp_path, "theirs", seconds=0.05)
    result = frame(side(tmp_path, "ours", seconds=0.05, before=1.0), peer)
    assert result["ratio"]["median"] < 0.2


def test_sides_that_do_not_agree_are_told(frame, tmp_path):
    result = frame(side(tmp_path, "ours", seconds=0.0, loss=2.0), side(tmp_path, "theirs", seconds=0.0))
    agree = result["agree"]["loss"]
    assert not agree["holds"]
    assert agree["greatest_difference"] == pytest.approx(1 / 3)  # the first counted round: 4 against 3


def test_a_side_that_dies_ends_the_comparison(frame, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="ended with code 3"):
        frame(str(broken), side(tmp_path, "theirs", seconds=0.0))


@pytest.mark.real
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_as_many_prompts_as_asked_for(monkeypatch, count):
    monkeypatch.syspath_prepend(str(BENCH))
    import rollouts

    _, template = rollouts.model()
    found = rollouts.prompts(template, count)
    assert len(found) == len(set(found)) == count
    assert all(len(prompt) <= rollouts.LONGEST for prompt in found)


def test_what_is_drawn_agrees_in_its_mean(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import compare

    counted = [({"loss": 1.3}, {"loss": 1.0}), ({"loss": 0.7}, {"loss": 1.0}), ({"loss": 1.06}, {"loss": 1.0})]
    each = compare._difference(counted, "loss", 0.1, drawn=False)
    mean = compare._difference(counted, "loss", 0.1, drawn=True)
    assert each == {"greatest_difference": pytest.approx(0.3), "allowed": 0.1, "holds": False}
    assert mean == {"greatest_difference": pytest.approx(0.02), "allowed": 0.1, "holds": True}
