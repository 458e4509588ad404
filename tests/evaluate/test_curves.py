"""Which curves a stage's metrics give."""

from fairlead.evaluate.curves import stage_figures
from fairlead.evaluate.summary import Evaluation, StageSummary


def test_held_out_curves_are_drawn_group_by_group():
    """They are written as `held_out_loss/GROUP`, in the steps that measured them."""
    rows = [{"step": i, "loss": 2.0 - i / 10} for i in range(1, 7)]
    for row in rows[1::2]:
        row |= {"held_out_loss/English replies": 2.1, "held_out_loss/Chinese replies": 3.0}
    rows[3]["held_out_accuracy/held-out pairs"] = 0.7
    figures = {
        one.caption: one.svg for one in stage_figures(rows, Evaluation(StageSummary("sft", "policy")), ("a", "b"))
    }
    loss = figures["Loss while training"]
    for name in ("training", "held out, English replies", "held out, Chinese replies"):
        assert name in loss
    assert "Accuracy while training: share of pairs with chosen above rejected" in figures
