"""`fairlead grpo`: alignment by comparing several responses to a prompt."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.online import GrpoConfig


def grpo(*words: Words) -> None:
    """Optimise rewards of groups of responses."""
    config = config_from_words("grpo", GrpoConfig, words)
    from fairlead.cli.preflight import check_stage

    check_stage("grpo", config)
    from fairlead.train.grpo import train_grpo

    folder = train_grpo(config)
    show_result("Aligned model", folder, ("chat", folder), ("eval", folder, "--prompts", "PROMPTS.jsonl"))
