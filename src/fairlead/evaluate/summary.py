"""What `evaluation.json` holds: every number a stage is judged by, with its interval.

One file is one `Evaluation`, written and read by `write_evaluation` and `read_evaluation`. Fields that begin with
`parent_` are the parent model measured on the same rows in the same way, so a report never compares two set-ups:

    {"stage": {"stage": "ppo", "kind": "policy", "model": "...", "parent": "01-sft", "sizes": {"episodes": 512}},
     "likelihoods": [{"name": "Chinese replies", "loss": 2.1, "perplexity": 8.2, "num_tokens": 4096}],
     "parent_likelihoods": [...], "preferences": [{"name": "held-out pairs", "accuracy": 0.79, "low": ..., ...}],
     "grades": [{"name": "graded", "pearson": 0.61, "mean_squared_error": 0.7, ...}],
     "rewards": {"num_prompts": 128, "paired_difference": 0.6, ...}, "scores": [...], "parent_scores": [...],
     "successes": [{"verifier": "maths_answer", "rate": 0.9, "low": ..., "high": ..., "right": [...], "gain": {...}}],
     "probes": {...}, "parent_probes": {...}, "kl": {"mean_sequence_kl": 3.1, "low": 2.8, "high": 3.4},
     "answers": [{"prompt": "...", "reply": "...", "parent_reply": "...", "score": 1.2, "parent_score": 0.1}],
     "notes": ["2 of 40 prompts are left out: ..."]}

Losses and KL are in nats, lengths in tokens, times in seconds. Intervals are 95 %.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
from pydantic import TypeAdapter, ValidationError

from fairlead.algos.agreement import (
    LengthBias,
    MarginGroup,
    ReliabilityBin,
    by_margin,
    calibration_error,
    fisher_interval,
    length_bias,
    pearson,
    reliability,
    spearman,
)
from fairlead.algos.intervals import bootstrap_mean, wilson
from fairlead.artifacts.atomic import write_json
from fairlead.errors import ExitCode, UserError

CHINESE_REPLIES = "Chinese replies"
"""Name of the likelihood on held-out Chinese rows, by which the journey's headline finds it."""
ENGLISH_REPLIES = "English replies"
"""Name of the likelihood on held-out English rows."""

LengthRule = Literal["shorter wins", "longer wins"]
Scorer = Literal["reward model", "log-probability", "log-ratio"]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How well a model predicts held-out replies, per trained token."""

    name: str
    loss: float  # nats per token
    perplexity: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Whether a reward model's scores can be trusted beyond their order; see algos/agreement.py."""

    reliability: tuple[ReliabilityBin, ...]
    calibration_error: float  # 0: right as often as it says
    by_margin: tuple[MarginGroup, ...]
    length: LengthBias


@dataclass(frozen=True, slots=True)
class PreferenceAccuracy:
    """How often chosen scores above rejected (a tie is half a hit), beside the best rule that sees only lengths."""

    name: str
    accuracy: float
    low: float
    high: float
    num_pairs: int
    length_rule: LengthRule
    length_rule_accuracy: float
    mean_margin: float  # chosen minus rejected
    score_std: float  # over all responses; near 0 means a collapsed reward model
    scorer: Scorer = "reward model"  # or what the policy says of the whole response, alone or over its reference
    diagnostics: Diagnostics | None = None  # of a reward model


@dataclass(frozen=True, slots=True)
class GradeAgreement:
    """A reward model's scores beside the grades that people gave the same responses."""

    name: str
    num_responses: int
    pearson: float
    low: float  # 95 % interval of it
    high: float
    spearman: float
    mean_squared_error: float | None  # in variances of the training grades; None if it learnt no grades


@dataclass(frozen=True, slots=True)
class RewardComparison:
    """Scores of two policies' responses to the same prompts, one response each."""

    num_prompts: int
    mean_parent: float
    mean_child: float
    paired_difference: float
    low: float
    high: float
    effect_in_sd: float | None  # paired_difference / standard deviation of the parent's scores; None if that is 0
    win_rate: float  # a tie is half a win
    win_low: float
    win_high: float
    ties: int


@dataclass(frozen=True, slots=True)
class SuccessGain:
    """The parent's success rate on the same prompts, and the paired difference to it with its bootstrap interval."""

    parent_rate: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Success:
    """How often a verifier finds an answer right, one answer to each prompt; the rate with its Wilson interval."""

    verifier: str
    rate: float
    low: float
    high: float
    right: tuple[bool, ...]  # by prompt
    gain: SuccessGain | None = None  # without a parent there is none


