"""`fairlead reward`: a reward model from preference pairs."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.stages import RewardConfig


def reward(*words: Words) -> None:
    """Train a reward model on preference pairs."""
    config = config_from_words("reward", RewardConfig, words)
    from fairlead.cli.preflight import check_stage

    check_stage("reward", config)
    from fairlead.train.reward import train_reward

    folder = train_reward(config)
    models = ("--model", config.model.name, "--reward-model", folder)
    show_result("Reward model", folder, ("ppo", *models, "--data", "PROMPTS.jsonl", "--output", config.output))
