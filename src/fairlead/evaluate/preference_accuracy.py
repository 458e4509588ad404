"""Accuracy of a scorer on held-out pairs, with its interval and the best length-only rule."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, pstdev

from fairlead.config.common import ForwardConfig
from fairlead.data.examples import Example, JudgedExample, PairExample
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
    scores = sequence_scores(roles, role, examples, batch, runtime)
    return scores[0::2], scores[1::2]


def sequence_scores(
    roles: Roles, role: str, examples: Sequence[Example], batch: ForwardConfig, runtime: Runtime
) -> list[float]:
    """Score of each example; for a policy the summed log-probability of its trained tokens."""
    return [float(values.double().sum()) for values in per_sequence(roles, role, examples, batch, runtime)]


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


def measure_judgements(
    roles: Roles, role: str, groups: Mapping[str, Sequence[JudgedExample]], reference: Sequence[float],
    batch: ForwardConfig, runtime: Runtime,
) -> tuple[PreferenceAccuracy, ...]:  # fmt: skip
    """How often a desirable response gained more over the reference than an undesirable one.

    The first desirable response of a group is compared with its first undesirable one, and so on: those of one prompt
    where rows were pairs, and each response once at most, so that the interval holds. `reference` are the scores of the
    groups' responses under the reference, in order. A group without responses of both kinds is left out.
    """
    found: list[PreferenceAccuracy] = []
    before = iter(reference)
    for name, rows in groups.items():
        scores = sequence_scores(roles, role, [row.response for row in rows], batch, runtime)
        judged = [(score - next(before), row) for row, score in zip(rows, scores, strict=True)]
        good, bad = ([one for one in judged if one[1].desirable is label] for label in (True, False))
        num_pairs = min(len(good), len(bad))
        if num_pairs:
            chosen, rejected = ([gain for gain, _ in side[:num_pairs]] for side in (good, bad))
            lengths = [[row.response.num_trained for _, row in side[:num_pairs]] for side in (good, bad)]
            found.append(preference_accuracy(name, chosen, rejected, *lengths, scorer="log-ratio"))
    return tuple(found)
