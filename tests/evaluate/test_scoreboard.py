from fairlead.evaluate.scoreboard import BASE, Reply, board
from fairlead.evaluate.summary import Answer, Evaluation, Kl, Likelihood, StageSummary, compare_rewards, success


def journey():
    sft = Evaluation(
        StageSummary("sft", "policy", "01-sft", "smollm2"),
        likelihoods=(Likelihood("zh", 2.0, 7.4, 9),),
        parent_likelihoods=(Likelihood("zh", 2.5, 12.2, 9),),
        answers=(Answer("only sft", "s", "b"), Answer("p", "sft says", "base says")),
    )
    reward = Evaluation(StageSummary("reward", "reward", "02-reward", "01-sft"))
    ppo = Evaluation(
        StageSummary("ppo", "policy", "03-ppo", "01-sft"),
        rewards=compare_rewards([0.0, 1.0], [1.0, 2.0]),
        successes=(success("format", [True, True], [True, False]),),
        kl=Kl(3.0, 2.0, 4.0),
        answers=(Answer("p", "ppo says", "sft says again", 2.0, 1.0),),
    )
    dpo = Evaluation(StageSummary("dpo", "policy", "04-dpo", "01-sft"), answers=(Answer("p", "dpo says", "unscored"),),
                     successes=(success("format", [False, False]),))  # fmt: skip
    return [sft, reward, ppo, dpo]


def test_models_stand_in_the_order_of_the_journey():
    assert board(journey()).models == [BASE, "SFT", "PPO", "DPO"]


def test_numbers_are_filed_under_the_model_they_were_measured_on():
    rows = dict(board(journey()).number_rows())
    assert rows["Loss, zh"] == ["2.500", "2.000", "–", "–"]
    assert rows["Mean score"] == ["–", "0.50", "1.50", "–"]
    assert rows["Success, format"] == ["–", "50.0 %", "100.0 %", "0.0 %"]
    assert rows["KL to its reference, nats"] == ["–", "–", "3.00", "–"]


def test_replies_stand_side_by_side_and_scored_ones_win():
    rows = board(journey()).reply_rows()
    assert [prompt for prompt, _ in rows] == ["p", "only sft"]
    assert dict(rows[0][1]) == {
        BASE: Reply("base says", None),
        "SFT": Reply("sft says again", 1.0),
        "PPO": Reply("ppo says", 2.0),
        "DPO": Reply("dpo says", None),
    }
