import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.agreement import (
    by_margin,
    calibration_error,
    fisher_interval,
    length_bias,
    pearson,
    reliability,
    spearman,
)
from fairlead.algos.intervals import bootstrap_mean, wilson
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.summary import (
    Answer,
    Evaluation,
    StageSummary,
    best_length_rule,
    compare_rewards,
    grade_agreement,
    likelihood,
    preference_accuracy,
    read_evaluation,
    sequence_kl,
    success,
    write_evaluation,
)

pairs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


@given(pairs)
def test_the_best_length_rule_is_the_better_of_both(pairs):
    chosen, rejected = zip(*pairs, strict=True)
    credit = {"shorter wins": 0.0, "longer wins": 0.0}
    for a, b in pairs:
        credit["shorter wins"] += 1 if a < b else 0.5 if a == b else 0
        credit["longer wins"] += 1 if a > b else 0.5 if a == b else 0
    rule, accuracy = best_length_rule(chosen, rejected)
    assert accuracy == pytest.approx(credit[rule] / len(pairs))
    assert accuracy == pytest.approx(max(credit.values()) / len(pairs))
    assert accuracy >= 0.5


def test_equal_lengths_leave_the_length_rule_at_chance():
    assert best_length_rule([5, 5], [5, 5])[1] == 0.5


def test_preference_accuracy_counts_ties_half_and_measures_spread():
    measured = preference_accuracy("x", [1.0, 2.0, 3.0], [0.0, 2.0, 4.0], [3, 3, 3], [4, 5, 1])
    assert measured.accuracy == pytest.approx(1.5 / 3)
    assert (measured.low, measured.high) == wilson(1.5, 3)
    assert (measured.length_rule, measured.num_pairs) == ("shorter wins", 3)
    assert measured.mean_margin == pytest.approx(0.0)
    assert measured.score_std == pytest.approx(statistics.pstdev([1, 2, 3, 0, 2, 4]))


def test_a_collapsed_reward_model_is_at_chance_without_spread():
    measured = preference_accuracy("x", [0.3] * 8, [0.3] * 8, [1] * 8, [2] * 8)
    assert (measured.accuracy, measured.score_std) == (0.5, 0.0)


def test_a_reward_model_is_diagnosed_and_a_policy_is_not():
    scores, lengths = ([2.0, 0.5, 1.0], [1.0, 0.7, 1.0]), ([5, 9, 3], [4, 2, 3])
    found = preference_accuracy("x", *scores, *lengths).diagnostics
    differences = [1.0, 0.5 - 0.7, 0.0]
    assert found.reliability == reliability(differences)
    assert found.calibration_error == calibration_error(found.reliability)
    assert found.by_margin == by_margin(differences)
    assert found.length == length_bias(*scores, *lengths)
    assert preference_accuracy("x", *scores, *lengths, scorer="log-probability").diagnostics is None


def test_grades_are_compared_on_the_scale_that_was_learnt():
    scores, grades = [0.5, -1.0, 1.5, 0.0], [7.0, 1.0, 9.0, 3.0]
    found = grade_agreement("x", scores, grades, scale=(5.0, 2.0))
    assert (found.num_responses, found.pearson, found.spearman) == (
        4,
        pearson(scores, grades),
        spearman(scores, grades),
    )
    assert (found.low, found.high) == fisher_interval(found.pearson, 4)
    assert found.mean_squared_error == pytest.approx(
        statistics.fmean((s - (g - 5) / 2) ** 2 for s, g in zip(scores, grades, strict=True))
    )
    assert grade_agreement("x", scores, grades, scale=None).mean_squared_error is None
    assert grade_agreement("x", [1.0, 1.0], [1.0, 2.0], scale=None) is None


def test_preference_accuracy_refuses_lists_of_unequal_length():
    with pytest.raises(ValueError, match=r"shorter|longer|lengths"):
        preference_accuracy("x", [1.0], [0.0, 2.0], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="1 scored pairs but 2 lengths"):
        preference_accuracy("x", [1.0], [0.0], [1, 1], [1, 1])


