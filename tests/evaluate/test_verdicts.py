from dataclasses import replace

import pytest

from fairlead.evaluate.summary import (
    CHINESE_REPLIES,
    Evaluation,
    Kl,
    Likelihood,
    PreferenceAccuracy,
    Probes,
    RewardComparison,
    StageSummary,
    Success,
    SuccessGain,
)
from fairlead.evaluate.verdicts import claims

GOOD_PAIRS = PreferenceAccuracy("pairs", 0.70, 0.61, 0.78, 100, "longer wins", 0.60, 1.0, 1.0)
GOOD_REWARDS = RewardComparison(128, 0.0, 0.4, 0.4, 0.01, 0.7, 0.3, 0.6, 0.5, 0.7, 0)
BEFORE = Probes(128, 0.5, 0.80, 4.0, 9, 40.0, 0.90, 0.8, 0.95)
AFTER = Probes(128, 0.5, 0.73, 4.3, 9, 50.0, 0.85, 0.8, 0.95)
SFT = Evaluation(
    StageSummary("sft", "policy"),
    likelihoods=(Likelihood(CHINESE_REPLIES, 2.0, 7.4, 9),),
    parent_likelihoods=(Likelihood(CHINESE_REPLIES, 2.5, 12.2, 9),),
)
REWARD = Evaluation(StageSummary("reward", "reward"), preferences=(GOOD_PAIRS,))
PPO = Evaluation(
    StageSummary("ppo", "policy"), rewards=GOOD_REWARDS, probes=AFTER, parent_probes=BEFORE, kl=Kl(10.0, 9.0, 11.0)
)
GAIN = SuccessGain(0.5, 0.02, 0.0001, 0.03)
RIGHT = Success("maths_answer", 1.0, 0.97, 1.0, (True,) * 128, GAIN)
SHORT = replace(AFTER, distinct_2=0.2, longest_repeat=9.0, mean_length=3.0)  # what verified answers may become
GRPO = replace(PPO, stage=StageSummary("grpo", "policy"), rewards=None, successes=(RIGHT,), probes=SHORT)


@pytest.mark.parametrize(("evaluation", "count"), [(SFT, 1), (REWARD, 3), (PPO, 8), (GRPO, 4)])
def test_every_claim_holds_at_its_threshold(evaluation, count):
    found = claims(evaluation)
    assert len(found) == count
    assert all(claim.holds for claim in found), [claim for claim in found if not claim.holds]


BROKEN = {
    "loss": replace(SFT, likelihoods=(Likelihood(CHINESE_REPLIES, 2.5, 12.2, 9),)),
    "accuracy": replace(REWARD, preferences=(replace(GOOD_PAIRS, accuracy=0.699),)),
    "length rule": replace(REWARD, preferences=(replace(GOOD_PAIRS, low=0.60),)),
    "pairs": replace(REWARD, preferences=(replace(GOOD_PAIRS, num_pairs=99),)),
    "effect": replace(PPO, rewards=replace(GOOD_REWARDS, effect_in_sd=0.299)),
    "no spread": replace(PPO, rewards=replace(GOOD_REWARDS, effect_in_sd=None)),
    "bound": replace(PPO, rewards=replace(GOOD_REWARDS, low=0.0)),
    "prompts": replace(PPO, rewards=replace(GOOD_REWARDS, num_prompts=127)),
    "kl": replace(PPO, kl=Kl(10.01, 9.0, 11.0)),
    "end token": replace(PPO, probes=replace(AFTER, end_token_rate=0.84)),
    "distinct": replace(PPO, probes=replace(AFTER, distinct_2=0.71)),
    "repeat": replace(PPO, probes=replace(AFTER, longest_repeat=4.5)),
    "longer": replace(PPO, probes=replace(AFTER, mean_length=50.1)),
    "success": replace(GRPO, successes=(replace(RIGHT, gain=replace(GAIN, low=0.0)),)),
    "answers": replace(GRPO, successes=(replace(RIGHT, right=(True,) * 127),)),
    "shorter": replace(PPO, probes=replace(AFTER, mean_length=29.9)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_exactly_the_broken_claim_fails(name):
    assert sum(not claim.holds for claim in claims(BROKEN[name])) == 1


def test_what_was_not_measured_is_not_claimed():
    assert claims(Evaluation(StageSummary("ppo", "policy"))) == []
    assert claims(Evaluation(StageSummary("reward", "reward"))) == []
    assert claims(replace(SFT, parent_likelihoods=())) == []
    assert claims(Evaluation(StageSummary("grpo", "policy"), successes=(replace(RIGHT, gain=None),))) == []
    assert claims(Evaluation(StageSummary("dpo", "policy"))) == []
