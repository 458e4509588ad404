"""`fairlead dpo`: alignment from preference pairs, without a reward model."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.stages import DpoConfig


def dpo(*words: Words) -> None:
    """Optimise on preference pairs directly."""
    config = config_from_words("dpo", DpoConfig, words)
    from fairlead.cli.preflight import check_stage

    check_stage("dpo", config)
    from fairlead.train.dpo import train_dpo

    folder = train_dpo(config)
    show_result("Aligned model", folder, ("chat", folder), ("eval", folder, "--prompts", "PROMPTS.jsonl"))
