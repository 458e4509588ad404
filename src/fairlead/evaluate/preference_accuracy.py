"""Accuracy of a scorer on held-out pairs, with its interval and the best length-only rule."""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from fairlead.config.common import ForwardConfig
from fairlead.data.examples import PairExample
from fairlead.evaluate.summary import PreferenceAccuracy, preference_accuracy
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime


def pair_scores(
    roles: Roles, role: str, pairs: Sequence[PairExample], batch: ForwardConfig, runtime: Runtime
) -> tuple[list[float], list[float]]:
    """Scores of the chosen and of the rejected responses; for a policy the summed log-probability of each response."""
    examples = [example for pair in pairs for example in (pair.chosen, pair.rejected)]
    sums = [float(values.double().sum()) for values in per_sequence(roles, role, examples, batch, runtime)]
    return sums[0::2], sums[1::2]


def score_facts(
    roles: Roles, role: str, pairs: Sequence[PairExample], batch: ForwardConfig, runtime: Runtime
) -> dict[str, float]:
    """Mean and standard deviation of a scorer over all responses of these pairs, by which ppo normalises its scores."""
    chosen, rejected = pair_scores(roles, role, pairs, batch, runtime)
    scores = chosen + rejected
    return {"score_mean": fmean(scores), "score_std": pstdev(scores)}


def measure_preferences(
    roles: Roles, role: str, groups: Mapping[str, Sequence[PairExample]], batch: ForwardConfig, runtime: Runtime
) -> tuple[PreferenceAccuracy, ...]:
    """How often each group's chosen response scores above the rejected one."""
    found = []
    for name, pairs in groups.items():
        chosen, rejected = pair_scores(roles, role, pairs, batch, runtime)
        lengths = ([pair.chosen.num_trained for pair in pairs], [pair.rejected.num_trained for pair in pairs])
        found.append(preference_accuracy(name, chosen, rejected, *lengths))
    return tuple(found)
