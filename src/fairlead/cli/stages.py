"""`fairlead sft`, `reward`, `dpo` and `ppo`: one stage each, with a recipe or with options alone."""

from fairlead.cli.words import Words, config_from_words, show_result
from fairlead.config.stages import DpoConfig, PpoConfig, RewardConfig, SftConfig


def sft(*words: Words) -> None:
    """Fine-tune on conversations."""
    config = config_from_words("sft", SftConfig, words)
    from fairlead.train.sft import train_sft

    folder = train_sft(config)
    show_result(
        "Fine-tuned model",
        folder,
        f"fairlead chat {folder}",
        f"fairlead reward --model {folder} --data PREFERENCES.jsonl --output {config.output}",
    )


def reward(*words: Words) -> None:
    """Train a reward model on preference pairs."""
    config = config_from_words("reward", RewardConfig, words)
    from fairlead.train.reward import train_reward

    folder = train_reward(config)
    show_result(
        "Reward model",
        folder,
        f"fairlead ppo --model {config.model.name} --reward-model {folder} --data PROMPTS.jsonl "
        f"--output {config.output}",
    )


def dpo(*words: Words) -> None:
    """Optimise on preference pairs directly."""
    config = config_from_words("dpo", DpoConfig, words)
    from fairlead.train.dpo import train_dpo

    folder = train_dpo(config)
    show_result("Aligned model", folder, f"fairlead chat {folder}", f"fairlead eval {folder} --prompts PROMPTS.jsonl")


def ppo(*words: Words) -> None:
    """Optimise against a reward model."""
    config = config_from_words("ppo", PpoConfig, words)
    from fairlead.train.ppo import train_ppo

    folder = train_ppo(config)
    show_result(
        "Aligned model",
        folder,
        f"fairlead chat {folder}",
        f"fairlead eval {folder} --reward-model {config.reward_model} --prompts PROMPTS.jsonl",
    )