@dataclass(frozen=True, slots=True)
class Probes:
    """Signs of a broken policy; `longest_repeat` is the mean over responses."""

    num_responses: int
    distinct_1: float
    distinct_2: float
    longest_repeat: float
    longest_repeat_max: int
    mean_length: float
    end_token_rate: float
    end_token_low: float
    end_token_high: float


@dataclass(frozen=True, slots=True)
class Kl:
    """Mean KL of whole responses from policy to reference, nats per response."""

    mean_sequence_kl: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One held-out prompt, answered by the model and by its parent.

    Scores are the reward model's, else 1 for an answer that the first verifier finds right and 0 for another.
    """

    prompt: str
    reply: str
    parent_reply: str | None = None
    score: float | None = None
    parent_score: float | None = None


@dataclass(frozen=True, slots=True)
class StageSummary:
    """What was measured. The clock's figures may stay 0: reports then read them from the manifest."""

    stage: str  # sft, reward, ppo, dpo, kto, eval
    kind: str  # policy, reward
    model: str = ""  # name of the stage's folder, such as "01-sft"
    parent: str = ""  # name of the parent's folder, or of the starting weights
    wall_seconds: float = 0.0
    peak_memory_bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)  # such as {"rows": 330, "tokens": 81234, "episodes": 512}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything measured about one model; what was not measured is empty."""

    stage: StageSummary
    likelihoods: tuple[Likelihood, ...] = ()
    parent_likelihoods: tuple[Likelihood, ...] = ()
    preferences: tuple[PreferenceAccuracy, ...] = ()  # the first carries the claim, further ones inform
    grades: tuple[GradeAgreement, ...] = ()
    rewards: RewardComparison | None = None
    scores: tuple[float, ...] = ()
    parent_scores: tuple[float, ...] = ()
    successes: tuple[Success, ...] = ()  # the first carries the claim, further ones inform
    probes: Probes | None = None
    parent_probes: Probes | None = None
    kl: Kl | None = None
    answers: tuple[Answer, ...] = ()
    notes: tuple[str, ...] = ()  # which rows could not be measured and why; which figures may be chance


def likelihood(name: str, total_loss: float, num_tokens: int) -> Likelihood:
    """Loss and perplexity from the summed negative logprobs (nats) of `num_tokens` trained tokens."""
    if num_tokens < 1:
        raise ValueError(f"{name}: no trained tokens to measure")
    loss = total_loss / num_tokens
    return Likelihood(name, loss, math.exp(loss), num_tokens)


def best_length_rule(chosen_lengths: Sequence[int], rejected_lengths: Sequence[int]) -> tuple[LengthRule, float]:
    """The better of "shorter wins" and "longer wins" on these pairs and its accuracy, a tie counted as half."""
    if not chosen_lengths:
        raise ValueError("no pairs to measure")
    pairs = list(zip(chosen_lengths, rejected_lengths, strict=True))
    shorter = sum(_half_credit(rejected, chosen) for chosen, rejected in pairs) / len(pairs)
    return ("shorter wins", shorter) if shorter > 0.5 else ("longer wins", 1.0 - shorter)


def preference_accuracy(
    name: str,
    chosen_scores: Sequence[float],
    rejected_scores: Sequence[float],
    chosen_lengths: Sequence[int],
    rejected_lengths: Sequence[int],
    *,
    scorer: Scorer = "reward model",
) -> PreferenceAccuracy:
    """Accuracy of scores on pairs with a Wilson interval, beside the best length-only rule on the same pairs."""
    rule, rule_accuracy = best_length_rule(chosen_lengths, rejected_lengths)
    num_pairs = len(chosen_lengths)
    hits = sum(_half_credit(chosen, rejected) for chosen, rejected in zip(chosen_scores, rejected_scores, strict=True))
    chosen, rejected = np.asarray(chosen_scores, np.float64), np.asarray(rejected_scores, np.float64)
    if len(chosen) != num_pairs:
        raise ValueError(f"{name}: {len(chosen)} scored pairs but {num_pairs} lengths")
    low, high = wilson(hits, num_pairs)
    return PreferenceAccuracy(
        name=name,
        accuracy=hits / num_pairs,
        low=low,
        high=high,
        num_pairs=num_pairs,
        length_rule=rule,
        length_rule_accuracy=rule_accuracy,
        mean_margin=float(np.mean(chosen - rejected)),
        score_std=float(np.std(np.concatenate([chosen, rejected]))),
        scorer=scorer,
        diagnostics=_diagnostics(chosen, rejected, chosen_lengths, rejected_lengths)
        if scorer == "reward model"
        else None,
    )


