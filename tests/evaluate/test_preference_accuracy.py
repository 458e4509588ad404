from itertools import combinations

import pytest

from fairlead.config.common import ForwardConfig, ModelConfig
from fairlead.data.examples import Example, RankedExample
from fairlead.evaluate import preference_accuracy as module
from fairlead.evaluate.preference_accuracy import accuracy_of, agreement_of, doubts_about, judge, score_facts
from fairlead.evaluate.summary import GradeAgreement, PreferenceAccuracy
from fairlead.models.build import add_frozen, ready
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from model_setting import runtime_of


def response(*tokens, prompt=3):
    return Example((9,) * prompt + tokens, (False,) * prompt + (True,) * len(tokens))


ROWS = [
    RankedExample((response(1), response(2, 2), response(3)), (5.0, 5.0, 1.0)),
    RankedExample((response(4), response(5))),
    RankedExample((response(6, 6, 6),), (2.0,)),
]
SCORES = {one: float(i) for i, one in enumerate(r for row in ROWS for r in row.responses)}


@pytest.mark.parametrize("output", ["scores", "logprobs"])
def test_every_response_is_scored_once(world, monkeypatch, output):
    """Three ranked responses make two or three pairs and are three sequences; a policy has no grades to follow."""
    roles, runtime = Roles(), runtime_of()
    source = world.reward if output == "scores" else world.model
    add_frozen(roles, "judge", resolve(str(source)), output, runtime)
    ready(roles, ModelConfig(), runtime)
    passed = []
    real = module.per_sequence

    def per_sequence(roles, role, examples, *more):
        passed.extend(examples)
        return real(roles, role, examples, *more)

    monkeypatch.setattr(module, "per_sequence", per_sequence)
    groups = {"a": ROWS[:2], "b": [ROWS[0], ROWS[2]], "c": ROWS[2:]}
    judged = judge(roles, "judge", groups, ForwardConfig(), runtime, scale=(3.0, 2.0))
    assert passed == list(SCORES)
    assert [(one.name, one.num_pairs) for one in judged.preferences] == [("a", 3), ("b", 2)]
    names = [(one.name, one.num_responses) for one in judged.grades]
    assert names == ([("a", 3), ("b", 4)] if output == "scores" else [])
    for one in judged.preferences:
        pairs = [
            (judged.scores[x], judged.scores[y])
            for row in groups[one.name]
            for (i, x), (j, y) in combinations(enumerate(row.responses), 2)
            if not row.grades or row.grades[i] > row.grades[j]
        ]
        assert one.accuracy == pytest.approx(sum(better > worse for better, worse in pairs) / len(pairs))


def test_lengths_are_those_of_the_responses_and_facts_count_each_once():
    pairs = [pair for row in ROWS for pair in row.pairs]
    measured = accuracy_of("x", pairs, SCORES)
    assert (measured.length_rule, measured.length_rule_accuracy) == ("longer wins", pytest.approx((0.5 + 1 + 0.5) / 3))
    assert score_facts(SCORES) == {"score_mean": 2.5, "score_std": pytest.approx((35 / 12) ** 0.5)}
    assert agreement_of("x", ROWS[1:2], SCORES, scale=None) is None


def accuracy(low, high, *, std=1.0, scorer="reward model"):
    return PreferenceAccuracy("pairs", (low + high) / 2, low, high, 9, "longer wins", 0.5, 1.0, std, scorer)


@pytest.mark.parametrize(
    ("measured", "doubt"),
    [
        (accuracy(0.49, 0.9), "pairs: right on 69.5% of 9 pairs (49.0% to 90.0%), which may be chance"),
        (accuracy(0.51, 0.9), None),
        (accuracy(0.1, 0.49), None),  # surely wrong is no chance
        (accuracy(0.1, 0.9, scorer="log-probability"), None),
        (
            accuracy(0.51, 0.9, std=9e-4),
            "pairs: the reward model has collapsed, its scores have a standard deviation of",
        ),
        (accuracy(0.51, 0.9, std=1.1e-3), None),
        (
            GradeAgreement("rows", 9, 0.3, -0.1, 0.6, 0.2, None),
            "rows: a correlation of 0.30 with 9 given scores (-0.10 to",
        ),
        (GradeAgreement("rows", 9, 0.3, 0.1, 0.6, 0.2, None), None),
    ],
)
def test_doubts(measured, doubt):
    found = doubts_about(measured)
    assert [text[: len(doubt or "")] for text in found] == ([doubt] if doubt else [])
