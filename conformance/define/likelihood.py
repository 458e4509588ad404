"""What is computed from logits, and the losses of supervised fine-tuning."""

import math

from conformance.define import Quantity
from oracles.reductions import entropy, log_softmax

LOGITS = [[2.0, -1.0, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4], [-3.0, 4.0, 1.0, -2.0]]
FORBIDDEN = [[1.0, None, 2.0, None], [None, None, 0.7, None]]
LOGITS_HELP = "[M, V]; null is minus infinity, a token that is forbidden"
TEMPERATURE_HELP = "divides the logits, above 0"
LOGPROBS = [[-0.7, -1.2, -0.05], [-2.5], [-0.3, -0.9]]
TRAINED = [[True, False, True], [True], [False, True]]
MICRO_BATCHES_HELP = "the rows of each micro-batch of the step, a cut that must not matter"


def tempered(logits, temperature):
    return [(-math.inf if x is None else x) / temperature for x in logits]


def token_logprobs(logits, targets, temperature):
    return [log_softmax(tempered(row, temperature))[target] for row, target in zip(logits, targets, strict=True)]


def entropies(logits, temperature):
    return [abs(entropy(tempered(row, temperature))) for row in logits]  # abs: 0.0, not -0.0


def sft_loss(logprobs, trained, micro_batches):
    kept = [
        logprob
        for rows in micro_batches
        for row in rows
        for logprob, counts in zip(logprobs[row], trained[row], strict=True)
        if counts
    ]
    return -math.fsum(kept) / len(kept)


def label_smoothing(logits, targets, label_smoothing):
    losses = []
    for row, target in zip(logits, targets, strict=True):
        logprobs = log_softmax(row)
        wanted = [label_smoothing / len(row) + (1 - label_smoothing) * (i == target) for i in range(len(row))]
        losses.append(-math.fsum(q * logprob for q, logprob in zip(wanted, logprobs, strict=True)))
    return losses


def z_loss(logits, targets, z_coef):
    losses = []
    for row, target in zip(logits, targets, strict=True):
        normaliser = math.log(math.fsum(math.exp(x) for x in row))
        losses.append(normaliser - row[target] + z_coef * normaliser**2)
    return losses


QUANTITIES = [
    Quantity(
        name="token_logprobs",
        equation="log softmax(logits / temperature)[target]",
        source="definition; temperature in every pass: Huang et al. 2023 and 2024 (PPO details), policy 10",
        inputs={"logits": LOGITS_HELP, "targets": "[M]", "temperature": TEMPERATURE_HELP},
        output="log-probability of each target, nats, [M]",
        definition=token_logprobs,
        catches="The sampling temperature left out; an exponential that overflows.",
        cases={
            "temperature 1": {"logits": LOGITS, "targets": [0, 3, 1], "temperature": 1.0},
            "temperature 0.7": {"logits": LOGITS, "targets": [1, 0, 3], "temperature": 0.7},
            "temperature 2": {"logits": LOGITS, "targets": [2, 2, 2], "temperature": 2.0},
            "forbidden tokens": {"logits": FORBIDDEN, "targets": [0, 2], "temperature": 0.5},
            "large logits": {"logits": [[100.0, 98.0, 0.0]], "targets": [1], "temperature": 1.0},
        },
    ),
    Quantity(
        name="entropy",
        equation="-sum over the vocabulary of p log p, p = softmax(logits / temperature)",
        source="Shannon 1948; 0 log 0 = 0",
        inputs={"logits": LOGITS_HELP, "temperature": TEMPERATURE_HELP},
        output="entropy at each position, nats, [M]",
        definition=entropies,
        catches="nan where a token is forbidden: 0 times minus infinity.",
        cases={
            "temperature 1": {"logits": LOGITS, "temperature": 1.0},
            "temperature 0.7": {"logits": LOGITS, "temperature": 0.7},
            "uniform": {"logits": [[3.0] * 8], "temperature": 1.0},
            "forbidden tokens": {"logits": FORBIDDEN, "temperature": 1.0},
            "large logits": {"logits": [[100.0, 98.0, 0.0]], "temperature": 1.0},
        },
    ),
    Quantity(
        name="sft_loss",
        equation="-(sum of the log-probabilities of trained tokens) / (trained tokens of the whole step)",
        source="Ouyang et al. 2022, step 1; the denominator is that of the step: transformers#34191",
        inputs={
            "logprobs": "rows of log-probabilities, nats",
            "trained": "the same rows: whether the token is trained on; prompt tokens are not",
            "micro_batches": MICRO_BATCHES_HELP,
        },
        output="loss of the step, nats per token, one number",
        definition=sft_loss,
        catches=(
            "A mean of the means of micro-batches, or no division by their number (ColossalChat); prompt tokens in the "
            "loss (DeepSpeed-Chat)."
        ),
        cases={
            "one micro-batch": {"logprobs": LOGPROBS, "trained": TRAINED, "micro_batches": [[0, 1, 2]]},
            "uneven micro-batches": {"logprobs": LOGPROBS, "trained": TRAINED, "micro_batches": [[0], [1, 2]]},
            "row by row": {"logprobs": LOGPROBS, "trained": TRAINED, "micro_batches": [[2], [0], [1]]},
            "a micro-batch that trains nothing": {
                "logprobs": [[-0.7, -0.4], [-2.5]], "trained": [[False, False], [True]], "micro_batches": [[0], [1]],
            },
        },
    ),
    Quantity(
        name="label_smoothing",
        equation="-sum over the vocabulary of q log p, q = (1 - label_smoothing) one-hot + label_smoothing / V",
        source="Szegedy et al. 2016, section 7",
        inputs={"logits": "[M, V]", "targets": "[M]", "label_smoothing": "weight of the uniform distribution"},
        output="loss of each token, nats, [M]",
        definition=label_smoothing,
        cases={
            "0.1": {"logits": LOGITS, "targets": [0, 3, 2], "label_smoothing": 0.1},
            "0 is cross-entropy": {"logits": LOGITS, "targets": [1, 2, 0], "label_smoothing": 0.0},
        },
    ),
    Quantity(
        name="z_loss",
        equation="-log softmax(logits)[target] + z_coef * (log sum exp logits)^2",
        source="Chowdhery et al. 2022 (PaLM), section 5",
        inputs={"logits": "[M, V]", "targets": "[M]", "z_coef": "weight"},
        output="loss of each token, nats, [M]",
        definition=z_loss,
        cases={"0.01": {"logits": LOGITS, "targets": [0, 3, 2], "z_coef": 0.01}},
    ),
]  # fmt: skip
