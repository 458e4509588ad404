import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.data.split import normalise_prompt, split_by_prompt, split_digest, without_prompts_of
from fairlead.errors import UserError
from fairlead.records import Conversation, Judgement, Message, Preference, Prompt


def prompt(text: str, source: str = "") -> Prompt:
    return Prompt((Message("user", text),), source)


RECORDS = st.lists(st.sampled_from("abcdefghijklmnopq").map(prompt), max_size=40)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello  World", "hello\nworld "),
        ("ＡＢＣ １２", "abc 12"),  # full-width
        ("Straße", "STRASSE"),
        ("ﬁne", "FINE"),  # a ligature
        ("e\u0301te", "\u00e9te"),  # composed and decomposed
    ],
)
def test_the_same_prompt_in_other_clothes(one, other):
    assert normalise_prompt([Message("user", one)]) == normalise_prompt([Message("user", other)])


def test_roles_and_words_make_a_difference():
    assert normalise_prompt([Message("user", "a")]) != normalise_prompt([Message("system", "a")])
    assert normalise_prompt([Message("user", "a b")]) != normalise_prompt([Message("user", "ab")])


@given(RECORDS, st.integers(0, 5))
def test_every_prompt_lies_in_one_part_and_nothing_is_lost(records, seed):
    different = {normalise_prompt(r.messages) for r in records}
    if len(different) < 2:
        return
    split = split_by_prompt(records, parts={"train": 0.7, "test": 0.3}, seed=seed)
    found = [normalise_prompt(r.messages) for part in split.parts.values() for r in part]
    assert sorted(found) == sorted(different)
    assert split.num_duplicates == len(records) - len(different)
    assert len(split.parts["train"]) == round(0.7 * len(different))


@given(st.permutations([prompt(c) for c in "abcdefghij"]), st.integers(0, 3))
def test_the_order_of_the_file_does_not_matter(records, seed):
    def sets(split):
        return {name: {r.messages for r in part} for name, part in split.parts.items()}

    parts = {"held_out": 3, "train": 1.0}
    shuffled = split_by_prompt(records, parts=parts, seed=seed)
    assert sets(shuffled) == sets(split_by_prompt(sorted(records, key=str), parts=parts, seed=seed))
    assert [len(part) for part in shuffled.parts.values()] == [3, 7]
    position = {id(r): i for i, r in enumerate(records)}
    for part in shuffled.parts.values():
        assert [position[id(r)] for r in part] == sorted(position[id(r)] for r in part)


def test_seeds_differ_and_the_first_of_duplicates_stays():
    records = [prompt(c) for c in "abcdefghijklmnop"]
    assert len({split_by_prompt(records, parts={"a": 8, "b": 8}, seed=s).digest for s in range(5)}) == 5
    kept = split_by_prompt([prompt("X", "f:1"), prompt(" x", "f:2")], parts={"all": 1.0}, seed=0)
    assert [r.source for r in kept.parts["all"]] == ["f:1"]
    assert kept.num_duplicates == 1


def test_answers_do_not_decide_where_a_prompt_goes():
    a, b = Message("user", "q"), Message("assistant", "x")
    conversations = [Conversation((a, b)), Conversation((a, Message("assistant", "y"))), Conversation((a, b))]
    assert split_by_prompt(conversations, parts={"all": 1.0}, seed=0).num_duplicates == 1
    assert split_by_prompt(conversations, parts={"all": 1.0}, seed=0, one_per_prompt=True).num_duplicates == 2
    preference = Preference((a,), ("x", "y"))
    assert split_by_prompt([preference, preference], parts={"all": 1.0}, seed=0).num_duplicates == 1
    other = Preference((a,), ("x", "z"))
    assert split_by_prompt([preference, other], parts={"all": 1.0}, seed=0).num_duplicates == 0


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=4), st.integers(0, 3))
def test_all_answers_to_a_prompt_stay_together(rows, count):
    different = set(rows)
    if len({question for question, _ in different}) < count + 1:
        return
    records = [Conversation((Message("user", q), Message("assistant", x))) for q, x in rows]
    split = split_by_prompt(records, parts={"held_out": count, "train": 1.0}, seed=0)
    found = {name: [(r.messages[0].content, r.messages[1].content) for r in part] for name, part in split.parts.items()}
    assert sorted(found["held_out"] + found["train"]) == sorted(different)
    assert not {q for q, _ in found["held_out"]} & {q for q, _ in found["train"]}
    assert count <= len(found["held_out"]) <= count + 2  # three answers at most: the last prompt may bring two more


def test_training_rows_with_a_held_out_prompt_are_found():
    records = [prompt("a"), prompt("b"), prompt(" A")]
    assert without_prompts_of(records, [prompt("a")]) == records[1:2]
    assert without_prompts_of(records, []) == records


def test_the_digest_sees_content_and_part_but_not_the_path():
    one = split_digest({"a": [prompt("x", "f:1")], "b": []})
    assert one == split_digest({"b": [], "a": [prompt("x", "elsewhere:9")]})
    assert one != split_digest({"a": [], "b": [prompt("x")]})
    assert one != split_digest({"a": [prompt("y")], "b": []})
    assert split_digest({"a": [Preference((), ("x", "y"))]}) != split_digest({"a": [Preference((), ("y", "x"))]})
    graded = [split_digest({"a": [Preference((), ("x", "y"), "", grades)]}) for grades in ((), (2.0, 1.0), (3.0, 1.0))]
    assert len(set(graded)) == 3


def test_too_few_rows_say_so():
    with pytest.raises(UserError, match="too few rows") as caught:
        split_by_prompt([prompt("a")], parts={"held_out": 64, "train": 1.0}, seed=0)
    assert caught.value.exit_code == 65


def test_one_answer_with_two_labels_is_no_duplicate():
    records = [
        Judgement((Message("user", "q"),), ("a",), (label,), f"f:{n}") for n, label in enumerate((True, False, True))
    ]
    split = split_by_prompt(records, parts={"train": 1.0}, seed=0)
    assert [record.desirable for record in split.parts["train"]] == [(True,), (False,)]
    assert split.digest != split_by_prompt(records[:1], parts={"train": 1.0}, seed=0).digest
    assert split_digest({"a": records[:1]}) != split_digest({"a": records[1:2]})
