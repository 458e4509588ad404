"""`fairlead chat MODEL`: talk to a model, or get one answer."""

from fairlead.cli.words import Words, config_from_words
from fairlead.config.chat import ChatConfig


def chat(*words: Words) -> None:
    """Talk to a model in the terminal."""
    config = config_from_words("chat", ChatConfig, words, positional="model")
    from fairlead.cli.preflight import check_chat

    check_chat(config)
    from fairlead.generate.chat import chat as talk

    talk(
        config.model,
        prompt=config.prompt or None,
        system=config.system or None,
        sampling=config.sampling,
        runtime=config.runtime,
    )
