"""What each layout of dialogues and prompts means: one reader per layout. No torch here."""

import re
from typing import Any

from fairlead.data.drafts import BadRowError, Draft
from fairlead.data.fields import (
    NO_TOOLS,
    as_text,
    dialogue,
    items,
    named_turns,
    prompt,
    required,
    text,
    texts,
    with_system,
)
from fairlead.records import Message

TURNS = ("messages", "conversations", "conversation")  # the names of a list of turns
BELLE_TURN = re.compile(r"(?:^|\n)(Human|Assistant):")
MOSS_TURN = re.compile(r"\[(Human|MOSS)\]:")
_MOSS_MARK = re.compile(r"^<\|[A-Za-z ]+\|>:|<eo[a-z]>\s*$")
_MOSS_END = re.compile(r"<eo[ham]>")


def _user(content: str) -> Message:
    return Message("user", content)


def _assistant(content: str) -> Message:
    return Message("assistant", content)


def _instructed(instruction: str, given: str) -> Message:
    """An instruction with the input it is about."""
    return _user(f"{instruction}\n{given}" if given.strip() else instruction)


def turns(row: dict[str, Any]) -> tuple[Message, ...]:
    """The list of turns of a row, with `system` before it where there is one."""
    if row.get("tools") not in (None, "", "[]", []):
        raise BadRowError(NO_TOOLS)
    key = next((key for key in TURNS if row.get(key) is not None), TURNS[0])
    messages = dialogue(items(row, key))
    return messages if messages[:1] and messages[0].role == "system" else with_system(row, messages)


def conversation(row: dict[str, Any]) -> Draft:
    """`messages`, `conversations` or `conversation`: OpenAI's turns and ShareGPT's."""
    return Draft(turns(row))


def alpaca_prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    """What stands before the answer: system, history, instruction and input."""
    messages: list[Message] = []
    for exchange in items(row, "history") if row.get("history") else ():
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise BadRowError("`history` should be a list of [question, answer]")
        question, answer = (as_text(value, "a text in `history`") for value in exchange)
        messages += [_user(question), _assistant(answer)]
    messages.append(_instructed(text(row, "instruction"), text(row, "input", "")))
    return with_system(row, tuple(messages))


def alpaca(row: dict[str, Any]) -> Draft:
    """Stanford Alpaca; LLaMA-Factory added `system` and `history`, BELLE's single rounds look alike."""
    return Draft((*alpaca_prompt(row), _assistant(text(row, "output"))))


def belle_dialogue(row: dict[str, Any]) -> Draft:
    """BELLE's multi-turn rows: all rounds before the answer in one instruction."""
    pieces = BELLE_TURN.split(text(row, "instruction"))
    if pieces[0].strip() or len(pieces) < 3:
        raise BadRowError('the instruction does not begin with "Human:"')
    return Draft((*with_system(row, named_turns(pieces)), _assistant(text(row, "output"))))


def dolly(row: dict[str, Any]) -> Draft:
    """Databricks' Dolly: the context, where there is one, is what the instruction is about."""
    asked = _instructed(text(row, "instruction"), text(row, "context", ""))
    return Draft((asked, _assistant(text(row, "response"))))


def self_instruct(row: dict[str, Any]) -> list[Draft]:
    """A task of self-instruct (Wang et al. 2022): every instance is a dialogue."""
    instances = items(row, "instances")
    if not instances:
        raise BadRowError("the task has no instance")
    found = []
    for instance in instances:
        if not isinstance(instance, dict):
            raise BadRowError(f"an instance should be an object and is a {type(instance).__name__}")
        asked = _instructed(text(row, "instruction"), text(instance, "input", ""))
        found.append(Draft((asked, _assistant(text(instance, "output")))))
    return found


