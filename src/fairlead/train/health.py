"""Whether a run is healthy, read from its own metrics: verdicts in plain words, with the likely cause and the knob.

A rule looks at the rows of metrics.jsonl so far and says what is wrong with the newest, or nothing. docs/metrics.md
gives the same limits beside the healthy range of each metric.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from statistics import StatisticsError, correlation, fmean, median
from typing import ParamSpec

P = ParamSpec("P")
Rows = Sequence[Mapping[str, float]]

NEGATIVE_KL = -0.5  # nats per response; by chance a mean of 16 responses gets there once in 30,000 times
LARGEST_UPDATE = 0.1  # nats per token from the policy that sampled; the healthy range ends at 0.02
LARGEST_CLIP_FRACTION = 0.5
SAME_SCORES = 1e-3  # standard deviation
SILENT_GROUPS = 0.9  # share
COLLAPSED_ENTROPY = 0.2  # of what it was at the start
LENGTH_CHANGE = 1.5  # times longer or shorter than at the start
MORE_REPETITION = 0.2  # share of repeated n-grams above that of the start
VALUE_LOSS_JUMP = 10.0  # times the median so far
TREND_ROWS = 6  # over which score and probe are compared
OPPOSITE = -0.7  # correlation of score and probe


@dataclass(frozen=True, slots=True)
class Fault:
    """A way for a run to go wrong. `rule` must hold for `patience` rows in a row before it counts.

    `earlier` is how many steps before the first such row the harm may have been done: a rollout shows what the step
    before it made of the model.
    """

    rule: Callable[[Rows], str | None]
    patience: int
    earlier: int
    cause: str
    fix: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One fault found at a step. `since` is the first step that may have done the harm."""

    fault: str
    step: int
    since: int
    what: str
    cause: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; likely cause: {self.cause}; {self.fix}"


class RollBack(Exception):  # noqa: N818 - a way to go on, not an error
    """The stage begins again from its last good checkpoint."""


def restarted_after_roll_back(train: Callable[P, Path]) -> Callable[P, Path]:
    """A trainer that a roll-back sends through its own resume, the path that a kill takes too."""

    @wraps(train)
    def run(*args: P.args, **options: P.kwargs) -> Path:
        while True:
            try:
                return train(*args, **options)
            except RollBack:
                pass
            gc.collect()  # modules with hooks are cycles; the next attempt loads its own

    return run


def verdicts(rows: Rows) -> Iterator[Verdict]:
    """Every fault that the newest row, and as many before it as its patience asks for, shows."""
    for name, fault in FAULTS.items():
        if len(rows) < fault.patience:
            continue
        ends = range(len(rows) - fault.patience + 1, len(rows) + 1)
        if all(fault.rule(rows[:end]) for end in ends):
            since = max(1, int(rows[-fault.patience]["step"]) - fault.earlier)
            what = fault.rule(rows)
            assert what is not None
            yield Verdict(name, int(rows[-1]["step"]), since, what, fault.cause, fault.fix)


def symptoms(rows: Rows) -> list[str]:
    """The faults whose rule holds for the newest row, whether it has lasted or not."""
    return [name for name, fault in FAULTS.items() if rows and fault.rule(rows)]


def _negative_kl(rows: Rows) -> str | None:
    kl = rows[-1].get("kl_mean", 0.0)
    return f"the KL is {kl:.2f} nats per response, and no KL is negative" if kl < NEGATIVE_KL else None


def _ratio_explosion(rows: Rows) -> str | None:
    moved, clipped = rows[-1].get("kl_old_new", 0.0), rows[-1].get("clip_fraction", 0.0)
    if moved <= LARGEST_UPDATE and clipped <= LARGEST_CLIP_FRACTION:
        return None
    return f"one update moved the policy by {moved:.3g} nats per token and clipped {clipped:.0%} of the tokens"


def _identical_rewards(rows: Rows) -> str | None:
    spread = rows[-1].get("score_std", 1.0)
    return f"the scores of all responses are the same (deviation {spread:.1g})" if spread < SAME_SCORES else None


def _zero_variance_groups(rows: Rows) -> str | None:
    silent = rows[-1].get("zero_variance_groups", 0.0)
    if silent <= SILENT_GROUPS or _identical_rewards(rows):
        return None
    return f"{silent:.0%} of the groups score alike inside the group and teach nothing"


def _entropy_collapse(rows: Rows) -> str | None:
    before, now = _at_start(rows, "entropy"), rows[-1].get("entropy", 0.0)
    if before is None or now >= COLLAPSED_ENTROPY * before:
        return None
    return f"the entropy fell from {before:.2f} to {now:.2g} nats per token"


