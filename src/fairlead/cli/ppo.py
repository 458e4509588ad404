"""`fairlead ppo`: alignment against a reward model."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.online import PpoConfig


def ppo(*words: Words) -> None:
    """Optimise against a reward model."""
    config = config_from_words("ppo", PpoConfig, words)
    from fairlead.cli.preflight import check_stage

    check_stage("ppo", config)
    from fairlead.train.ppo import train_ppo

    folder = train_ppo(config)
    measure = ("eval", folder, "--reward-model", config.reward_model, "--prompts", "PROMPTS.jsonl")
    show_result("Aligned model", folder, ("chat", folder), measure)
