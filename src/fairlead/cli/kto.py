"""`fairlead kto`: alignment from responses that are desirable or not, without pairs and without a reward model."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.stages import KtoConfig


def kto(*words: Words) -> None:
    """Optimise on responses that are desirable or not."""
    config = config_from_words("kto", KtoConfig, words)
    from fairlead.cli.preflight import check_stage

    check_stage("kto", config)
    from fairlead.train.kto import train_kto

    folder = train_kto(config)
    show_result("Aligned model", folder, ("chat", folder), ("eval", folder, "--prompts", "PROMPTS.jsonl"))
