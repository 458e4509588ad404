"""From scores to the losses of PPO, GRPO and their relatives."""

import math

from conformance.define import Quantity
from oracles import advantages, divergence, losses
from oracles.reductions import whiten

KL = {"logprobs": [-1.0, -2.0, -0.5], "reference_logprobs": [-1.2, -1.0, -0.6]}
KL_HELP = {
    "logprobs": "of sampled tokens under the policy, nats, [M]",
    "reference_logprobs": "of the same tokens under the reference, nats, [M]",
}
KL_SOURCE = "Schulman 2020, Approximating KL Divergence; tokens are sampled from the policy"
LENGTHS_HELP = "tokens of each response, a prefix of its row, [B]"
GROUPS = {"scores": [1.0, 0.0, 0.5, 0.5, -2.0, 3.0, 1.0, 1.0], "group_size": 4}
EQUAL_GROUPS = {"scores": [0.1] * 7 + [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3], "group_size": 7}
EQUAL_CATCHES = (
    "The rounding error of a mean of equal scores (seven times 0.1 in float32; 0 and 1 have none) is taken for an "
    "advantage: where no group teaches anything, Adam makes a step of it."
)
GROUPS_HELP = {
    "scores": "of the responses, those to one prompt side by side, [B]",
    "group_size": "responses per prompt",
}
TOKENS = {
    "logprobs": [-1.0, -0.6, -2.0, -1.0, -0.5, -3.0, -1.3],
    "old_logprobs": [-1.0, -1.0, -1.0, -1.1, -1.5, -1.0, -1.3],
    "advantages": [0.7, 1.5, 1.5, -1.0, -2.0, -2.0, 0.0],
}
TOKENS_HELP = {
    "logprobs": "of sampled tokens under the policy, nats, [M]",
    "old_logprobs": "the same before the first update",
    "advantages": "[M]",
}
CLIP_HELP = {
    "clip_eps_low": "the ratio is clipped below 1 - this",
    "clip_eps_high": "the ratio is clipped above 1 + this",
}
STEP = {"losses": [[0.5, -1.0, 2.0, 0.25], [3.0], [], [1.0, 1.0]]}
STEP_HELP = {
    "losses": "per response the losses of its tokens; a response may be empty",
    "micro_batches": "the responses of each micro-batch of the step, a cut that must not matter",
}
CUTS = {"one micro-batch": [[0, 1, 2, 3]], "two micro-batches": [[0, 1], [2, 3]]}


def each_token(formula):
    def on_lists(logprobs, reference_logprobs):
        return [formula(p - q) for p, q in zip(logprobs, reference_logprobs, strict=True)]

    return on_lists


def adaptive_kl(kl_coef, measured_kl, num_episodes, target, horizon):
    return divergence.adaptive_coefs(kl_coef, measured_kl, num_episodes, target, horizon)


def shaped_rewards(scores, logprobs, reference_logprobs, lengths, kl_coef):
    rows = zip(scores, logprobs, reference_logprobs, lengths, strict=True)
    return [advantages.shape_rewards(*row, kl_coef) for row in rows]


def gae(rewards, values, lengths, gamma, lam):
    rows = [advantages.gae(*row, gamma, lam) for row in zip(rewards, values, lengths, strict=True)]
    return {"advantages": [a for a, _ in rows], "returns": [r for _, r in rows]}


def whitened(values, mask, shift_mean):
    flat = whiten([v for row in values for v in row], [m for row in mask for m in row], shift_mean)
    width = len(values[0])
    return [flat[i : i + width] for i in range(0, len(flat), width)]


