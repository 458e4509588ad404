"""`fairlead replies`: a model answers prompts, and its answers become rows to learn from."""

from fairlead.cli.words import Words, config_from_words, required, show_result
from fairlead.config.replies import RepliesConfig


def replies(*words: Words) -> None:
    """Make pairs or conversations from a model's own replies."""
    config = config_from_words("replies", RepliesConfig, words)
    named = "" if config.model.startswith("@") else config.model
    required(named, "model", "name the model that replies: fairlead replies --model RUN/01-sft --data FILE")
    from fairlead.cli.preflight import check_stage

    check_stage("replies", config)
    from fairlead.pipeline.replies import make_replies

    folder = make_replies(config)
    verb = "sft" if config.method == "rejection_sampling" else "dpo"
    show_result("Replies", folder, (verb, "--model", config.model, "--data", folder / "train.jsonl"))
