"""Losses that learn from preferences: of a reward model, and of a policy without one."""

import math
from itertools import combinations

from conformance.define import Quantity
from oracles import losses
from oracles.losses import negative_log_sigmoid

SCORES = {"chosen": [1.5, -0.3, 2.0], "rejected": [0.2, 0.9, 2.0]}
FAR = {"chosen": [100.0, -100.0, 1000.0, -1000.0], "rejected": [0.0, 0.0, 0.0, 0.0]}
SCORES_HELP = {"chosen": "score of the chosen response, [P]", "rejected": "score of the rejected one, [P]"}
MARGIN_HELP = "how much higher the chosen response shall score"

# Published values: the code of the DPO paper run on these numbers.
GOLDEN = {
    "policy_chosen": [-10.0, -5.0], "policy_rejected": [-12.0, -4.0],
    "reference_chosen": [-11.0, -5.5], "reference_rejected": [-11.5, -4.5],
}  # fmt: skip
LONG = {
    "policy_chosen": [-31.25, -8.5, -120.0], "policy_rejected": [-29.5, -64.0, -119.0],
    "reference_chosen": [-33.5, -8.25, -110.0], "reference_rejected": [-27.75, -61.0, -125.5],
}  # fmt: skip
EQUAL = {
    "policy_chosen": [-7.0], "policy_rejected": [-9.0], "reference_chosen": [-7.0], "reference_rejected": [-9.0],
}  # fmt: skip
LENGTHS = {"chosen_tokens": [12, 5, 40], "rejected_tokens": [9, 31, 40]}
PAIR_HELP = {
    "policy_chosen": "log-probability of the whole chosen response under the policy, nats, [P]",
    "policy_rejected": "the same of the rejected response",
    "reference_chosen": "log-probability of the whole chosen response under the frozen reference, nats, [P]",
    "reference_rejected": "the same of the rejected response",
}
LENGTHS_HELP = {"chosen_tokens": "tokens of the chosen response, [P]", "rejected_tokens": "tokens of the rejected one"}
BETA_HELP = {"beta": "strength of the pull to the reference"}
FLIPPED_HELP = {"label_smoothing": "probability that a label is flipped, below 0.5"}
MEANS_HELP = {
    "chosen": "mean log-probability per token of the chosen response, nats, [P]",
    "rejected": "the same of the rejected response",
}
H = "h = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)"
H_MEAN = (
    "h = (policy_chosen - reference_chosen) / chosen_tokens - (policy_rejected - reference_rejected) / rejected_tokens"
)


def each_pair(formula):
    """A definition on lists from one on the numbers of a pair; options stay as they are."""

    def on_lists(**inputs):
        columns = {name: value for name, value in inputs.items() if isinstance(value, list)}
        options = {name: value for name, value in inputs.items() if name not in columns}
        rows = zip(*columns.values(), strict=True)
        return [formula(**dict(zip(columns, row, strict=True)), **options) for row in rows]

    return on_lists


def log_sig(chosen, rejected, margin):
    return negative_log_sigmoid(chosen - rejected - margin)


def centred(chosen, rejected, centring_coef):
    return negative_log_sigmoid(chosen - rejected) + centring_coef * (chosen + rejected) ** 2


def k_wise(scores):
    prompts = []
    for ranked in scores:
        pairs = [negative_log_sigmoid(better - worse) for better, worse in combinations(ranked, 2)]
        prompts.append(math.fsum(pairs) / len(pairs))
    return math.fsum(prompts) / len(prompts)


def margin_of(policy_chosen, policy_rejected, reference_chosen, reference_rejected):
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def dpo(*, label_smoothing=0.0, **pair):
    return losses.dpo(**pair, label_smoothing=label_smoothing)[0]


def robust(*, beta, label_smoothing, **pair):
    return losses.robust_dpo(beta * margin_of(**pair), label_smoothing=label_smoothing)


def hinge(*, beta, **pair):
    return losses.hinge(beta * margin_of(**pair))


def per_token(formula):
    """The same loss on mean log-probabilities per token."""

    def on_means(*, policy_chosen, policy_rejected, reference_chosen, reference_rejected, chosen_tokens,
                 rejected_tokens, beta):  # fmt: skip
        return formula(
            policy_chosen=policy_chosen / chosen_tokens, policy_rejected=policy_rejected / rejected_tokens,
            reference_chosen=reference_chosen / chosen_tokens, reference_rejected=reference_rejected / rejected_tokens,
            beta=beta,
        )  # fmt: skip

    return on_means


def odds_ratio(chosen, rejected):
    # 1 - e^x near x = 0 by expm1: 1 - exp(x) itself would lose its digits.
    log_odds = [x - math.log(-math.expm1(x)) for x in (chosen, rejected)]
    return negative_log_sigmoid(log_odds[0] - log_odds[1])


