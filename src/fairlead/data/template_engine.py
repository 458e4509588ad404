"""Chat templates are programs of strangers: they render here, in an engine that stops them, the project's only one.

minijinja reaches no Python object, and its fuel ends every loop; but a text that doubles forty times ends the process
that renders it. So a template first renders once in a process of its own, with little memory.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

import minijinja

from fairlead.errors import ExitCode, UserError

FUEL = 10_000_000  # template instructions in one render: thousands of turns fit, a nested-loop bomb stops in a moment
MAX_TEMPLATE_CHARS = 64 << 10
MAX_OWN_CHARS = 1 << 20  # what a template may write beside the contents
MAX_MEMORY = 512 << 20  # bytes of address space of the process that tries a template first; a plain one needs 170 MiB
TRIAL_SECONDS = 20.0
_PARSER_STACK_BYTES = 128 << 20  # minijinja calls itself once per operator of an expression, and per elif
_TOO_MUCH = 3  # exit code of a trial

PLAIN_TEMPLATE = (
    "{{ opening }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% elif message.role == 'user' %}User: {{ message.content }}\n"
    "{% else %}Assistant: {{ message.content }}{{ eos_token }}\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""What a tokenizer without a chat template gets (GPT-2, OPT, BLOOM and other base models)."""

_GENERATION_TAG = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")  # transformers' own tag; it renders nothing
_TRIED = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Good morning."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who are you?"},
]


def renderer_of(tokenizer: Any) -> tuple[str, Callable[[list[dict[str, str]], bool], str]]:
    """Where a tokenizer's template comes from (`tokenizer` or `plain`), and the function that renders messages with it.

    Raises UserError for a template that cannot be parsed, or that asks for more memory or time than any needs; the
    function raises it where the template fails on these messages.
    """
    source, text = "tokenizer", tokenizer.chat_template
    if isinstance(text, dict):
        text = text.get("default")
    variables = dict(tokenizer.special_tokens_map)
    if not text:
        if tokenizer.eos_token is None:
            raise UserError("the tokenizer has neither a chat template nor an end token", fix="use another model")
        source, text = "plain", PLAIN_TEMPLATE
        # OPT's tokenizer opens every text with its bos token, GPT-2's does not: follow what the model was trained on.
        opens = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        variables["opening"] = tokenizer.bos_token if opens else ""
    environment = _environment(text)
    problem = _trial(json.dumps({"text": text, "variables": variables}, default=str))
    if problem:
        raise refused(problem, text[:200])

    def render(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        roles = ", ".join(message["role"] for message in messages[:8])  # before the template can change them
        allowed = MAX_OWN_CHARS + sum(len(message["content"]) for message in messages)
        try:
            rendered = _rendered(environment, messages, variables, add_generation_prompt=add_generation_prompt)
        except Exception as error:  # a template may call methods of lists and dicts, which raise what they like
            raise refused(f"it fails: {_first_line(error)}", f"a conversation of {roles}") from error
        if len(rendered) > allowed:
            raise refused(f"it writes {len(rendered)} characters", f"a conversation of {roles}")
        return rendered

    return source, render


def refused(problem: str, text: str) -> UserError:
    """The error of a template that cannot be used, with the text that shows why."""
    return UserError(
        f"this model's chat template cannot be used: {problem}",
        got=text if len(text) <= 400 else f"{text[:400]}…",
        fix="use a model whose chat template keeps every message, or repair chat_template.jinja in the model folder",
        exit_code=ExitCode.BAD_DATA,
    )


def _environment(text: str) -> minijinja.Environment:
    """The template `chat` with fuel, in an environment as transformers'."""
    environment = minijinja.Environment(trim_blocks=True, lstrip_blocks=True, fuel=FUEL)
    environment.add_filter("tojson", _tojson)
    environment.add_global("raise_exception", _raise_exception)
    environment.add_global("strftime_now", _strftime_now)
    try:
        _parse(environment, _GENERATION_TAG.sub(_untagged, text))
    except (minijinja.TemplateError, ValueError) as error:
        raise refused(f"it cannot be parsed: {_first_line(error)}", text[:200]) from error
    return environment


def _parse(environment: minijinja.Environment, text: str) -> None:
    """Add the template `chat`, in a thread with room for the deepest one: too small a stack would end the process."""
    if len(text) > MAX_TEMPLATE_CHARS:
        raise ValueError(f"it has {len(text)} characters, more than {MAX_TEMPLATE_CHARS}")
    usual = threading.stack_size(_PARSER_STACK_BYTES)
    try:
        with ThreadPoolExecutor(1) as parser:
            parser.submit(environment.add_template, "chat", text).result()
    finally:
        threading.stack_size(usual)


def _rendered(
    environment: minijinja.Environment,
    messages: list[dict[str, str]],
    variables: Mapping[str, str],
    *,
    add_generation_prompt: bool,
) -> str:
    # `tools` and `documents` stay undefined: templates ask `{% if tools %}` or `is defined`
    return environment.render_template(
        "chat", messages=messages, add_generation_prompt=add_generation_prompt, **variables
    )


@lru_cache(maxsize=64)
def _trial(program: str) -> str | None:
    """What is wrong with a template that renders a few messages in a process of its own; None where nothing is."""
    command = [sys.executable, "-m", "fairlead.data.template_engine"]
    try:
        tried = subprocess.run(
            command, input=program, capture_output=True, text=True, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it renders four messages for more than {TRIAL_SECONDS:.0f} s"
    if tried.returncode == 0:
        return None
    if tried.returncode < 0 or tried.returncode == _TOO_MUCH:
        return f"it asks for more than {MAX_MEMORY >> 20} MiB of memory, or writes a million characters"
    raise RuntimeError(f"the trial of a chat template ended with {tried.returncode}: {tried.stderr}")


def _try(program: str) -> NoReturn:
    """Render a few messages with little memory, and end with what came of it."""
    if sys.platform != "win32":  # where nothing can bound the memory, time does
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    given = json.loads(program)
    environment = _environment(given["text"])
    for messages in (_TRIED, _TRIED[1:]):
        for add_generation_prompt in (False, True):
            try:
                text = _rendered(environment, messages, given["variables"], add_generation_prompt=add_generation_prompt)
            except MemoryError:
                sys.exit(_TOO_MUCH)
            except Exception:  # noqa: BLE001, S112 - it fails on these messages: who asks for them is told
                continue
            if len(text) > MAX_OWN_CHARS:
                sys.exit(_TOO_MUCH)
    sys.exit(0)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _untagged(tag: re.Match[str]) -> str:
    return f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}"


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise ValueError(message)


def _strftime_now(pattern: str) -> str:
    """One fixed day: a stage that goes on tomorrow, and a model that answers next year, see what was trained."""
    return datetime(2026, 1, 1, tzinfo=UTC).strftime(pattern)


if __name__ == "__main__":
    _try(sys.stdin.read())
