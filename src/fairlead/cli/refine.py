"""`fairlead data refine`: any files to clean, accounted-for training data."""

from fairlead.cli.words import Words, config_from_words, required, show_result
from fairlead.config.refine import RefineConfig


def refine(*words: Words) -> None:
    """Read, filter, deduplicate, decontaminate and mix rows of any layout."""
    config = config_from_words("data refine", RefineConfig, words)
    required(" ".join(config.data), "data", "name the rows: fairlead data refine --data FILE")
    from fairlead.cli.preflight import check_refine

    check_refine(config)
    from fairlead.pipeline.refine import refine as run

    folder = run(config)
    show_result("Data", folder, ("data", "show", folder / f"train.{config.format}"))