def test_rewards_are_compared_prompt_by_prompt():
    parent, child = [0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 4.0, 4.0]
    compared = compare_rewards(parent, child, seed=3)
    assert compared.paired_difference == pytest.approx(0.5)
    assert compared.mean_child - compared.mean_parent == pytest.approx(0.5)
    assert (compared.low, compared.high) == bootstrap_mean([1.0, 0.0, 2.0, -1.0], seed=3)
    assert compared.effect_in_sd == pytest.approx(0.5 / statistics.stdev(parent))
    assert (compared.win_rate, compared.ties) == (2.5 / 4, 1)
    assert (compared.win_low, compared.win_high) == wilson(2.5, 4)


def test_swapping_parent_and_child_turns_the_comparison_round():
    one, other = compare_rewards([0.0, 1.0, 2.0], [3.0, 1.0, 1.5]), compare_rewards([3.0, 1.0, 1.5], [0.0, 1.0, 2.0])
    assert one.paired_difference == pytest.approx(-other.paired_difference)
    assert one.win_rate == pytest.approx(1 - other.win_rate)


def test_equal_parent_scores_have_no_effect_size():
    assert compare_rewards([1.0, 1.0], [2.0, 3.0]).effect_in_sd is None


def test_success_is_a_share_of_answers_compared_prompt_by_prompt():
    parent, child = [True, False, False, False, True], [True, True, True, False, False]
    measured = success("format", child, parent, seed=3)
    assert (measured.verifier, measured.rate, measured.right) == ("format", 0.6, tuple(child))
    assert (measured.low, measured.high) == wilson(3, 5)
    assert measured.gain.parent_rate == pytest.approx(0.4)
    assert measured.gain.difference == pytest.approx(0.2)
    assert (measured.gain.low, measured.gain.high) == bootstrap_mean([0, 1, 1, 0, -1], seed=3)
    assert success("format", child).gain is None
    for wrong in (([], []), (child, parent[:-1])):
        with pytest.raises(ValueError, match="format: want paired answers"):
            success("format", *wrong)


def test_likelihood_is_per_token():
    measured = likelihood("x", 30.0, 20)
    assert (measured.loss, measured.perplexity) == (1.5, math.exp(1.5))
    with pytest.raises(ValueError, match="no trained tokens"):
        likelihood("x", 0.0, 0)


def full_evaluation():
    return Evaluation(
        stage=StageSummary("ppo", "policy", "03-ppo", "01-sft", sizes={"episodes": 3}),
        likelihoods=(likelihood("Chinese replies", 3.0, 2),),
        preferences=(preference_accuracy("x", [1.0], [0.0], [1], [2]),),
        grades=(grade_agreement("x", [1.0, 2.0], [1.0, 3.0], scale=(2.0, 1.0)),),
        rewards=compare_rewards([1.0, 1.0], [2.0, 3.0]),
        scores=(2.0, 3.0),
        parent_scores=(1.0, 1.0),
        successes=(success("format", [True, False], [False, False]), success("maths_answer", [False])),
        kl=sequence_kl([1.0, 2.0]),
        answers=(Answer("问\ud7ff", "答", None, 1.0), Answer("a", "b", "c")),
    )


def test_an_evaluation_survives_the_disk(tmp_path):
    evaluation = full_evaluation()
    write_evaluation(evaluation, tmp_path / "evaluation.json")
    assert read_evaluation(tmp_path / "evaluation.json") == evaluation
    write_evaluation(evaluation, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "evaluation.json").read_bytes()


def test_a_number_that_is_not_finite_is_refused_by_name(tmp_path):
    broken = replace(full_evaluation(), scores=(1.0, math.nan))
    with pytest.raises(ValueError, match=r"scores\[1\]"):
        write_evaluation(broken, tmp_path / "evaluation.json")
    assert not (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize("text", ["{", '{"stage": 3}', "[]", '{"stage": {"stage": "sft", "kind": "policy"}, "kl": 3}'])
def test_a_damaged_evaluation_is_a_users_error(tmp_path, text):
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(UserError, match="not an evaluation") as caught:
        read_evaluation(path)
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert str(path) in str(caught.value)
