"""What training refuses at its start, each by name."""

import pytest

from data.audit.broken import template
from fairlead.data.audit.fatal import fatal_findings, refuse_fatal
from fairlead.data.examples import Example, conversation_examples
from fairlead.errors import ExitCode, UserError
from fairlead.records import Conversation, Message

ENDS = (2,)
GOOD = Example((1, 5, 6, 2), (False, False, True, True), "rows.jsonl:1")


def names(rows, **options):
    return [
        finding.name for finding in fatal_findings(rows, **({"num_embeddings": 320, "end_token_ids": ENDS} | options))
    ]


def test_clean_rows():
    records = [Conversation((Message("user", "a"), Message("assistant", "b")), "x:1")]
    rows, _ = conversation_examples(records, template(), 256)
    assert names(rows, end_token_ids=template().end_token_ids) == []
    assert names([]) == []
    assert refuse_fatal([]) == []


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([GOOD, Example((1, 5, 2), (False, False, False), "rows.jsonl:2")], "no-trained-token"),
        ([GOOD, Example((1, 5, 2), (True, False, False), "rows.jsonl:2")], "no-trained-token"),
        ([GOOD, Example((1, 125696, 2), (False, True, True), "rows.jsonl:2")], "ids-beyond-embedding"),
        ([GOOD, Example((1, -100, 2), (False, True, True), "rows.jsonl:2")], "ids-beyond-embedding"),
        ([Example((1, 2, 6), (False, False, True), "rows.jsonl:2")], "end-token-trained"),
    ],
)
def test_each_is_refused_and_can_be_accepted(rows, name):
    assert names(rows) == [name]
    found = fatal_findings(rows, num_embeddings=320, end_token_ids=ENDS)
    with pytest.raises(UserError) as refusal:
        refuse_fatal(found)
    assert refusal.value.exit_code == ExitCode.BAD_DATA
    assert refusal.value.where == "rows.jsonl:2"
    assert f"data.accept=[{name}]" in refusal.value.fix
    (warning,) = refuse_fatal(found, accepted=[name])
    assert warning.startswith(f"warning: {name}, ")
    with pytest.raises(UserError):
        refuse_fatal(found, accepted=["another"])


def test_what_is_not_known_is_not_looked_for():
    assert names([Example((1, 9999), (False, True))], num_embeddings=None, end_token_ids=()) == []
