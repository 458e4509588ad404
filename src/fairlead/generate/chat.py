"""A dialogue in the terminal: the answer streams, the dialogue is kept."""

import sys

from fairlead.config.common import RuntimeConfig, SamplingConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.generate.engine import Engine
from fairlead.generate.policy import load_policy
from fairlead.generate.text import TextStream
from fairlead.models.sources import resolve
from fairlead.records import Message
from fairlead.runtime.start import start

HELP = "Ctrl-D or /quit ends, /new forgets the dialogue."


def chat(
    model: str, *, prompt: str | None, system: str | None, sampling: SamplingConfig, runtime: RuntimeConfig
) -> None:
    """Answer `prompt` once, or talk until the input ends."""
    source = resolve(model)
    started = start(runtime)
    policy = load_policy(source, started)
    engine, template = policy.engine, policy.template
    for note in policy.notes:
        print(note, file=sys.stderr)
    opening = (Message("system", system),) if system else ()
    if prompt is not None:
        answer(engine, template, (*opening, Message("user", prompt)), sampling, seed=started.seed)
        return
    print(f"{source.name} ({started.describe()})\n{HELP}", file=sys.stderr)
    _talk(engine, template, opening, sampling, started.seed)


def _talk(
    engine: Engine, template: ChatTemplate, opening: tuple[Message, ...], sampling: SamplingConfig, seed: int
) -> None:
    dialogue = opening
    while True:
        try:
            line = input("\nyou> ").strip()
        except EOFError:
            return
        match line:
            case "":
                continue
            case "/quit":
                return
            case "/new":
                dialogue = opening
                continue
        dialogue = (*dialogue, Message("user", line))
        seed += 1
        dialogue = (*dialogue, Message("assistant", answer(engine, template, dialogue, sampling, seed=seed)))


def answer(
    engine: Engine, template: ChatTemplate, dialogue: tuple[Message, ...], sampling: SamplingConfig, *, seed: int
) -> str:
    """Print the answer as it grows; returns its text."""
    stream = TextStream(template.decode)

    def on_token(_: int, token: int) -> None:
        print(stream.add(token), end="", flush=True)

    (response,) = engine.generate([template.encode_prompt(dialogue)], sampling, seeds=[seed], on_token=on_token)
    print(stream.rest())
    return template.decode(response.tokens)
