"""A scorer beside what people said of the same responses: its accuracy on pairs, its correlation with grades."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from fairlead.config.common import ForwardConfig
from fairlead.data.examples import Example, JudgedExample, PairExample, RankedExample
from fairlead.evaluate.summary import GradeAgreement, PreferenceAccuracy, Scorer, grade_agreement, preference_accuracy
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime

COLLAPSED_SPREAD = 1e-3
"""Standard deviation of scores below which a scorer says the same of everything; dividing by it blows up noise."""

Scores = Mapping[Example, float]
"""What a scorer says of each response, prompt included."""


@dataclass(frozen=True)
class Judged:
    """What a scorer says of groups of rows, and how that compares with what people said."""

    scores: Scores
    preferences: tuple[PreferenceAccuracy, ...]  # of each group with pairs
    grades: tuple[GradeAgreement, ...]  # of each group with grades

    @property
    def doubts(self) -> list[str]:
        """See `doubts_about`."""
        return [doubt for measured in (*self.preferences, *self.grades) for doubt in doubts_about(measured)]


def response_scores(
    roles: Roles, role: str, responses: Iterable[Example], batch: ForwardConfig, runtime: Runtime
) -> Scores:
    """The score of each response, each scored once; for a policy its summed log-probability."""
    distinct = list(dict.fromkeys(responses))
    return dict(zip(distinct, sequence_scores(roles, role, distinct, batch, runtime), strict=True))


def sequence_scores(
    roles: Roles, role: str, examples: Sequence[Example], batch: ForwardConfig, runtime: Runtime
) -> list[float]:
    """Score of each example; for a policy the summed log-probability of its trained tokens."""
    return [float(values.double().sum()) for values in per_sequence(roles, role, examples, batch, runtime)]


def score_facts(scores: Scores) -> dict[str, float]:
    """Mean and standard deviation of a scorer over these responses, by which ppo normalises its scores."""
    return {"score_mean": fmean(scores.values()), "score_std": pstdev(scores.values())}


def accuracy_of(
    name: str, pairs: Sequence[PairExample], scores: Scores, *, scorer: Scorer = "reward model"
) -> PreferenceAccuracy:
    """How often the chosen response of these pairs scores above the rejected one."""
    sides = [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
    chosen, rejected = ([scores[response] for response in side] for side in sides)
    lengths = ([response.num_trained for response in side] for side in sides)
    return preference_accuracy(name, chosen, rejected, *lengths, scorer=scorer)


def agreement_of(
    name: str, rows: Iterable[RankedExample], scores: Scores, *, scale: tuple[float, float] | None
) -> GradeAgreement | None:
    """How well the scores of these rows' responses follow their grades; None where there is nothing to compare."""
    graded = [pair for row in rows if row.grades for pair in zip(row.responses, row.grades, strict=True)]
    found, wanted = [scores[response] for response, _ in graded], [grade for _, grade in graded]
    return grade_agreement(name, found, wanted, scale=scale)


def judge(
    roles: Roles,
    role: str,
    groups: Mapping[str, Sequence[RankedExample]],
    batch: ForwardConfig,
    runtime: Runtime,
    *,
    scale: tuple[float, float] | None = None,
) -> Judged:
    """Score every response once and compare with the ranks and the grades of each group that has them.

    `scale` is the mean and standard deviation of the grades that a reward model learnt to give, if it did.
    """
    scorer: Scorer = "log-probability" if roles.roles[role].output == "logprobs" else "reward model"
    responses = (response for rows in groups.values() for row in rows for response in row.responses)
    scores = response_scores(roles, role, responses, batch, runtime)
    pairs = {name: [pair for row in rows for pair in row.pairs] for name, rows in groups.items()}
    agreements = (agreement_of(name, rows, scores, scale=scale) for name, rows in groups.items())
    return Judged(
        scores,
        tuple(accuracy_of(name, group, scores, scorer=scorer) for name, group in pairs.items() if group),
        tuple(one for one in agreements if one) if scorer == "reward model" else (),
    )


def doubts_about(measured: PreferenceAccuracy | GradeAgreement) -> list[str]:
    """What a reader must know before trusting a reward model that was measured so, with the likely cause."""
    if isinstance(measured, GradeAgreement):
        found = f"a correlation of {measured.pearson:.2f} with {measured.num_responses} given scores"
        low, high, chance = f"{measured.low:.2f}", f"{measured.high:.2f}", measured.low <= 0.0 <= measured.high
    elif measured.scorer != "reward model":
        return []
    elif measured.score_std < COLLAPSED_SPREAD:
        spread = f"its scores have a standard deviation of {measured.score_std:.1e}"
        why = "its learning rate was too high, or what it learnt from is alike within max_length"
        return [f"{measured.name}: the reward model has collapsed, {spread}; {why}"]
    else:
        found = f"right on {measured.accuracy:.1%} of {measured.num_pairs} pairs"
        low, high, chance = f"{measured.low:.1%}", f"{measured.high:.1%}", measured.low <= 0.5 <= measured.high
    return [f"{measured.name}: {found} ({low} to {high}), which may be chance"] if chance else []


def measure_preferences(
    roles: Roles, role: str, groups: Mapping[str, Sequence[PairExample]], batch: ForwardConfig, runtime: Runtime
) -> tuple[PreferenceAccuracy, ...]:
    """How often each group's chosen response scores above the rejected one."""
    scorer: Scorer = "log-probability" if roles.roles[role].output == "logprobs" else "reward model"
    found = []
    for name, pairs in groups.items():
        responses = (response for pair in pairs for response in (pair.chosen, pair.rejected))
        scores = response_scores(roles, role, responses, batch, runtime)
        found.append(accuracy_of(name, pairs, scores, scorer=scorer))
    return tuple(found)


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
