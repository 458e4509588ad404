"""A clean template and rows, and templates that are broken in one way each."""

from dataclasses import replace
from functools import cache

from fairlead.data.audit.audit import token_findings
from fairlead.data.audit.encoded_rows import encode_rows
from fairlead.data.audit.model_facts import facts_of
from fairlead.data.chat_template import ChatTemplate
from fairlead.records import Conversation, Message, Preference
from tiny import tiny_tokenizer

NUM_EMBEDDINGS = 320
MAX_LENGTH = 256
CLEAN = (
    Conversation((Message("user", "Is it a fox?"), Message("assistant", "It is a dog.")), "rows.jsonl:1"),
    Conversation(
        (
            Message("system", "You are brief."),
            Message("user", "What is the capital of France?"),
            Message("assistant", "Paris\n\nis it."),
            Message("user", "今天天气很好"),
            Message("assistant", "你好 👍"),
        ),
        "rows.jsonl:2",
    ),
    Preference((Message("user", "Hello?"),), ("Hello, how are you?", "No."), "rows.jsonl:3"),
    Preference(
        (Message("user", "Hello?"), Message("assistant", "Yes."), Message("user", "And?")),
        ("The fox jumps.", "Lazy dog"),
        "rows.jsonl:4",
    ),
)


@cache
def template():
    return ChatTemplate(tiny_tokenizer())


def facts(num_embeddings=NUM_EMBEDDINGS):
    return facts_of("tiny", tiny_tokenizer(), num_embeddings)


class Broken:
    """The clean template with some of its methods replaced."""

    def __init__(self, **methods):
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(template(), name)


def with_mask(change):
    """Every encoding's mask as `change(ids, trained)` has it; of responses too."""

    def encode(messages, max_length=None):
        encoded = template().encode(messages, max_length)
        return replace(encoded, trained=tuple(change(encoded.input_ids, encoded.trained)))

    return Broken(encode=encode)


def without_messages(is_dropped):
    """A template that does not write some messages, in training and in chatting."""

    def kept(messages):
        return [message for message in messages if not is_dropped(message)]

    return Broken(
        encode=lambda messages, max_length=None: template().encode(kept(messages), max_length),
        encode_prompt=lambda messages: template().encode_prompt(kept(messages)),
        render=lambda messages, **options: template().render(kept(messages), **options),
    )


def findings(encoder, records=CLEAN, *, max_length=MAX_LENGTH, of=None):
    rows, refused = encode_rows(records, encoder)
    return token_findings(rows, refused, encoder, of or facts(), max_length=max_length)


def named(found):
    """Checks that are not ok, with their verdicts."""
    return {finding.name: finding.verdict for finding in found if finding.verdict != "ok"}
