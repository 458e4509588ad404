"""Break one thing of the rows themselves: that check names it, and no other; on clean files every verdict is ok."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.audit.broken import facts, named, template
from fairlead.data.audit.audit import audit_file
from fairlead.data.audit.duplicate_checks import contamination, equal_to
from fairlead.data.audit.encoded_rows import AuditedRow, encode_rows
from fairlead.data.audit.preference_checks import contradictions, length_bias, same_responses
from fairlead.data.audit.samples import pick, sample_rows
from fairlead.data.audit.scripts import script_of
from fairlead.data.audit.terminal import lines
from fairlead.data.benchmark_items import BenchmarkItem
from fairlead.data.chat_template import Encoded
from fairlead.records import Conversation, Message, Preference
from tiny import tiny_tokenizer
from tiny_stages import conversations, judgements, preferences, write_rows

PROMPTS = [{"prompt": row["messages"][0]["content"]} for row in conversations(24)]
KINDS = {
    "conversations": conversations(24), "preferences": preferences(20), "labelled answers": judgements(24),
    "prompts": PROMPTS,
}  # fmt: skip
QUESTION = "Which animal jumps over the lazy dog in the sentence that has every letter of the alphabet?"


def audit(tmp_path, rows, **options):
    path = write_rows(tmp_path / "rows.jsonl", rows)
    options = {"against": (), "max_length": 256, "num_samples": 3, "limit": 5000, "seed": 1} | options
    return audit_file(path, tiny_tokenizer(), facts(), **options)


def of(found, name):
    return next(finding for finding in found.findings if finding.name == name)


@pytest.mark.parametrize("kind", KINDS)
def test_clean_files(tmp_path, kind):
    found = audit(tmp_path, KINDS[kind])
    assert named(found.findings) == {}
    assert (found.kind, found.verdict, found.num_rows) == (kind, "ok", len(KINDS[kind]))
    assert found.count("ok") == len(found.findings) == (17 if kind == "preferences" else 14)
    assert len({sample.title.split()[0] for sample in found.samples}) == 3
    assert found.not_checked == ("Contamination: name evaluation files with --against.",)


def test_documents(tmp_path):
    rows = [{"text": f"{row['messages'][0]['content']}. {row['messages'][1]['content']}"} for row in conversations(24)]
    found = audit(tmp_path, rows)
    assert (found.kind, found.verdict) == ("documents", "ok")
    names = [finding.name for finding in found.findings]
    assert names[:2] == ["ids-beyond-embedding", "lengths"]
    assert len(names) == 7
    assert found.not_checked[0].startswith("Template, mask")
    assert all(piece.trained for sample in found.samples for piece in sample.pieces)


def test_several_records_of_one_line_are_told_apart(tmp_path):
    pairs = [pair("yes it is", "no", 1), pair("no", "never", 1, prompt="p")]
    rows, _ = encode_rows(pairs, template())
    assert [(row.record, row.response) for row in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert same_responses(pairs, [], rows, 256).verdict == "ok"


def test_rows_that_cannot_be_used(tmp_path):
    turns = [{"role": role, "content": "fox"} for role in ("user", "user", "assistant")]
    found = audit(tmp_path, [*conversations(24), {"messages": turns}])
    assert named(found.findings) == {"unreadable-rows": "fatal"}
    assert "In 1 of them roles are out of order." in of(found, "unreadable-rows").sentence
    (shown,) = of(found, "unreadable-rows").shown
    assert shown.source.endswith("rows.jsonl:25")
    many = audit(tmp_path, [*conversations(150), {"messages": turns}])
    assert named(many.findings)["unreadable-rows"] == "warning"


def test_answers_that_say_nothing(tmp_path):
    found = audit(tmp_path, [*conversations(24), {"prompt": "Really?", "completion": "..."}][-8:-1])
    assert named(found.findings) == {}
    mute = {"messages": [{"role": "user", "content": "Really?"}, {"role": "assistant", "content": "…!"}]}
    found = audit(tmp_path, [*conversations(24), mute])
    assert named(found.findings) == {"empty-answers": "warning"}
    empty = {"messages": [{"role": "user", "content": "Really?"}, {"role": "assistant", "content": ""}]}
    found = audit(tmp_path, [*conversations(24), empty])
    assert named(found.findings) == {"unreadable-rows": "fatal", "empty-answers": "warning"}


def test_duplicates(tmp_path):
    rows = conversations(24)
    again = [turn | {"content": f" {turn['content'].upper()}\n"} for turn in rows[1]["messages"]]
    found = audit(tmp_path, [*rows, {"messages": again}])
    assert named(found.findings) == {"exact-duplicates": "warning"}
    assert "equal to" in of(found, "exact-duplicates").shown[0].came
    assert of(found, "near-duplicates").number == "0 of 25 rows"


def test_near_duplicates(tmp_path):
    long = "the quick brown fox jumps over the lazy dog and then thanks everyone in Paris for a fine day today " * 2
    pair = [{"messages": [{"role": "user", "content": f"{long}{word}"}, {"role": "assistant", "content": "hello"}]}
            for word in ("hello", "again")]  # fmt: skip
    found = audit(tmp_path, [*conversations(12), *pair])
    assert named(found.findings) == {"near-duplicates": "warning"}
    assert of(found, "near-duplicates").number.startswith("1 of 14 rows")
    assert "% like" in of(found, "near-duplicates").shown[0].came
    few = audit(tmp_path, [*conversations(60), *pair])
    assert of(few, "near-duplicates").verdict == "ok"
    assert len(of(few, "near-duplicates").shown) == 1


def test_contamination(tmp_path):
    bench = tmp_path / "bench.jsonl"
    bench.write_text(
        json.dumps({"question": QUESTION, "answer": "the fox"}) + "\n" + json.dumps({"question": "x y z w v u"})
    )
    clean = audit(tmp_path, conversations(24), against=[bench])
    assert named(clean.findings) == {}
    assert clean.not_checked == ()
    stolen = {
        "messages": [
            {"role": "user", "content": f"Please: {QUESTION.upper()}"},
            {"role": "assistant", "content": "fox"},
        ]
    }
    found = audit(tmp_path, [*conversations(24), stolen], against=[bench])
    assert named(found.findings) == {"contamination": "fatal"}
    finding = of(found, "contamination")
    assert finding.shown[0].source.endswith("rows.jsonl:25")
    assert "bench.jsonl:1" in finding.shown[0].came
    assert finding.sentence.startswith("1 of 2 questions stand in rows; rows that hold one whole: 1.")
    half = stolen | {
        "messages": [stolen["messages"][0] | {"content": " ".join(QUESTION.split()[:14])}, stolen["messages"][1]]
    }
    assert named(audit(tmp_path, [*conversations(24), half], against=[bench]).findings) == {"contamination": "warning"}


def test_contamination_far_down_in_many_rows():
    rows = [
        Conversation((Message("user", f"fox {i}"), Message("assistant", "a")), f"rows.jsonl:{i}") for i in range(1500)
    ]
    stolen = Conversation((Message("user", QUESTION), Message("assistant", "a")), "rows.jsonl:1500")
    found = contamination([*rows, stolen, rows[0]], [BenchmarkItem("bench.jsonl:1", QUESTION)])
    assert [shown.source for shown in found.shown] == ["rows.jsonl:1500"]


def test_a_template_that_cannot_be_used(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", conversations(6))
    tokenizer = tiny_tokenizer("{% for m in messages %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}")
    options = {"against": (), "max_length": 256, "num_samples": 3, "limit": 9, "seed": 1}
    found = audit_file(path, tokenizer, facts(), **options)
    assert named(found.findings) == {"template-round-trip": "fatal"}
    assert found.samples == found.sampled == ()
    assert found.template == "none"
    assert "fatal: 1 fatal, 0 warnings, 5 ok" in [line.plain for line in lines(found)][-1]


def test_the_limit_bounds_what_is_encoded(tmp_path):
    found = audit(tmp_path, conversations(24), limit=5, num_samples=9)
    assert (found.num_rows, found.num_encoded, len(found.samples)) == (24, 5, 5)
    assert of(found, "template-round-trip").number == "0 of 5 sequences"
    assert of(found, "exact-duplicates").number == "0 of 24 rows"
    assert [s.title for s in audit(tmp_path, conversations(24), limit=5).samples] == [
        s.title for s in audit(tmp_path, conversations(24), limit=5).samples
    ]


def test_samples_say_role_and_weight(tmp_path):
    sample = audit(
        tmp_path, [{"messages": [{"role": "user", "content": "Hi 你"}, {"role": "assistant", "content": "Yes"}]}]
    ).samples[0]
    assert "".join(piece.text for piece in sample.pieces if piece.trained) == "Yes<|im_end|>"
    assert "".join(piece.text for piece in sample.pieces if piece.role == "user") == "Hi 你"
    (character,) = (piece for piece in sample.pieces if piece.text == "你")
    assert character.num_tokens == len(tiny_tokenizer()("你")["input_ids"]) > 1
    row = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "你"}]}]
    length = sample.num_tokens
    cut = [audit(tmp_path, row, max_length=n).samples[0] for n in range(length - 12, length)]
    assert any(sample.pieces[-1].text.startswith("<ä") for sample in cut)  # only a part of the character is left


def test_a_character_whose_tokens_differ_in_weight_is_not_one_piece():
    ids = tuple(tiny_tokenizer()("你")["input_ids"])
    encoded = Encoded(ids, (True, *[False] * (len(ids) - 1)), ("assistant",) * len(ids))
    (sample,) = sample_rows([AuditedRow("x:1", (), encoded)], tiny_tokenizer(), max_length=99)
    assert [piece.num_tokens for piece in sample.pieces] == [1] * len(ids)
    assert [piece.trained for piece in sample.pieces] == list(encoded.trained)


def test_the_terminal_names_check_row_and_fix(tmp_path):
    turns = [{"role": role, "content": "fox"} for role in ("user", "user", "assistant")]
    text = "\n".join(line.plain for line in lines(audit(tmp_path, [*conversations(24), {"messages": turns}])))
    assert "fatal    Unreadable rows: 1 of 25 rows (4.0 %)" in text
    assert "rows.jsonl:25: 1 × roles are out of order" in text
    assert "fix: mend these rows" in text


# --- preferences


def pair(chosen, rejected, line=1, prompt="q", **more):
    return Preference((Message("user", prompt),), (chosen, rejected), f"rows.jsonl:{line}", **more)


def test_length_bias():
    long_wins = [pair("a long answer", "short", i) for i in range(40)]
    short_wins = [pair("short", "a long answer", i) for i in range(40)]
    assert length_bias([*long_wins, *short_wins]).verdict == "ok"
    found = length_bias([*long_wins, *short_wins[:5]])
    assert (found.verdict, found.number) == ("warning", "longer is better in 88.9 %")
    assert "only prefers the longer one is right in 88.9 %" in found.sentence
    found = length_bias([*long_wins[:5], *short_wins])
    assert found.verdict == "warning"
    assert "only prefers the shorter one is right in 88.9 %" in found.sentence
    assert length_bias(long_wins[:3]).verdict == "ok"  # three pairs say little
    assert length_bias([pair("same", "size")]).number == "0 pairs"
    assert length_bias([pair("long answer", "short", grades=(1.0, 1.0))]).number == "0 pairs"


def test_chosen_is_rejected(tmp_path):
    assert same_responses([pair("Yes", "No")], [], [], 9).verdict == "ok"
    assert same_responses([pair("Yes", "yes ")], [], [], 9).verdict == "fatal"
    found = audit(tmp_path, [*preferences(20), {"prompt": "q", "chosen": "a", "rejected": "a"}])
    assert named(found.findings) == {"unreadable-rows": "fatal", "chosen-is-rejected": "fatal"}
    differ_late = {"prompt": "q", "chosen": "the fox " * 90 + "a", "rejected": "the fox " * 90 + "b"}
    found = audit(tmp_path, [*preferences(20), differ_late])
    assert "chosen-is-rejected" in named(found.findings)
    assert of(found, "chosen-is-rejected").shown[0].came == "the same 256 tokens"


def test_contradictions():
    assert contradictions([pair("a", "b"), pair("a", "b", 2), pair("b", "a", 3, prompt="p")]).verdict == "ok"
    found = contradictions([pair("a", "b"), pair("B", "a", 7)])
    assert found.verdict == "warning"
    assert found.shown[0].source == "rows.jsonl:7"
    assert "rows.jsonl:1" in found.shown[0].came


# --- pieces


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hello there", "Latin script"), ("今天天气很好", "Chinese"), ("def f(x): 返回数字一", "Chinese"),
        ("これはペンです", "Japanese"), ("안녕하세요", "Korean"), ("Привет", "Cyrillic script"),
        ("مرحبا", "Arabic script"),
        ("1 + 1 = 2", "no letters"), ("", "no letters"), ("ქართული", "another script"),
    ],
)  # fmt: skip
def test_scripts(text, name):
    assert script_of(text) == name


@given(st.text())
def test_every_text_has_one_script(text):
    assert script_of(text)


@given(st.lists(st.sampled_from(["a", "A", " a ", "b", "ｂ", "c"])))
def test_equal_rows_point_at_the_first(texts):
    records = [Conversation((Message("user", "q"), Message("assistant", text))) for text in texts]
    plain = [text.strip().lower().replace("ｂ", "b") for text in texts]
    assert equal_to(records) == {i: plain.index(text) for i, text in enumerate(plain) if plain.index(text) < i}


@given(st.integers(0, 50), st.integers(1, 60), st.integers(0, 5))
def test_drawn_rows_are_in_order(total, count, seed):
    places = pick(total, count, seed)
    assert places == sorted(set(places)) == pick(total, count, seed)
    assert len(places) == min(total, count)
    assert all(0 <= place < total for place in places)
