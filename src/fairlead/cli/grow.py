"""`fairlead data grow`: new prompts and rows, invented, translated or collected."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.grow import GrowConfig


def grow(*words: Words) -> None:
    """Invent instructions from seed tasks, translate prompts, or collect them from chats."""
    config = config_from_words("data grow", GrowConfig, words)
    from fairlead.cli.preflight import check_grow

    check_grow(config)
    from fairlead.pipeline.grow import grow as run

    folder = run(config)
    show_result("Rows", folder, ("data", "show", folder / "train.jsonl"))