def grouped(formula):
    def on_groups(scores, group_size):
        return formula(scores, [i // group_size for i in range(len(scores))])

    return on_groups


def leave_one_out(scores, group):
    exact = advantages.group_advantages(scores, group, divide_by_std=False)  # 0 where the loop has a rounding error
    return [x and y for x, y in zip(exact, advantages.leave_one_out(scores, group), strict=True)]


def clipped_policy_loss(logprobs, old_logprobs, advantages, clip_eps_low, clip_eps_high):
    rows = zip(logprobs, old_logprobs, advantages, strict=True)
    return [losses.clipped_policy(*row, clip_eps_low, clip_eps_high)[0] for row in rows]


def dual_clip_policy_loss(dual_clip, **inputs):
    """A bad token never costs more than dual_clip times its advantage."""
    loss = clipped_policy_loss(**inputs)
    limits = [-dual_clip * a if a < 0 else math.inf for a in inputs["advantages"]]
    return [min(pair) for pair in zip(loss, limits, strict=True)]


def clipped_value_loss(values, old_values, returns, value_clip):
    return [losses.clipped_value(*row, value_clip) for row in zip(values, old_values, returns, strict=True)]


def importance_weights(trainer_logprobs, sampler_logprobs, cap):
    return [min(cap, math.exp(t - s)) for t, s in zip(trainer_logprobs, sampler_logprobs, strict=True)]


def token_mean(losses, micro_batches):
    tokens = [loss for rows in micro_batches for row in rows for loss in losses[row]]
    return math.fsum(tokens) / len(tokens)


def response_mean(losses, micro_batches):
    responses = [losses[row] for rows in micro_batches for row in rows]
    return math.fsum(math.fsum(tokens) / len(tokens) for tokens in responses if tokens) / len(responses)


def constant(losses, micro_batches, max_response_tokens):
    tokens = [loss for rows in micro_batches for row in rows for loss in losses[row]]
    return math.fsum(tokens) / (sum(len(rows) for rows in micro_batches) * max_response_tokens)


KLS = [
    Quantity(
        name="kl_k1",
        equation="log(policy / reference)",
        source=KL_SOURCE,
        inputs=KL_HELP,
        output="estimate of KL(policy || reference) from each token, nats, of either sign, [M]",
        definition=each_token(lambda log_ratio: log_ratio),
        cases={"published": KL},
        published={"published": [0.2, -1.0, 0.1]},
    ),
    Quantity(
        name="kl_k2",
        equation="log(policy / reference)^2 / 2",
        source=KL_SOURCE,
        inputs=KL_HELP,
        output="estimate of KL(policy || reference) from each token, nats, never negative, [M]",
        definition=each_token(lambda log_ratio: log_ratio**2 / 2),
        cases={"published": KL},
        published={"published": [0.02, 0.5, 0.005]},
    ),
    Quantity(
        name="kl_k3",
        equation="r - 1 - log r, r = reference / policy",
        source=KL_SOURCE,
        inputs=KL_HELP,
        output="estimate of KL(policy || reference) from each token, nats, never negative, [M]",
        definition=each_token(lambda log_ratio: math.expm1(-log_ratio) + log_ratio),
        catches="r the wrong way round: the estimate is then one of another divergence.",
        cases={"published": KL},
        published={"published": [0.0187, 0.7183, 0.0048]},
    ),
    Quantity(
        name="adaptive_kl",
        equation="coef <- coef * (1 + clip(kl / target - 1, -0.2, 0.2) * num_episodes / horizon)",
        source="Ziegler et al. 2019, section 2.2",
        inputs={
            "kl_coef": "the coefficient at the start",
            "measured_kl": "of each iteration, nats per response, [I]",
            "num_episodes": "responses per iteration",
            "target": "nats per response",
            "horizon": "episodes",
        },
        output="the coefficient after each iteration, [I]",
        definition=adaptive_kl,
        cases={
            "ten iterations": {
                "kl_coef": 0.15, "measured_kl": [0.0, 3.0, 5.0, 5.9, 6.0, 6.5, 8.0, 30.0, 6.0, -1.0],
                "num_episodes": 64, "target": 6.0, "horizon": 10000.0,
            },
        },
    ),
]  # fmt: skip

ADVANTAGES = [
    Quantity(
        name="shaped_rewards",
        equation="-kl_coef * log(policy / reference) on every response token, plus the score on the last one",
        source="Ziegler et al. 2019, section 2; Ouyang et al. 2022, eq. 2",
        inputs={
            "scores": "one per response, [B]",
            "logprobs": "under the policy that sampled, nats, [B, R]",
            "reference_logprobs": "under the reference, nats, [B, R]",
            "lengths": LENGTHS_HELP,
            "kl_coef": "weight of the KL",
        },
        output="reward of each token, 0 after the response, [B, R]",
        definition=shaped_rewards,
        catches="The score on every token instead of the last one: 2, 2, 2, 0 in the first case (ColossalChat).",
        cases={
            "score 2, mask 1110": {
                "scores": [2.0], "logprobs": [[-1.0, -1.0, -1.0, -9.0]],
                "reference_logprobs": [[-1.0, -1.0, -1.0, -2.0]], "lengths": [3], "kl_coef": 0.1,
            },
            "two lengths": {
                "scores": [0.5, -1.5], "logprobs": [[-0.5, -1.5, -2.0], [-0.1, -0.2, -0.3]],
                "reference_logprobs": [[-0.75, -1.0, -2.5], [-0.2, -0.1, -0.4]], "lengths": [3, 1], "kl_coef": 0.2,
            },
            "an empty response": {
                "scores": [1.0, 1.0], "logprobs": [[-0.5, -0.5], [-0.5, -0.5]],
                "reference_logprobs": [[-0.7, -0.7], [-0.7, -0.7]], "lengths": [0, 2], "kl_coef": 0.1,
            },
        },
        published={"score 2, mask 1110": [[0.0, 0.0, 2.0, 0.0]]},
    ),
    Quantity(
        name="gae",
        equation="A_t = sum over l of (gamma lam)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} - V_t; return = A + V",
        source="Schulman et al. 2016, eq. 16",
        inputs={
            "rewards": "[B, R]",
            "values": "of the state before each token; the state after the last one has value 0, [B, R]",
            "lengths": LENGTHS_HELP,
            "gamma": "discount",
            "lam": "lambda",
        },
        output="advantages and returns, 0 after the response, each [B, R]",
        definition=gae,
        catches="Values behind the end of a response, or values one token off (ColossalChat).",
        cases={
            "gamma 1, lambda 0.95": {
                "rewards": [[0.1, -0.2, 0.3, 1.0], [0.0, 2.0, 7.0, 7.0]],
                "values": [[0.5, 0.4, -0.1, 0.2], [1.0, -1.0, 9.0, 9.0]],
                "lengths": [4, 2], "gamma": 1.0, "lam": 0.95,
            },
            "gamma 0.9, lambda 0.5": {
                "rewards": [[0.1, -0.2, 0.3, 1.0]], "values": [[0.5, 0.4, -0.1, 0.2]],
                "lengths": [4], "gamma": 0.9, "lam": 0.5,
            },
            "lambda 0: the TD error": {
                "rewards": [[0.0, 1.0, 2.0]], "values": [[0.5, 0.25, 0.125]], "lengths": [3], "gamma": 1.0, "lam": 0.0,
            },
            "lambda 1: return minus value": {
                "rewards": [[0.0, 1.0, 2.0]], "values": [[0.5, 0.25, 0.125]], "lengths": [3], "gamma": 1.0, "lam": 1.0,
            },
        },
    ),
    Quantity(
        name="whiten",
        equation="(x - mean) / sqrt(variance + 1e-8), plus the mean unless shift_mean; variance = mean of (x - mean)^2",
        source="lm-human-preferences (Ziegler et al. 2019), whiten; Huang et al. 2023, policy 18",
        inputs={"values": "[B, R]", "mask": "what counts, [B, R]", "shift_mean": "whether the mean becomes 0"},
        output="whitened values, 0 where the mask is false, [B, R]",
        definition=whitened,
        catches=(
            "shift_mean the wrong way round (torchtune); the unbiased variance: 0.1394, 0.5046, 0.8697 in the first "
            "row of the first case (TRL's PPO)."
        ),
        cases={
            "published matrix, mean kept": {
                "values": [[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]], "mask": [[True] * 3] * 3,
                "shift_mean": False,
            },
            "published matrix, mean shifted": {
                "values": [[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]], "mask": [[True] * 3] * 3,
                "shift_mean": True,
            },
            "masked": {
                "values": [[1.0, -2.0, 99.0], [4.0, -77.0, 0.5]], "mask": [[True, True, False], [True, False, True]],
                "shift_mean": True,
            },
        },
        published={
            "published matrix, mean kept": [[0.0508, 0.4381, 0.8254]],
        },
    ),
    Quantity(
        name="group_advantages",
        equation="score - mean of its group",
        source="Liu et al. 2025 (Dr. GRPO)",
        inputs=GROUPS_HELP,
        output="advantage of each response, [B]",
        definition=grouped(lambda scores, group: advantages.group_advantages(scores, group, divide_by_std=False)),
        catches=EQUAL_CATCHES,
        cases={"two groups": GROUPS, "equal scores: exactly 0": EQUAL_GROUPS},
        exact=("equal scores: exactly 0",),
    ),
    Quantity(
        name="group_advantages_std",
        equation="(score - mean of its group) / (deviation of its group + 1e-4), the deviation with K - 1",
        source="Shao et al. 2024 (GRPO), section 4.1.2; K - 1 and 1e-4 as in TRL: the paper leaves both open",
        inputs=GROUPS_HELP,
        output="advantage of each response, [B]",
        definition=grouped(lambda scores, group: advantages.group_advantages(scores, group, divide_by_std=True)),
        catches=EQUAL_CATCHES + " Divided by 1e-4 it is 7e-5.",
        cases={"two groups": GROUPS, "equal scores: exactly 0": EQUAL_GROUPS},
        exact=("equal scores: exactly 0",),
    ),
    Quantity(
        name="leave_one_out",
        equation="score - mean of the other scores of its group",
        source="Ahmadian et al. 2024 (RLOO), eq. 6",
        inputs=GROUPS_HELP,
        output="advantage of each response, [B]",
        definition=grouped(leave_one_out),
        catches=EQUAL_CATCHES,
        cases={"two groups": GROUPS, "equal scores: exactly 0": EQUAL_GROUPS},
        exact=("equal scores: exactly 0",),
    ),
    Quantity(
        name="overlong_penalty",
        equation="0 up to max - soft tokens, then ((max - soft) - length) / soft, -1 beyond max",
        source="Yu et al. 2025 (DAPO), eq. 13",
        inputs={
            "lengths": "tokens of each response, [B]",
            "max_response_tokens": "max",
            "soft_tokens": "soft, the length of the slope",
        },
        output="penalty of each response, [B]",
        definition=lambda lengths, max_response_tokens, soft_tokens: [
            advantages.overlong_penalty(length, max_response_tokens, soft_tokens) for length in lengths
        ],
        cases={
            "around both ends": {
                "lengths": [1, 80, 81, 90, 99, 100, 120], "max_response_tokens": 100, "soft_tokens": 20,
            },
        },
    ),
]  # fmt: skip

LOSSES = [
    Quantity(
        name="clipped_policy_loss",
        equation="max(-A ratio, -A clip(ratio, 1 - low, 1 + high)), ratio = exp(logprobs - old_logprobs)",
        source="Schulman et al. 2017, eq. 7; two widths: Yu et al. 2025 (DAPO)",
        inputs=TOKENS_HELP | CLIP_HELP,
        output="loss of each token, [M]",
        definition=clipped_policy_loss,
        cases={
            "equal widths": TOKENS | {"clip_eps_low": 0.2, "clip_eps_high": 0.2},
            "clip higher": TOKENS | {"clip_eps_low": 0.2, "clip_eps_high": 0.28},
        },
    ),
    Quantity(
        name="dual_clip_policy_loss",
        equation="the clipped loss, at most dual_clip |A| where A < 0",
        source="Ye et al. 2020, eq. 5",
        inputs=TOKENS_HELP | CLIP_HELP | {"dual_clip": "above 1"},
        output="loss of each token, [M]",
        definition=dual_clip_policy_loss,
        cases={
            "2": TOKENS | {"clip_eps_low": 0.2, "clip_eps_high": 0.2, "dual_clip": 2.0},
            "3": TOKENS | {"clip_eps_low": 0.2, "clip_eps_high": 0.28, "dual_clip": 3.0},
        },
    ),
    Quantity(
        name="clipped_value_loss",
        equation="max((V - return)^2, (old + clip(V - old, -value_clip, value_clip) - return)^2) / 2",
        source="the code of PPO (OpenAI baselines, lm-human-preferences); not in the paper",
        inputs={
            "values": "of the critic, [M]",
            "old_values": "the same before the first update",
            "returns": "[M]",
            "value_clip": "how far a value may move",
        },
        output="loss of each token, [M]",
        definition=clipped_value_loss,
        catches="The smaller of the two errors; the half left out.",
        cases={
            "0.2": {
                "values": [1.0, 2.0, -1.0, 0.3], "old_values": [1.1, 0.5, 0.5, 0.3], "returns": [1.5, 2.0, 1.0, 0.0],
                "value_clip": 0.2,
            },
        },
    ),
    Quantity(
        name="aggregate_token_mean",
        equation="sum of all token losses of the step / number of its tokens",
        source="Yu et al. 2025 (DAPO), eq. 8",
        inputs=STEP_HELP,
        output="loss of the step, one number",
        definition=token_mean,
        catches="A mean of the means of micro-batches.",
        cases={name: STEP | {"micro_batches": cut} for name, cut in CUTS.items()},
    ),
    Quantity(
        name="aggregate_response_mean",
        equation="mean over the responses of the mean over their tokens; an empty response counts with 0",
        source="Shao et al. 2024 (GRPO), eq. 3",
        inputs=STEP_HELP,
        output="loss of the step, one number",
        definition=response_mean,
        cases={name: STEP | {"micro_batches": cut} for name, cut in CUTS.items()},
    ),
    Quantity(
        name="aggregate_constant",
        equation="sum of all token losses of the step / (responses * max_response_tokens)",
        source="Liu et al. 2025 (Dr. GRPO)",
        inputs=STEP_HELP | {"max_response_tokens": "the longest response that was allowed"},
        output="loss of the step, one number",
        definition=constant,
        cases={name: STEP | {"micro_batches": cut, "max_response_tokens": 6} for name, cut in CUTS.items()},
    ),
    Quantity(
        name="importance_weights",
        equation="min(cap, exp(trainer_logprobs - sampler_logprobs))",
        source="Ionides 2008; Yao et al. 2025",
        inputs={
            "trainer_logprobs": "of sampled tokens, recomputed by the trainer, nats, [M]",
            "sampler_logprobs": "the same as the sampler reported them",
            "cap": "largest weight",
        },
        output="factor of each token's loss, [M]",
        definition=importance_weights,
        cases={
            "cap 2": {
                "trainer_logprobs": [-1.0, -0.5, -3.0, -0.1], "sampler_logprobs": [-1.0, -0.7, -1.0, -4.0], "cap": 2.0,
            },
        },
    ),
]  # fmt: skip

QUANTITIES = KLS + ADVANTAGES + LOSSES
