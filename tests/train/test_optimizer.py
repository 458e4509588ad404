"""AdamW against the loop written from the papers, with eps in either place; and moving averages."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairlead.config.common import OptimConfig
from fairlead.train.moving import MovingAverage
from fairlead.train.optimizer import Optimizer
from model_setting import runtime_of

NUMBERS = st.floats(-2, 2, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-3)


def adamw(weights, gradients, config):
    """Loshchilov & Hutter 2019, algorithm 2, one number at a time; TensorFlow's eps is inside the bias correction."""
    rows = []
    for start, row in zip(weights, gradients, strict=True):
        weight, m, v = start, 0.0, 0.0
        for t, g in enumerate(row, start=1):
            m = config.beta1 * m + (1 - config.beta1) * g
            v = config.beta2 * v + (1 - config.beta2) * g * g
            weight -= config.lr * config.weight_decay * weight
            if config.eps_placement == "torch":
                step = config.lr * (m / (1 - config.beta1**t)) / (math.sqrt(v / (1 - config.beta2**t)) + config.eps)
            else:
                rate = config.lr * math.sqrt(1 - config.beta2**t) / (1 - config.beta1**t)
                step = rate * m / (math.sqrt(v) + config.eps)
            weight -= step
        rows.append(weight)
    return rows


@given(
    st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=1, max_size=3),
    st.sampled_from(["torch", "tensorflow"]),
    st.sampled_from([1e-8, 1e-2]),
    st.sampled_from([0.0, 0.1]),
)
def test_adamw_equals_the_loop(gradients, placement, eps, decay):
    config = OptimConfig(lr=0.1, schedule="constant", eps=eps, eps_placement=placement, weight_decay=decay,
                         max_grad_norm=0.0)  # fmt: skip
    parameter = nn.Parameter(torch.ones(len(gradients)))
    optimizer = Optimizer({"p": parameter}, config, runtime_of(), num_steps=4)
    for step in range(4):
        parameter.grad = torch.tensor([row[step] for row in gradients])
        optimizer.step(step)
    wanted = adamw([1.0] * len(gradients), gradients, config)
    torch.testing.assert_close(parameter.detach(), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.floats(0, 0.99))
def test_the_average_is_the_weighted_sum_of_all_that_was(values, decay):
    master, target = nn.Parameter(torch.tensor([0.5])), nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    average = MovingAverage({"p": master}, [target])
    for value in values:
        with torch.no_grad():
            master.fill_(value)
        average.follow(decay)
    count = len(values)
    wanted = decay**count * 0.5 + sum((1 - decay) * decay ** (count - 1 - i) * v for i, v in enumerate(values))
    assert average.state()["p"].item() == pytest.approx(wanted, abs=1e-5)
    assert target.item() == 0.0, "nothing is written before it is published"
    average.publish()
    assert target.item() == pytest.approx(wanted, abs=0.01 * abs(wanted) + 1e-6)
    other = MovingAverage({"p": master}, [target])
    other.load_state(average.state())
    assert torch.equal(other.state()["p"], average.state()["p"])
