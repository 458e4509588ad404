"""`fairlead eval MODEL`: measure a model, beside its parent."""

from fairlead.cli.words import Words, config_from_words, required, show_result
from fairlead.config.stages import EvalConfig


def evaluate(*words: Words) -> None:
    """Measure a model on held-out rows."""
    config = config_from_words("eval", EvalConfig, words, positional="model")
    required(config.model, "model", "name one: fairlead eval MODEL --conversations HELD_OUT.jsonl")
    from fairlead.cli.preflight import check_eval, is_reward

    check_eval(config)
    from fairlead.evaluate.evaluate import evaluate as measure

    folder = measure(config)
    ppo = ("ppo", "--reward-model", config.model, "--data", "PROMPTS.jsonl")
    show_result("Measurements", folder, ppo if is_reward(config.model) else ("chat", config.model))
