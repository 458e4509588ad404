"""The losses of `fairlead sft` in the first step of a run, by plain transformers, however the step is cut."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairlead.data.examples import Example, conversation_examples
from fairlead.data.load import read_conversations
from fairlead.models.sources import resolve
from fairlead.train.rows import encoder_of
from fairlead.train.sft import turn_weights
from tiny_stages import rows_of

VARIANTS = {
    "plain": (), "smoothed": ("label_smoothing=0.3",), "z": ("z_coef=0.01",), "turn": ("loss_per=turn",),
    "all": ("label_smoothing=0.3", "z_coef=0.01", "loss_per=turn"),
}  # fmt: skip


@pytest.fixture(scope="module")
def turns(world):
    """Logits and targets of the trained tokens of every assistant turn."""
    template = encoder_of(resolve(str(world.model))).template
    examples, _ = conversation_examples(read_conversations([world.conversations]).records, template, 256)
    model = AutoModelForCausalLM.from_pretrained(world.model)
    found = []
    for example in examples:
        with torch.no_grad():
            logits = model(torch.tensor([example.input_ids])).logits[0].double()
        turn = []
        for place in range(1, len(example.input_ids) + 1):
            if place < len(example.input_ids) and example.trained[place]:
                turn.append((logits[place - 1], example.input_ids[place]))
            elif turn:
                found.append(turn)
                turn = []
    return found


def token_loss(logits, target, name):
    smoothing = 0.3 if name in ("smoothed", "all") else 0.0
    loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([target]), label_smoothing=smoothing)
    return float(loss) + (0.01 * float(logits.logsumexp(-1)) ** 2 if name in ("z", "all") else 0.0)


@pytest.mark.parametrize("num_micro_batches", [1, 5])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_first_step_of_a_run(world, tmp_path, turns, name, num_micro_batches):
    stage = world.run(
        "sft", tmp_path, *VARIANTS[name], "max_steps=1", "data.held_out_rows=0", "batch.rows=24",
        f"batch.num_micro_batches={num_micro_batches}", "batch.micro_batch_tokens=100000",
    )  # fmt: skip
    each = [[token_loss(logits, target, name) for logits, target in turn] for turn in turns]
    assert len({len(turn) for turn in each}) > 2, "turns of one length could not tell tokens from turns"
    if name in ("turn", "all"):
        expected = sum(sum(turn) / len(turn) for turn in each) / len(each)
    else:
        expected = sum(map(sum, each)) / sum(map(len, each))
    (metrics,) = rows_of(stage / "metrics.jsonl")
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_turns_are_runs_of_trained_tokens():
    example = Example((1, 2, 3, 4, 5, 6), (True, True, False, True, True, True))
    assert example.trained_turns == [1, 3], "nothing predicts the first token"
    assert turn_weights([example]).tolist() == pytest.approx([1.0, 1 / 3, 1 / 3, 1 / 3])