def kto(policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight):
    options = {"beta": beta, "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    return [losses.kto(*row, kl, **options) for row in zip(policy, reference, desirable, strict=True)]


REWARD = [
    Quantity(
        name="reward_log_sig",
        equation="-log sigmoid(chosen - rejected - margin)",
        source="Bradley & Terry 1952; Ouyang et al. 2022, eq. 1; margin: Touvron et al. 2023, eq. 2",
        inputs=SCORES_HELP | {"margin": MARGIN_HELP},
        output="loss of each pair, [P]",
        definition=each_pair(log_sig),
        cases={
            "no margin": SCORES | {"margin": 0.0},
            "margin": SCORES | {"margin": 0.5},
            "equal scores: ln 2": {"chosen": [0.7], "rejected": [0.7], "margin": 0.0},
            "far apart": FAR | {"margin": 0.0},
        },
        published={"equal scores: ln 2": [0.6931]},
    ),
    Quantity(
        name="reward_log_exp",
        equation="log(1 + exp(rejected - chosen + margin))",
        source="the same loss as log_sig in another form, named so by ColossalChat and OpenRLHF",
        inputs=SCORES_HELP | {"margin": MARGIN_HELP},
        output="loss of each pair, [P]",
        definition=each_pair(log_sig),
        catches="Infinite at a difference of 100, where the exponential overflows (ColossalChat).",
        cases={
            "no margin": SCORES | {"margin": 0.0},
            "margin": SCORES | {"margin": 0.5},
            "far apart": FAR | {"margin": 0.0},
        },
    ),
    Quantity(
        name="reward_centred",
        equation="-log sigmoid(chosen - rejected) + centring_coef * (chosen + rejected)^2",
        source="Eisenstein et al. 2023, eq. 2",
        inputs=SCORES_HELP | {"centring_coef": "weight of the centring"},
        output="loss of each pair, [P]",
        definition=each_pair(centred),
        cases={"0.01": SCORES | {"centring_coef": 0.01}, "0.5": SCORES | {"centring_coef": 0.5}},
    ),
    Quantity(
        name="k_wise",
        equation="mean over prompts of (mean over the K(K-1)/2 pairs of -log sigmoid(better - worse))",
        source="Ouyang et al. 2022, eq. 1",
        inputs={"scores": "per prompt the scores of its K responses, best first; K may differ"},
        output="loss of the step, one number",
        definition=k_wise,
        catches="Every pair counts the same, so that a prompt with nine responses weighs as much as 36 with two.",
        cases={
            "K of 2, 3 and 4": {"scores": [[0.5, -0.5], [1.0, 0.2, 0.4], [2.0, 1.0, 0.5, -1.0]]},
            "pairs alone": {"scores": [[0.3, 0.1], [-1.0, 1.0]]},
        },
    ),
    Quantity(
        name="score_head_std",
        equation="1 / sqrt(width + 1)",
        source="Stiennon et al. 2020 as OpenAI ran it; Huang et al. 2023, reward 8",
        inputs={"width": "size of the hidden states"},
        output="standard deviation of a new score head's weights, one number",
        definition=lambda width: 1 / math.sqrt(width + 1),
        catches="1 / (width + 1), the paper's misprint, as a deviation (ColossalChat).",
        cases={"576": {"width": 576}, "4096": {"width": 4096}},
    ),
]

PREFERENCE = [
    Quantity(
        name="dpo",
        equation=f"-log sigmoid(beta h), {H}",
        source="Rafailov et al. 2023, eq. 7",
        inputs=PAIR_HELP | BETA_HELP,
        output="loss of each pair, [P]",
        definition=each_pair(dpo),
        cases={
            "golden": GOLDEN | {"beta": 0.1},
            "long responses": LONG | {"beta": 0.3},
            "policy is reference: ln 2": EQUAL | {"beta": 0.1},
        },
        published={"golden": [0.6210, 0.6931], "policy is reference: ln 2": [0.6931]},
    ),
    Quantity(
        name="conservative_dpo",
        equation=f"-(1 - label_smoothing) log sigmoid(beta h) - label_smoothing log sigmoid(-beta h), {H}",
        source="Mitchell 2023",
        inputs=PAIR_HELP | BETA_HELP | FLIPPED_HELP,
        output="loss of each pair, [P]",
        definition=each_pair(dpo),
        cases={
            "golden": GOLDEN | {"beta": 0.1, "label_smoothing": 0.1},
            "long responses": LONG | {"beta": 0.3, "label_smoothing": 0.25},
        },
        published={"golden": [0.6360, 0.6931]},
    ),
    Quantity(
        name="robust_dpo",
        equation=(
            "(-(1 - label_smoothing) log sigmoid(beta h) + label_smoothing log sigmoid(-beta h)) / "
            f"(1 - 2 label_smoothing), {H}"
        ),
        source="Chowdhury et al. 2024, eq. 12",
        inputs=PAIR_HELP | BETA_HELP | FLIPPED_HELP,
        output="loss of each pair, of either sign, [P]",
        definition=each_pair(robust),
        cases={
            "0.1": GOLDEN | {"beta": 0.1, "label_smoothing": 0.1},
            "long responses": LONG | {"beta": 0.3, "label_smoothing": 0.25},
        },
    ),
    Quantity(
        name="length_normalised_dpo",
        equation=f"-log sigmoid(beta h), {H_MEAN}",
        source="Lambert et al. 2024 (Tulu 3)",
        inputs=PAIR_HELP | LENGTHS_HELP | BETA_HELP,
        output="loss of each pair, [P]",
        definition=each_pair(per_token(dpo)),
        cases={"lengths differ": LONG | LENGTHS | {"beta": 5.0}},
    ),
    Quantity(
        name="ipo",
        equation=f"(h - 1 / (2 beta))^2, {H}",
        source="Azar et al. 2023, eq. 17 (beta is tau)",
        inputs=PAIR_HELP | BETA_HELP,
        output="loss of each pair, [P]",
        definition=each_pair(losses.ipo),
        cases={"golden": GOLDEN | {"beta": 0.1}, "long responses": LONG | {"beta": 0.5}},
        published={"golden": [12.25, 25.0]},
    ),
    Quantity(
        name="length_normalised_ipo",
        equation=f"(h - 1 / (2 beta))^2, {H_MEAN}",
        source="IPO on mean log-probabilities, as TRL has it after asking the authors",
        inputs=PAIR_HELP | LENGTHS_HELP | BETA_HELP,
        output="loss of each pair, [P]",
        definition=each_pair(per_token(losses.ipo)),
        cases={"lengths differ": LONG | LENGTHS | {"beta": 0.5}},
    ),
    Quantity(
        name="hinge",
        equation=f"max(0, 1 - beta h), {H}",
        source="Zhao et al. 2023 (SLiC); this form: Liu et al. 2024 (RSO), eq. 9",
        inputs=PAIR_HELP | BETA_HELP,
        output="loss of each pair, [P]",
        definition=each_pair(hinge),
        cases={"golden": GOLDEN | {"beta": 0.1}, "both sides of the hinge": LONG | {"beta": 0.5}},
    ),
    Quantity(
        name="simpo",
        equation="-log sigmoid(beta (chosen - rejected) - gamma)",
        source="Meng et al. 2024, eq. 6",
        inputs=MEANS_HELP | {"beta": "scale of the margin", "gamma": "how far the chosen response shall be ahead"},
        output="loss of each pair, [P]",
        definition=each_pair(losses.simpo),
        cases={
            "beta 2, gamma 1": {"chosen": [-0.8, -1.9], "rejected": [-1.5, -1.1], "beta": 2.0, "gamma": 1.0},
            "no gamma": {"chosen": [-0.8, -1.9], "rejected": [-1.5, -1.1], "beta": 10.0, "gamma": 0.0},
        },
    ),
    Quantity(
        name="odds_ratio",
        equation="-log sigmoid(log odds(chosen) - log odds(rejected)), odds = p / (1 - p), p = exp(mean logprob)",
        source="Hong et al. 2024 (ORPO), eqs. 4 and 7",
        inputs=MEANS_HELP,
        output="loss of each pair, without lambda, [P]",
        definition=each_pair(odds_ratio),
        catches=(
            "Odds of single tokens averaged over the batch, in bfloat16 (ColossalChat); 1 - p rounded to 0 where a "
            "response is all but certain."
        ),
        cases={
            "usual": {"chosen": [-0.8, -1.9, -0.05], "rejected": [-1.5, -1.1, -3.0]},
            "all but certain": {"chosen": [-1e-4, -1e-7], "rejected": [-0.5, -1e-5]},
            "all but impossible": {"chosen": [-60.0], "rejected": [-58.0]},
        },
    ),
    Quantity(
        name="kto",
        equation=(
            "weight (1 - sigmoid(beta (policy - reference - z))) if desirable, else "
            "weight (1 - sigmoid(beta (z - policy + reference))), z = max(0, kl)"
        ),
        source="Ethayarajh et al. 2024, eqs. 7 and 8",
        inputs={
            "policy": "log-probability of the whole response under the policy, nats, [S]",
            "reference": "the same under the frozen reference",
            "desirable": "whether the response is a good one, [S]",
            "kl": "estimate of KL(policy || reference), nats, of either sign",
            "beta": BETA_HELP["beta"],
            "desirable_weight": "weight of good responses",
            "undesirable_weight": "weight of bad ones",
        },
        output="loss of each response, [S]",
        definition=kto,
        catches="A negative estimate of the KL that is not held at 0.",
        cases={
            "positive KL": {
                "policy": [-20.0, -31.0, -14.5], "reference": [-22.0, -30.0, -14.5], "desirable": [True, False, True],
                "kl": 0.75, "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.33,
            },
            "negative estimate": {
                "policy": [-20.0, -31.0], "reference": [-22.0, -30.0], "desirable": [False, True],
                "kl": -3.0, "beta": 0.5, "desirable_weight": 2.0, "undesirable_weight": 1.0,
            },
        },
    ),
]  # fmt: skip

QUANTITIES = REWARD + PREFERENCE