def _diagnostics(
    chosen: np.ndarray, rejected: np.ndarray, chosen_lengths: Sequence[int], rejected_lengths: Sequence[int]
) -> Diagnostics:
    differences = (chosen - rejected).tolist()
    bins = reliability(differences)
    length = length_bias(chosen.tolist(), rejected.tolist(), chosen_lengths, rejected_lengths)
    return Diagnostics(bins, calibration_error(bins), by_margin(differences), length)


def grade_agreement(
    name: str, scores: Sequence[float], grades: Sequence[float], *, scale: tuple[float, float] | None
) -> GradeAgreement | None:
    """Correlation of scores with grades; None where either says the same of every response.

    `scale` is the mean and standard deviation of the grades that the scorer learnt to give, if it did.
    """
    correlation, of_ranks = pearson(scores, grades), spearman(scores, grades)
    if correlation is None or of_ranks is None:
        return None
    error = None
    if scale:
        wanted = (np.asarray(grades, np.float64) - scale[0]) / scale[1]
        error = float(np.mean(np.square(np.asarray(scores, np.float64) - wanted)))
    return GradeAgreement(name, len(scores), correlation, *fisher_interval(correlation, len(scores)), of_ranks, error)


def compare_rewards(
    parent_scores: Sequence[float], child_scores: Sequence[float], *, seed: int = 0
) -> RewardComparison:
    """Paired comparison over prompts: bootstrap interval of the mean difference, Wilson interval of the win rate.

    Both lists are in the order of the prompts. The effect is in sample standard deviations of the parent's scores.
    """
    if not parent_scores or len(parent_scores) != len(child_scores):
        raise ValueError(f"want paired scores, got {len(parent_scores)} of the parent and {len(child_scores)}")
    parent, child = np.asarray(parent_scores, np.float64), np.asarray(child_scores, np.float64)
    difference = child - parent
    low, high = bootstrap_mean(difference.tolist(), seed=seed)
    std = float(np.std(parent, ddof=1)) if len(parent) > 1 else 0.0
    wins = sum(_half_credit(a, b) for a, b in zip(child_scores, parent_scores, strict=True))
    win_low, win_high = wilson(wins, len(parent))
    return RewardComparison(
        num_prompts=len(parent),
        mean_parent=float(parent.mean()),
        mean_child=float(child.mean()),
        paired_difference=float(difference.mean()),
        low=low,
        high=high,
        effect_in_sd=float(difference.mean()) / std if std > 0.0 else None,
        win_rate=wins / len(parent),
        win_low=win_low,
        win_high=win_high,
        ties=int(np.sum(difference == 0.0)),
    )


def success(
    verifier: str, right: Sequence[bool], parent_right: Sequence[bool] | None = None, *, seed: int = 0
) -> Success:
    """Share of right answers, and its difference to the parent's on the same prompts; both lists are in their order."""
    if not right or (parent_right is not None and len(parent_right) != len(right)):
        raise ValueError(f"{verifier}: want paired answers, got {len(right)} and {len(parent_right or ())}")
    gain = None
    if parent_right is not None:
        compared = compare_rewards([float(one) for one in parent_right], [float(one) for one in right], seed=seed)
        gain = SuccessGain(compared.mean_parent, compared.paired_difference, compared.low, compared.high)
    low, high = wilson(sum(right), len(right))
    return Success(verifier, sum(right) / len(right), low, high, tuple(right), gain)


def sequence_kl(kls: Sequence[float], *, seed: int = 0) -> Kl:
    """Mean with bootstrap interval of per-response KL estimates (nats, summed over each response's tokens)."""
    if not kls:
        raise ValueError("no responses to measure")
    low, high = bootstrap_mean(kls, seed=seed)
    return Kl(float(np.mean(kls)), low, high)


def _half_credit(winner: float, loser: float) -> float:
    return 1.0 if winner > loser else 0.5 if winner == loser else 0.0


_EVALUATION = TypeAdapter(Evaluation)


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write one evaluation as JSON, in one step. Raises ValueError for a number that is not finite, by field."""
    write_json(path, asdict(evaluation))


def read_evaluation(path: Path) -> Evaluation:
    """Read what `write_evaluation` wrote; UserError if the file is not that."""
    try:
        return _EVALUATION.validate_python(orjson.loads(path.read_bytes()))
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise UserError(
            "not an evaluation",
            where=str(path),
            got=str(error).splitlines()[0],
            fix="delete the file and run `fairlead eval` on its stage again",
            exit_code=ExitCode.BAD_DATA,
        ) from error
