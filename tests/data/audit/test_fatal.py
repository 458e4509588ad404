"""What training refuses at its start, each by name."""

from dataclasses import replace
from typing import get_args

import pytest

from data.audit.broken import CLEAN, Broken, facts, template, with_mask, without_messages
from fairlead.config.common import FatalFinding
from fairlead.data.audit.fatal import fatal_findings, refuse_fatal
from fairlead.data.audit.token_checks import ids_beyond_embedding
from fairlead.data.benchmark_items import BenchmarkItem
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Message, Prompt

QUESTION = BenchmarkItem("exam.jsonl:1", "What is the capital of France?")


def found(encoder, records=CLEAN, *, max_length=256, num_embeddings=320, items=()):
    return fatal_findings(records, encoder, facts(num_embeddings), items=items, max_length=max_length, seed=0)


def as_control(messages, max_length=None):
    """A template whose user's text is read with its special tokens."""
    encoded = template().encode(messages, max_length)
    place = encoded.roles.index("user")
    return replace(encoded, input_ids=(*encoded.input_ids[:place], 1, *encoded.input_ids[place + 1 :]))


def without_ends(ids, trained):
    """The mask of a collator that hides padding by its id, where that is the end token."""
    return [flag and token not in template().end_token_ids for token, flag in zip(ids, trained, strict=True)]


def whole_length(record):
    return len(template().encode(record.messages).input_ids)


SABOTAGE = {
    "end-token-trained": lambda: found(with_mask(without_ends), CLEAN[:2]),
    "trained-is-the-answers": lambda: found(with_mask(lambda _, trained: [*trained[1:], False])),
    "ids-beyond-embedding": lambda: found(template(), num_embeddings=100),
    "template-round-trip": lambda: found(without_messages(lambda message: message.content == "Is it a fox?")),
    "truncated-answers": lambda: found(template(), CLEAN[:1], max_length=whole_length(CLEAN[0]) - 3),
    "training-reads-as-chatting": lambda: found(
        Broken(encode_prompt=lambda messages: (7, *template().encode_prompt(messages)))
    ),
    "special-tokens-in-text": lambda: found(
        Broken(encode=as_control),
        [Conversation((Message("user", "<|im_start|> is it"), Message("assistant", "Yes.")), "rows.jsonl:1")],
    ),
    "contamination": lambda: found(template(), items=[QUESTION]),
}


def test_clean_rows():
    assert found(template(), items=[BenchmarkItem("exam.jsonl:1", "Name the largest river of Asia.")]) == []
    assert found(template(), []) == []
    assert found(template(), [Prompt((Message("user", "Is it a fox?"),), "rows.jsonl:1")]) == []
    assert refuse_fatal([]) == []


@pytest.mark.parametrize("name", SABOTAGE)
def test_each_is_refused_and_can_be_accepted(name):
    findings = SABOTAGE[name]()
    assert name in {finding.name for finding in findings}
    (finding,) = (finding for finding in findings if finding.name == name)
    with pytest.raises(UserError) as refusal:
        refuse_fatal([finding])
    assert refusal.value.exit_code == ExitCode.BAD_DATA
    assert refusal.value.where.startswith("rows.jsonl:")
    assert finding.number in refusal.value.got
    assert (f"data.accept=[{name}]" in refusal.value.fix) == (name != "ids-beyond-embedding")
    (warning,) = refuse_fatal([finding], accepted=[name])
    assert warning.startswith(f"warning: {name}, ")
    with pytest.raises(UserError):
        refuse_fatal([finding], accepted=["another"])


def test_every_name_that_can_be_accepted_is_shown():
    assert set(SABOTAGE) == {*get_args(FatalFinding), "ids-beyond-embedding"}


def test_all_that_was_accepted_stands_in_the_advice():
    findings = [finding for name in ("contamination", "trained-is-the-answers") for finding in SABOTAGE[name]()]
    with pytest.raises(UserError) as refusal:
        refuse_fatal(findings, accepted=["contamination"])
    assert "data.accept=[contamination,trained-is-the-answers]" in refusal.value.fix


def test_rows_that_are_set_aside_anyway_are_no_finding():
    long = Conversation((Message("user", "fox " * 200), Message("assistant", "Yes.")), "rows.jsonl:9")
    refused = Conversation((Message("user", "\ue000"), Message("assistant", "Yes.")), "rows.jsonl:10")
    assert found(template(), [*CLEAN, long, refused]) == []


def test_an_unknown_embedding_is_not_guessed():
    assert ids_beyond_embedding([], template().decode, facts(None)).verdict == "ok"