def _length_hack(rows: Rows) -> str | None:
    before, now = _at_start(rows, "response_length"), rows[-1].get("response_length", 0.0)
    score = _at_start(rows, "score_mean")
    if before is None or score is None or rows[-1]["score_mean"] <= score:
        return None
    if before / LENGTH_CHANGE <= now <= before * LENGTH_CHANGE:
        return None
    return f"responses went from {before:.0f} to {now:.0f} tokens while the score rose"


def _repetition_hack(rows: Rows) -> str | None:
    before, now = _at_start(rows, "repetition"), rows[-1].get("repetition", 0.0)
    if before is None or now <= before + MORE_REPETITION:
        return None
    return f"{now:.0%} of what responses say is said twice, {before:.0%} at the start"


def _probe_divergence(rows: Rows) -> str | None:
    window = rows[-TREND_ROWS:]
    if len(window) < TREND_ROWS:
        return None
    scores = [row.get("score_mean", 0.0) for row in window]
    for name in (key for key in window[-1] if key.startswith("probe/")):
        probe = [row.get(name, 0.0) for row in window]
        if _rise(scores) > 0 > _rise(probe) and _correlation(scores, probe) < OPPOSITE:
            fell = f"{name.removeprefix('probe/')} fell by {-_rise(probe):.2g}"
            return f"in {TREND_ROWS} iterations the score rose by {_rise(scores):.2g} and {fell}"
    return None


def _value_blow_up(rows: Rows) -> str | None:
    losses = [row["value_loss"] for row in rows if "value_loss" in row]
    usual = median(losses[:-1]) if len(losses) > 1 else 0.0
    if usual <= 0 or losses[-1] <= VALUE_LOSS_JUMP * usual:
        return None
    if rows[-1].get("explained_variance", 0.0) >= 0:
        return None
    return f"the critic's loss is {losses[-1]:.3g}, {losses[-1] / usual:.0f} times its median so far"


def _at_start(rows: Rows, name: str) -> float | None:
    """Mean over the first two rows; None while the newest is one of them."""
    values = [row[name] for row in rows[:2] if name in row]
    return fmean(values) if len(rows) > 2 and values else None


def _rise(values: Sequence[float]) -> float:
    return fmean(values[-2:]) - fmean(values[:2])


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    try:
        return correlation(a, b)
    except StatisticsError:  # one of them does not move at all
        return 0.0


FAULTS: Mapping[str, Fault] = {
    "negative_kl": Fault(
        _negative_kl, 1, 1, "the responses do not come from the policy that is measured",
        "sample at temperature alone, from the newest weights, with the reference this stage began with",
    ),
    "ratio_explosion": Fault(
        _ratio_explosion, 1, 0, "the step is too large, or too many epochs reuse one rollout",
        "lower optim.lr or num_epochs",
    ),
    "identical_rewards": Fault(
        _identical_rewards, 2, 1, "the reward model has collapsed, or no response passes the verifier",
        "look at samples.jsonl and at the reward model's accuracy; train it again with a lower rate, or ease the task",
    ),
    "zero_variance_groups": Fault(
        _zero_variance_groups, 3, 1, "the prompts are all too easy or all too hard for this policy",
        "take other prompts, raise num_responses_per_prompt, or set dynamic_sampling_rounds",
    ),
    "entropy_collapse": Fault(
        _entropy_collapse, 2, 1, "the penalty does not hold the policy near the reference",
        "raise kl.coef, lower optim.lr, or raise clip_eps_high",
    ),
    "length_hack": Fault(
        _length_hack, 2, 1, "the reward pays for length",
        "look at samples.jsonl; raise kl.coef, set missing_end_token_penalty (ppo) or the length reward (grpo)",
    ),
    "repetition_hack": Fault(
        _repetition_hack, 2, 1, "the policy loops, and the reward does not mind",
        "look at samples.jsonl; raise kl.coef or lower optim.lr",
    ),
    "probe_divergence": Fault(
        _probe_divergence, 1, TREND_ROWS - 1, "the policy learns what the reward pays for and people do not want",
        "stop earlier, raise kl.coef, or mend the reward",
    ),
    "value_blow_up": Fault(
        _value_blow_up, 1, 1, "the critic's step is too large for the scale of its returns",
        "lower critic_lr, set normalise_scores or score_clip, or lower value_clip",
    ),
}  # fmt: skip
