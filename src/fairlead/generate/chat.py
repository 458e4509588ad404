"""A dialogue in the terminal: the answer streams, the dialogue is kept."""

import sys
from collections.abc import Callable

from fairlead.config.common import RuntimeConfig, SamplingConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.errors import UserError
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen
from fairlead.models.loading import tokenizer_in
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.records import Message
from fairlead.runtime.start import start

HELP = "Ctrl-D or /quit ends, /new forgets the dialogue."


def chat(
    model: str, *, prompt: str | None, system: str | None, sampling: SamplingConfig, runtime: RuntimeConfig
) -> None:
    """Answer `prompt` once, or talk until the input ends."""
    source = resolve(model)
    if source.kind != "policy":
        raise UserError(
            f"this is a {source.kind}, which gives scores and no answers", where=model, want="a policy",
            fix="chat with an sft, dpo, kto, ppo or grpo stage; `fairlead runs` lists them",
        )  # fmt: skip
    started = start(runtime)
    template = ChatTemplate(tokenizer_in(source.base.folder))
    roles = Roles()
    add_frozen(roles, "policy", source, "logprobs", started)
    for note in roles.notes:
        print(note, file=sys.stderr)
    engine = Engine(roles, "policy", template.end_token_ids, started, decode=template.decode)
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
    tokens: list[int] = []
    printer = _Printer(template, lambda text: print(text, end="", flush=True))

    def on_token(_: int, token: int) -> None:
        tokens.append(token)
        printer.show(tokens)

    engine.generate([template.encode_prompt(dialogue)], sampling, seeds=[seed], on_token=on_token)
    printer.end(tokens)
    return template.decode(tokens)


class _Printer:
    """Prints only what can no longer change: a character may need several tokens."""

    def __init__(self, template: ChatTemplate, write: Callable[[str], None]) -> None:
        self._template, self._write, self._shown = template, write, 0

    def show(self, tokens: list[int]) -> None:
        text = self._template.decode(tokens)
        if not text.endswith("\ufffd"):
            self._write(text[self._shown :])
            self._shown = len(text)

    def end(self, tokens: list[int]) -> None:
        self._write(self._template.decode(tokens)[self._shown :] + "\n")