def firefly(row: dict[str, Any]) -> Draft:
    """Firefly's rounds {human, assistant}."""
    messages: list[Message] = []
    for exchange in items(row, "conversation"):
        if not isinstance(exchange, dict):
            raise BadRowError(f"a round should be an object and is a {type(exchange).__name__}")
        messages += [_user(text(exchange, "human")), _assistant(text(exchange, "assistant"))]
    return Draft(with_system(row, tuple(messages)))


def firefly_target(row: dict[str, Any]) -> Draft:
    """Firefly's first data: kind, input, target."""
    return Draft((_user(text(row, "input")), _assistant(text(row, "target"))))


def moss(row: dict[str, Any]) -> Draft:
    """MOSS 003 (Sun et al. 2023): rounds of thoughts, commands, results and words. A command is a tool call.

    The thoughts are not said to the user and are left out.
    """
    chat = required(row, "chat")
    if not isinstance(chat, dict):
        raise BadRowError(f"`chat` should be an object and is a {type(chat).__name__}")
    system = text(row, "meta_instruction", "").strip()
    messages = [Message("system", system)] if system else []
    for name in sorted(chat, key=_moss_position):
        said = chat[name]
        if not isinstance(said, dict):
            raise BadRowError(f"a round should be an object and is a {type(said).__name__}")
        if _unmarked(text(said, "Commands", "None")) not in ("None", ""):
            raise BadRowError(NO_TOOLS)
        messages += [_user(_unmarked(text(said, "Human"))), _assistant(_unmarked(text(said, "MOSS")))]
    return Draft(tuple(messages))


def _moss_position(name: str) -> int:
    number = name.removeprefix("turn_")
    if not (number.isdecimal() and len(number) < 6):
        raise BadRowError(f"a round of `chat` is called {name!r}, not turn_1, turn_2 ...")
    return int(number)


def _unmarked(said: str) -> str:
    """The words between `<|MOSS|>:` and `<eom>`."""
    return _MOSS_MARK.sub("", said.strip()).strip()


def moss_text(row: dict[str, Any]) -> Draft:
    """MOSS 001 and 002: "[Human]: ...<eoh> [MOSS]: ...<eoa>" in one text, the instruction in `prefix`."""
    pieces = MOSS_TURN.split(text(row, "plain_text"))
    if pieces[0].strip() or len(pieces) < 3:
        raise BadRowError('the text does not begin with "[Human]:"')
    system = text(row, "prefix", text(row, "meta_instruction", "")).strip()
    messages = [Message("system", system)] if system else []
    for name, said in zip(pieces[1::2], pieces[2::2], strict=True):
        words = _MOSS_END.split(said)[0].strip()
        messages.append(_user(words) if name == "Human" else _assistant(words))
    return Draft(tuple(messages))


def prompt_completion(row: dict[str, Any]) -> Draft:
    """The format of GPT-3 fine-tuning: a space first, the end token written out at the end."""
    completion = required(row, "completion")
    if isinstance(completion, list):
        return Draft((*prompt(row), *dialogue(completion)))
    answer = as_text(completion, "`completion`").strip().removesuffix("<|endoftext|>").strip()
    return Draft((*prompt(row), _assistant(answer)))


def ultrachat(row: dict[str, Any]) -> Draft:
    """UltraChat (Ding et al. 2023): the user and the assistant in turn."""
    speakers = (_user, _assistant)
    return Draft(tuple(speakers[place % 2](said) for place, said in enumerate(texts(row, "data"))))


def question_answer(row: dict[str, Any]) -> Draft:
    """GSM8K's files."""
    return Draft((_user(text(row, "question")), _assistant(text(row, "answer"))))


def only_prompt(row: dict[str, Any]) -> Draft:
    """A prompt, and the answer that a verifier compares with, if there is one."""
    if row.get("prompt") is not None:
        answer = row.get("answer")
        return Draft((*prompt(row), *([_assistant(answer)] if isinstance(answer, str) else [])))
    if row.get("user_prompt") is not None:
        return Draft((_user(text(row, "user_prompt")),))
    return Draft(alpaca_prompt(row))
