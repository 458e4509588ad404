"""Which charts a stage gets, from its metrics and its evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.evaluate import charts
from fairlead.evaluate.summary import Evaluation


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart with its caption; a headline goes on the journey's page, a minor one is folded away."""

    caption: str
    svg: str
    headline: bool = False
    minor: bool = False


@dataclass(frozen=True, slots=True)
class _Curve:
    caption: str
    keys: dict[str, str]  # key in metrics.jsonl -> name in the legend
    headline: bool = False
    minor: bool = False


_CURVES = (
    _Curve(
        "Loss while training",
        {"loss": "training", "held_out_loss": "held out"},
        headline=True,
    ),
    _Curve(
        "Accuracy while training: share of pairs with chosen above rejected",
        {"accuracy": "training", "held_out_accuracy": "held out"},
    ),
    _Curve("Correlation with given scores", {"held_out_correlation": "held out"}),
    _Curve("Margin between chosen and rejected", {"margin": "margin", "margin_mean": "margin"}),
    _Curve("Mean score while training", {"score_mean": "score"}, headline=True),
    _Curve("KL to the reference, nats per response", {"kl_mean": "KL"}, headline=True),
    _Curve("Share of responses that end by themselves", {"end_token_rate": "ended"}),
    _Curve("Response length, tokens", {"response_length": "length"}),
    _Curve("Entropy, nats per token", {"entropy": "entropy"}),
    _Curve("Loss of policy and critic", {"policy_loss": "policy", "value_loss": "critic"}, minor=True),
    _Curve("Share of clipped ratios", {"clip_fraction": "clipped"}, minor=True),
    _Curve("Weight of the KL penalty", {"kl_coef": "weight"}, minor=True),
    _Curve(
        "Norm of the gradient",
        {"grad_norm": "norm", "policy_grad_norm": "policy", "critic_grad_norm": "critic"},
        minor=True,
    ),
    _Curve("Learning rate", {"lr": "rate", "critic_lr": "critic"}, minor=True),
)


def stage_figures(metrics: Sequence[dict[str, Any]], evaluation: Evaluation, names: tuple[str, str]) -> list[Figure]:
    """Charts in reading order: what was measured first, then how training went. `names` are (parent, child)."""
    return _measured(evaluation, names) + _training(metrics)


def _measured(evaluation: Evaluation, names: tuple[str, str]) -> list[Figure]:
    found: list[Figure] = []
    if evaluation.preferences:
        bars = [
            charts.Bar(one.name, one.accuracy, one.low, one.high, one.length_rule_accuracy)
            for one in evaluation.preferences
        ]
        caption = "Accuracy on pairs with 95 % interval; the dotted line is chance"
        svg = charts.intervals(bars, title=caption, x_label="accuracy", mark_name="best length-only rule", chance=0.5)
        found.append(Figure(caption, svg, headline=True))
        if first := evaluation.preferences[0].diagnostics:
            caption = f"Is it as sure as it is right? {evaluation.preferences[0].name}"
            found.append(Figure(caption, charts.reliability(first.reliability, title=caption)))
    if evaluation.scores and evaluation.parent_scores:
        caption = "Scores on the same held-out prompts, before and after"
        svg = charts.histogram(evaluation.parent_scores, evaluation.scores, title=caption, names=names)
        found.append(Figure(caption, svg, headline=True))
    return found


def _training(metrics: Sequence[dict[str, Any]]) -> list[Figure]:
    x_key = "iteration" if metrics and "iteration" in metrics[0] else "step"
    found: list[Figure] = []
    for curve in _CURVES:
        series = {}
        for key, name in curve.keys.items():
            series |= _series(metrics, x_key, key, name)
        if series:
            svg = charts.curve(series, title=curve.caption, x_label=x_key)
            found.append(Figure(curve.caption, svg, curve.headline, curve.minor))
    return found


def _series(metrics: Sequence[dict[str, Any]], x_key: str, key: str, name: str) -> dict[str, list[tuple[float, float]]]:
    """The points of a key, and of each group that was measured under it as `key/group`."""
    groups = [found for found in dict.fromkeys(k for row in metrics for k in row) if found.startswith(f"{key}/")]
    names = {key: name} | {group: f"{name}, {group.removeprefix(f'{key}/')}" for group in groups}
    points = {label: _points(metrics, x_key, found) for found, label in names.items()}
    return {label: found for label, found in points.items() if found}


def _points(metrics: Sequence[dict[str, Any]], x_key: str, key: str) -> list[tuple[float, float]]:
    return [
        (float(row.get(x_key, index)), float(row[key]))
        for index, row in enumerate(metrics)
        if isinstance(row.get(key), int | float)
    ]
