"""Options of replies: what contradicts itself or has no effect is refused by name."""

import pytest

from fairlead.config.online import GrpoConfig
from fairlead.config.parse import load
from fairlead.config.replies import RepliesConfig
from fairlead.errors import UserError

BEST, REJECTION = "method=best_of_n", "method=rejection_sampling"
JUDGED = (BEST, "rewards=judge", "judge.url=http://localhost:1/v1", "judge.model=wise")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("num_responses_per_prompt=8",), "replies.num_responses_per_prompt has no meaning for replies.method=own_rej"),
        (("rewards=length",), "replies.rewards has no meaning"),
        (("reward_model=run/02-reward",), "replies.reward_model has no meaning"),
        (("answer_pattern=(a)",), "replies.answer_pattern has no meaning"),
        (("judge.num_at_once=2",), "replies.judge has no meaning"),
        (("ended_only=false",), "replies.ended_only has no meaning"),
        (("batch.micro_batch_tokens=1",), "replies.batch has no meaning"),
        (("ranked=true",), "replies.ranked has no meaning"),
        ((REJECTION, "ranked=true"), "replies.ranked has no meaning for replies.method=rejection_sampling"),
        ((BEST, "min_score=1"), "replies.min_score has no meaning for replies.method=best_of_n"),
        ((BEST, "max_tokens=50"), "replies.max_tokens has no meaning"),
        ((REJECTION, "min_tokens=1"), "replies.min_tokens has no meaning"),
        ((BEST, "num_responses_per_prompt=1"), "the best of one is also the worst"),
        ((REJECTION, "num_responses_per_prompt=1"), "without replies.min_score rejects nothing"),
        ((BEST, "sampling.temperature=0"), "draws the same reply every time"),
        ((REJECTION, "ended_only=false"), "sft would train an end"),
        ((BEST, "rewards=[]"), "empty or names one reward twice"),
        ((BEST, "rewards=length,2*length"), "empty or names one reward twice"),
        ((BEST, "rewards=wit"), "'wit' is no reward"),
        ((BEST, "rewards=length", "reward_model=run/02-reward"), "reward_model is not one of replies.rewards"),
        ((BEST, "rewards=judge"), "goes with replies.judge.url and replies.judge.model"),
        ((*JUDGED, "judge.model="), "goes with replies.judge.url and replies.judge.model"),
        ((*JUDGED[2:], BEST, "rewards=length"), "goes with replies.judge.url"),
        ((BEST, "judge.url=localhost:8000"), "judge.url=localhost:8000 is no address"),
        ((BEST, "judge.url=file:///etc/passwd"), "is no address of an endpoint"),
        ((REJECTION, *JUDGED[1:], "num_responses_per_prompt=1", "min_score=0"), "a judge compares replies"),
        ((BEST, "answer_pattern=(a)"), "goes with exact_match, maths_answer or format"),
        ((BEST, "rewards=format"), "no format is given"),
        ((BEST, "rewards=format", "answer_pattern=("), "no regular expression"),
        (("method=worst_of_n",), "method cannot be used; got worst_of_n; want 'own_rejected', 'best_of_n' or"),
    ],
)
def test_options_that_contradict_each_other(words, says):
    with pytest.raises(UserError) as caught:
        load(RepliesConfig, None, words)
    assert says in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    "words",
    [
        (), (BEST, "rewards=0.5*judge,length", *JUDGED[2:]), (BEST, "ranked=true", "ended_only=false"),
        (REJECTION, "num_responses_per_prompt=1", "min_score=0.5", "rewards=maths_answer", "sampling.temperature=0"),
    ],
)  # fmt: skip
def test_options_that_agree(words):
    config = load(RepliesConfig, None, words)
    given = dict(word.split("=", 1) for word in words)
    assert config.method == given.get("method", "own_rejected")
    assert config.rewards == tuple(given.get("rewards", "reward_model").split(","))


def test_only_replies_may_be_judged_by_a_judge():
    with pytest.raises(UserError, match="'judge' is no reward"):
        load(GrpoConfig, None, ["rewards=judge"])
