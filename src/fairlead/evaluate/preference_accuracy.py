"""Accuracy of a scorer on held-out pairs, with its interval and the best length-only rule."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, pstdev

from fairlead.config.common import ForwardConfig
from fairlead.data.examples import PairExample
from fairlead.evaluate.summary import PreferenceAccuracy, Scorer, preference_accuracy
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime

COLLAPSED_SPREAD = 1e-3
"""Standard deviation of scores below which a scorer says the same of everything; dividing by it blows up noise."""

Scores = tuple[list[float], list[float]]
"""Of the chosen and of the rejected responses, in the order of the pairs."""


def pair_scores(
    roles: Roles, role: str, pairs: Sequence[PairExample], batch: ForwardConfig, runtime: Runtime
) -> Scores:
    """Scores of the chosen and of the rejected responses; for a policy the summed log-probability of each response."""
    examples = [example for pair in pairs for example in (pair.chosen, pair.rejected)]
    sums = [float(values.double().sum()) for values in per_sequence(roles, role, examples, batch, runtime)]
    return sums[0::2], sums[1::2]


def score_facts(scores: Iterable[Scores]) -> dict[str, float]:
    """Mean and standard deviation of a scorer over all responses of these pairs, by which ppo normalises its scores."""
    everything = [score for chosen, rejected in scores for score in (*chosen, *rejected)]
    return {"score_mean": fmean(everything), "score_std": pstdev(everything)}


def accuracy_of(
    name: str, pairs: Sequence[PairExample], scores: Scores, *, scorer: Scorer = "reward model"
) -> PreferenceAccuracy:
    """How often the chosen response of these pairs scores above the rejected one."""
    lengths = ([pair.chosen.num_trained for pair in pairs], [pair.rejected.num_trained for pair in pairs])
    return preference_accuracy(name, *scores, *lengths, scorer=scorer)


def measure_preferences(
    roles: Roles, role: str, groups: Mapping[str, Sequence[PairExample]], batch: ForwardConfig, runtime: Runtime
) -> tuple[PreferenceAccuracy, ...]:
    """How often each group's chosen response scores above the rejected one."""
    scorer: Scorer = "log-probability" if roles.roles[role].output == "logprobs" else "reward model"
    return tuple(
        accuracy_of(name, pairs, pair_scores(roles, role, pairs, batch, runtime), scorer=scorer)
        for name, pairs in groups.items()
    )
