"""The order of a journey's stages, and its rounds."""

import pytest

from fairlead.config.journey import JourneyConfig
from fairlead.config.parse import load
from fairlead.errors import UserError

BEST_OF_N = """
split: {sources: [a.jsonl], sft: 8, preference: 8, held_out: 4}
sft: {data: {train: "@split/sft.jsonl"}}
replies: {method: best_of_n, data: {train: "@split/preference.jsonl"}, reward_model: "@reward"}
reward: {model: {name: "@sft"}, data: {train: pairs.jsonl}}
dpo: {model: {name: "@sft"}, data: {train: "@replies/train.jsonl"}}
ppo: {model: {name: "@dpo"}, reward_model: "@reward", data: {train: "@split/sft.jsonl"}}
"""
REJECTION = """
replies: {method: rejection_sampling, model: base, data: {train: a.jsonl}, rewards: length}
sft: {model: {name: base}, data: {train: "@replies/train.jsonl"}}
grpo: {model: {name: "@sft"}, data: {train: a.jsonl}, rewards: length}
"""


def names(folder, text, *words):
    (folder / "r.yaml").write_text(text)
    return [step.name for step in load(JourneyConfig, folder / "r.yaml", words).steps]


def test_no_stage_runs_before_one_that_it_names(tmp_path):
    assert names(tmp_path, BEST_OF_N) == ["split", "sft", "reward", "replies", "dpo", "ppo"]
    assert names(tmp_path, REJECTION) == ["replies", "sft", "grpo"]


def test_stages_that_do_not_name_each_other_keep_their_order(tmp_path):
    text = "grpo: {rewards: length}\ndpo: {}\nreward: {}\nreplies: {model: base}\nsft: {}\nsplit: {}\n"
    assert names(tmp_path, text) == ["split", "sft", "replies", "reward", "dpo", "grpo"]


def test_rounds_repeat_replies_and_what_learns_from_them(tmp_path):
    assert names(tmp_path, BEST_OF_N, "rounds=3") == [
        "split", "sft", "reward", "replies", "dpo", "replies-round-2", "dpo-round-2", "replies-round-3", "dpo-round-3",
        "ppo",
    ]  # fmt: skip
    assert names(tmp_path, REJECTION, "rounds=2") == ["replies", "sft", "replies-round-2", "sft-round-2", "grpo"]


@pytest.mark.parametrize(
    ("text", "words", "says", "fix"),
    [
        (BEST_OF_N, ["rounds=0"], "rounds cannot be used; got 0", "1"),
        (BEST_OF_N, ["rounds=2", "dpo.data.train=pairs.jsonl"], "rounds=2 repeats replies and", "@replies/train.jsonl"),
        ("sft: {data: {train: a.jsonl}}", ["rounds=2"], "rounds=2 repeats replies and", "@replies/train.jsonl"),
        (BEST_OF_N, ["reward.model.name=@dpo"], "replies names @reward, which no earlier stage", "@split, @sft"),
        (REJECTION, ["replies.model=@sft"], "sft names @replies/train.jsonl, which no earlier stage", "none"),
        (BEST_OF_N, ["replies.reward_model=@sft"], "replies.reward_model names @sft, which is no reward", "none"),
        (BEST_OF_N, ["replies.output=x"], "replies.output: a stage writes into the folder of the recipe", "output"),
        (REJECTION, ["grpo.data.train=@replies/held_out.jsonl"], "no file of prompts", "@replies/train.jsonl"),
        (BEST_OF_N, ["replies.method=rejection_sampling"], "no file of preferences", "none"),
    ],
)
def test_what_does_not_fit(tmp_path, text, words, says, fix):
    with pytest.raises(UserError) as caught:
        names(tmp_path, text, *words)
    assert says in str(caught.value)
    assert fix in caught.value.fix
