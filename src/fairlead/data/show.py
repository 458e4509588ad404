"""`fairlead data show`: every token of a row with its role, and whether it is trained. No torch here."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.text import Text

from fairlead.data.chat_template import ChatTemplate, Encoded, TokenRole
from fairlead.data.load import read_all
from fairlead.records import Conversation, Document, Judgement, Message, Preference, Prompt, Record

_STYLES = {True: "bold green", False: "dim"}


def show(path: Path | str, tokenizer: Any, *, num_rows: int, max_length: int) -> str:
    """The first rows of a file as plain text, whatever kind it holds; see `show_rows`."""
    return "\n\n".join(text.plain for text in show_file(path, tokenizer, num_rows=num_rows, max_length=max_length))


def show_file(
    path: Path | str, tokenizer: Any, *, num_rows: int, max_length: int, columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Iterator[Text]:  # fmt: skip
    """A line on the file, or the folder of files, then its first rows; see `show_rows`."""
    records, layout = _records(path, columns, encoding)
    template = ChatTemplate(tokenizer)
    yield Text(f"{path}: layout {layout}, {len(records)} rows; chat template of the {template.source}")
    yield from show_rows(records, template, num_rows, max_length=max_length, tokenizer=tokenizer)


def show_rows(
    records: Sequence[Record], template: ChatTemplate, num_rows: int, *, max_length: int, tokenizer: Any
) -> Iterator[Text]:
    """One rich Text per sequence: green is trained. Its `plain` form says the same in words.

    Tokens are quoted as in JSON; one that is a part of a character stands as <its bytes in the vocabulary>.
    """
    for record in records[:num_rows]:
        if isinstance(record, Document):
            ids = tokenizer(record.text, add_special_tokens=False)["input_ids"][:max_length]
            yield _row(record.source, [(token, "text", True) for token in ids], tokenizer)
            continue
        for name, encoded in _encoded(record, template, max_length):
            tokens = zip(encoded.input_ids, encoded.roles, encoded.trained, strict=True)
            yield _row(f"{record.source}{name}", tokens, tokenizer)


def _records(path: Path | str, columns: Mapping[str, str] | None, encoding: str | None) -> tuple[Sequence[Record], str]:
    _, loaded = read_all(path, columns, encoding)
    return loaded.records, ", ".join(dict.fromkeys(loaded.layouts.values()))


def _encoded(record: Record, template: ChatTemplate, max_length: int) -> Iterator[tuple[str, Encoded]]:
    match record:
        case Conversation():
            yield "", template.encode(record.messages, max_length)
        case Preference():
            for rank, response in enumerate(record.responses, start=1):
                name = f" response {rank} of {len(record.responses)}"
                yield name, _answered(record.prompt, response, template, max_length)
        case Judgement():
            for response, desirable in zip(record.responses, record.desirable, strict=True):
                name = " desirable" if desirable else " undesirable"
                yield name, _answered(record.prompt, response, template, max_length)
        case Prompt():
            prompt = template.encode_prompt(record.messages)
            roles = template.encode([*record.messages, Message("assistant", "x")]).roles
            yield " prompt", _cut(prompt, (), roles, max_length)


def _answered(prompt: tuple[Message, ...], response: str, template: ChatTemplate, max_length: int) -> Encoded:
    before, answer = template.encode_response(prompt, response, end_token=True)
    return _cut(before, answer, template.encode([*prompt, Message("assistant", response)]).roles, max_length)


def _cut(prompt: tuple[int, ...], answer: tuple[int, ...], roles: tuple[TokenRole, ...], max_length: int) -> Encoded:
    """A prompt with an answer that is trained; `roles` may go on beyond both."""
    trained = (False,) * len(prompt) + (True,) * len(answer)
    return Encoded((prompt + answer)[:max_length], trained[:max_length], roles[: len(trained)][:max_length])


def _row(title: str, tokens: Iterable[tuple[int, str, bool]], tokenizer: Any) -> Text:
    """Tokens with whose words they are and whether they are trained, as a rich Text."""
    tokens = list(tokens)
    num_trained = sum(trained for *_, trained in tokens)
    text = Text(f"{title}: {len(tokens)} tokens, {num_trained} trained", style="bold")
    for (role, trained), group in groupby(tokens, key=lambda token: token[1:]):
        label = "trained" if trained else "not trained"
        text.append(f"\n  {role:9} {label:11} ", style="not bold")
        text.append(" ".join(_token(token, tokenizer) for token, _, _ in group), style=f"not bold {_STYLES[trained]}")
    return text


def _token(token: int, tokenizer: Any) -> str:
    decoded = tokenizer.decode([token])
    return f"<{tokenizer.convert_ids_to_tokens(token)}>" if "�" in decoded else json.dumps(decoded, ensure_ascii=False)
