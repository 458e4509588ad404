"""`fairlead sft`: supervised fine-tuning, with a recipe or with nothing but `--data my.jsonl`."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.stages import SftConfig


def sft(*words: Words) -> None:
    """Fine-tune on conversations."""
    config = config_from_words("sft", SftConfig, words)
    from fairlead.cli.preflight import check_stage

    check_stage("sft", config)
    from fairlead.train.sft import train_sft

    folder = train_sft(config)
    show_result(
        "Fine-tuned model",
        folder,
        ("chat", folder),
        ("reward", "--model", folder, "--data", "PREFERENCES.jsonl", "--output", config.output),
    )
