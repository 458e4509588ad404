"""Comparisons of a tiny model's answers: drawn once, scored, and chosen as slow rules choose."""

import json
import math
import shutil

import pytest
import torch
from argon2 import PasswordHasher
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fairlead.cli.main import run
from fairlead.cli.preflight import check_compare
from fairlead.config.common import RuntimeConfig, SamplingConfig
from fairlead.config.compare import CompareConfig
from fairlead.config.parse import load
from fairlead.errors import ExitCode, UserError
from fairlead.feedback import accounts
from fairlead.feedback.accounts import add_user, keeper
from fairlead.feedback.chats import add_message, new_chat
from fairlead.feedback.comparisons import answers_of_all, next_task, prompt_digest
from fairlead.feedback.schema import comparisons
from fairlead.feedback.store import open_store
from fairlead.generate.policy import load_policy
from fairlead.models.sources import resolve
from fairlead.pipeline import compare as module
from fairlead.records import Message, Prompt
from fairlead.runtime.start import start
from tiny import write_conversations

MACHINE = ("runtime.device=cpu", "runtime.dtype=float32", "runtime.num_threads=1", "sampling.max_new_tokens=12")
PROMPTS = [f"{word} {i} what is it of the capital?" for i, word in enumerate(["fox", "dog", "Paris", "hello"] * 5)]


@pytest.fixture(scope="module")
def reward(world):
    return str(world.reward)


@pytest.fixture(scope="module")
def talker(world):
    """A policy that says words: what a random model says is broken inside characters."""
    rows = write_conversations(world.root / "english.jsonl", 40)
    words = ("num_epochs=12", "model.tuning=full", "data.held_out_rows=0", f"data.train={rows}")
    return world.run("sft", world.root / "talker-of-words", *words)


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch):
    monkeypatch.setattr(accounts, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def compare(talker, tmp_path):
    """Run the command on these prompts; what it added, and what the store then holds."""

    def compare(*words, store="labels.db", prompts=PROMPTS):
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps({"messages": [{"role": "user", "content": p}]}) + "\n" for p in prompts))
        given = {word.partition("=")[0] for word in words}
        base = [f"store={tmp_path / store}", f"data={path}", f"models={talker}", "comparisons=100", *MACHINE]
        config = load(CompareConfig, None, [*(w for w in base if w.partition("=")[0] not in given), *words])
        added = module.compare(config, check_compare(config))
        return added, held(tmp_path / store)

    return compare


def held(path):
    """Each comparison with its answers."""
    store = open_store(str(path))
    with store.read() as connection:
        rows = [dict(row) for row in connection.execute(comparisons.select().order_by(comparisons.c.id)).mappings()]
        given = answers_of_all(connection)
    store.close()
    return [row | {"answers": given[row["id"]]} for row in rows]


def asked(rows):
    return [row["prompt"][-1]["content"] for row in rows]


def rewards(row):
    return [answer["details"]["reward"] for answer in row["answers"]]


def test_answers_can_be_drawn_again_from_what_is_kept(compare, talker, tmp_path):
    added, rows = compare("comparisons=6", "answers=3", "wanted=2", "sampling.temperature=0.9")
    assert (added.added, added.before, len(rows)) == (6, 0, 6)
    policy = load_policy(resolve(str(talker)), start(RuntimeConfig(device="cpu", dtype="float32", num_threads=1)))
    for row in rows:
        assert (row["wanted"], row["interest"], len(row["answers"])) == (2, 0, 3)
        line = PROMPTS.index(asked([row])[0]) + 1
        assert row["source"] == f"{tmp_path / 'prompts.jsonl'}:{line}"
        ids = policy.template.encode_prompt([Message("user", asked([row])[0])])
        for answer in row["answers"]:
            assert answer["model"] == talker.name
            sampling = SamplingConfig(**answer["details"]["sampling"])
            assert (sampling.max_new_tokens, sampling.temperature) == (12, 0.9)
            (response,) = policy.engine.generate([ids], sampling, seeds=[answer["details"]["seed"]])
            assert policy.template.decode(response.tokens) == answer["content"]
    texts = [answer["content"].strip() for row in rows for answer in row["answers"]]
    assert len(set(texts)) == len(texts)


def test_what_is_there_is_not_drawn_again(compare, monkeypatch):
    _, first = compare("comparisons=5")
    added, second = compare("comparisons=8")
    assert (added.added, added.before) == (3, 5)
    assert second[:5] == first
    assert len(set(asked(second))) == 8
    monkeypatch.setattr(module, "draw", None)
    added, third = compare("comparisons=8")
    assert (added.added, added.before, third) == (0, 8, second)


def test_it_goes_on_where_it_was_cut_off(compare, monkeypatch):
    add, left = module.add_comparison, iter(range(3))

    def cut(*words, **options):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return add(*words, **options)

    monkeypatch.setattr(module, "add_comparison", cut)
    with pytest.raises(KeyboardInterrupt):
        compare("comparisons=7")
    monkeypatch.setattr(module, "add_comparison", add)
    added, cut_off = compare("comparisons=7")
    assert (added.added, added.before) == (4, 3)
    _, straight = compare("comparisons=7", store="other.db")
    answers = [[[answer["content"] for answer in row["answers"]] for row in rows] for rows in (cut_off, straight)]
    assert (asked(cut_off), answers[0]) == (asked(straight), answers[1])


def test_other_models_are_another_comparison(compare, talker, tmp_path):
    other = shutil.copytree(talker, tmp_path / "other")
    compare("comparisons=4")
    added, rows = compare("comparisons=4", f"models=mine={talker},{other}", "answers=3")
    assert added.added == 4
    assert [answer["model"] for answer in rows[-1]["answers"]] == ["mine", "other", "mine"]
    same = [row for row in rows if row["prompt_sha256"] == rows[0]["prompt_sha256"]]
    assert len(same) == 2


def test_scores_are_those_of_the_reward_model_as_it_was_trained(compare, world, reward):
    """As the classifier of transformers and PEFT scores the text that transformers renders, up to its end token."""
    base = AutoModelForSequenceClassification.from_pretrained(world.model, num_labels=1, pad_token_id=0)
    classifier = PeftModel.from_pretrained(base, f"{reward}/model").eval()
    tokenizer = AutoTokenizer.from_pretrained(world.model)
    _, rows = compare("comparisons=4", f"reward={reward}")
    for row in rows:
        for answer, found in zip(row["answers"], rewards(row), strict=True):
            dialogue = [*row["prompt"], {"role": "assistant", "content": answer["content"]}]
            text = tokenizer.apply_chat_template(dialogue, tokenize=False).rstrip("\n")
            ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                assert found == pytest.approx(classifier(ids).logits.item(), abs=1e-4)
    assert len({score for row in rows for score in rewards(row)}) == 8


def test_uncertain_chooses_the_smallest_differences_first(compare, reward):
    _, every = compare(f"reward={reward}", "answers=2")
    by_gap = sorted(every, key=lambda row: abs(rewards(row)[0] - rewards(row)[1]))
    added, chosen = compare(
        "pick=uncertain", f"reward={reward}", "comparisons=4", "prompts_per_comparison=5", store="chosen.db"
    )
    assert added.added == 4
    assert asked(chosen) == asked(by_gap[:4])
    for row in chosen:
        share = 1 / (1 + math.exp(rewards(row)[1] - rewards(row)[0]))
        assert row["interest"] == round(1000 * (1 - abs(2 * share - 1)))


def test_fewer_prompts_are_answered_for_each_choice_where_fewer_are_wanted(compare, reward, monkeypatch):
    draw, sizes = module.draw, []
    monkeypatch.setattr(module, "draw", lambda *words: sizes.append(len(words[2])) or draw(*words))
    compare("pick=uncertain", f"reward={reward}", "comparisons=3", "prompts_per_comparison=2")
    compare("comparisons=3", store="other.db")
    assert sizes == [6, 3]


def test_disagreement_chooses_where_scorers_differ(compare, reward):
    """With the length rule as the other scorer: the longer answer has the lower reward."""
    _, every = compare(f"reward={reward}")

    def split(row):
        lengths = [len(answer["content"]) for answer in row["answers"]]
        return (lengths[0] - lengths[1]) * (rewards(row)[0] - rewards(row)[1]) < 0

    expected = {asked([row])[0] for row in every if split(row)}
    assert 0 < len(expected) < len(every)
    _, chosen = compare("pick=disagreement", f"reward={reward},length", f"comparisons={len(every)}", store="chosen.db")
    assert {asked([row])[0] for row in chosen if row["interest"] == 1000} == expected
    assert [row["interest"] for row in chosen] == sorted((row["interest"] for row in chosen), reverse=True)


def test_likelihood_is_a_scorer_too(compare, talker):
    """Against the length rule; likelihood is the mean over the tokens of what the engine reports."""
    _, rows = compare("pick=disagreement", "reward=length,likelihood")
    policy = load_policy(resolve(str(talker)), start(RuntimeConfig(device="cpu", dtype="float32", num_threads=1)))
    for row in rows:
        ids = policy.template.encode_prompt([Message("user", asked([row])[0])])
        likely = []
        for answer in row["answers"]:
            sampling = SamplingConfig(**answer["details"]["sampling"])
            (response,) = policy.engine.generate([ids], sampling, seeds=[answer["details"]["seed"]])
            likely.append(sum(response.logprobs) / len(response.logprobs))
        lengths = [len(answer["content"]) for answer in row["answers"]]
        if lengths[0] != lengths[1]:
            assert (row["interest"] == 1000) == ((lengths[0] - lengths[1]) * (likely[0] - likely[1]) < 0)
        assert "reward" not in row["answers"][0]["details"]


def test_coverage_takes_each_kind_of_prompt_before_a_second_of_one(compare):
    same = [f"please tell me all about the quick brown fox and the lazy dog of today number {i}" for i in range(12)]
    others = ["what is the capital of France and of Paris", "hello assistant how fine are you all today", "thank you"]
    _, rows = compare("pick=coverage", "comparisons=4", prompts=[*same, *others])
    assert set(others) < set(asked(rows))
    _, all_rows = compare("pick=coverage", "comparisons=9", prompts=[*same, *others])
    assert asked(all_rows)[:4] == asked(rows)


def test_prompts_are_answered_some_at_a_time(compare, monkeypatch):
    """What was added before a kill stays; those that are left out are made up for."""
    draw, sizes = module.draw, []

    def first_is_lost(*words):
        sizes.append(len(words[2]))
        return draw(*words)[1:] if len(sizes) == 1 else draw(*words)

    monkeypatch.setattr(module, "draw", first_is_lost)
    monkeypatch.setattr(module, "AT_ONCE", 4)
    added, rows = compare("comparisons=6")
    assert (added.added, len(set(asked(rows)))) == (6, 6)
    assert sizes[0] == max(sizes) == 4
    assert sum(sizes) >= 7


def test_the_seed_chooses_among_equals(compare):
    orders = {tuple(asked(compare("comparisons=5", f"runtime.seed={s}", store=f"{s}.db")[1])) for s in (1, 2, 3)}
    assert len(orders) == 3


def test_what_people_asked_in_chats_is_compared(compare, tmp_path):
    store = open_store(str(tmp_path / "labels.db"), create=True)
    ann = add_user(store, "ann", "annotator", "a long password")
    add_user(store, "ada", "admin", "a long password")
    chat = new_chat(store, ann, "t")
    first = add_message(store, ann, chat, parent=None, role="user", content="hello fox")
    said = add_message(store, ann, chat, parent=first, role="assistant", content="hello", model="m")
    again = add_message(store, ann, chat, parent=said, role="user", content="and today?")
    added, rows = compare(f"data=feedback:{tmp_path / 'labels.db'}")
    assert added.added == 2
    assert {row["source"] for row in rows} == {f"message {first}", f"message {again}"}
    longest = max(rows, key=lambda row: len(row["prompt"]))
    assert [one["content"] for one in longest["prompt"]] == ["hello fox", "hello", "and today?"]
    assert {row["created_by"] for row in rows} == {keeper(store).id}
    assert next_task(store, ann) is not None
    store.close()


def test_prompts_that_are_too_long_are_left_out(compare):
    added, rows = compare("max_length=120", prompts=["hello fox", "hello " * 200])
    assert (added.added, asked(rows)) == (1, ["hello fox"])
    with pytest.raises(UserError) as refused:
        compare("max_length=120", prompts=["dog " * 200])
    assert refused.value.exit_code == ExitCode.BAD_DATA


def test_equal_answers_are_no_comparison(compare):
    """Two greedy answers of one model would be the same; the first token of top_k=1 is no choice either."""
    with pytest.raises(UserError) as refused:
        compare("sampling.top_k=1")
    assert "differ" in str(refused.value)


def test_a_store_without_an_administrator_names_the_way(compare, tmp_path):
    store = open_store(str(tmp_path / "labels.db"), create=True)
    add_user(store, "ann", "annotator", "a long password")
    store.close()
    with pytest.raises(UserError) as refused:
        compare()
    assert "--role admin" in refused.value.fix


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["pick=uncertain"], "uncertain"),
        (["pick=disagreement", "reward=length"], "two scorers"),
        (["reward=length"], "length"),
        (["prompts_per_comparison=2"], "prompts_per_comparison"),
        (["sampling.temperature=0"], "temperature"),
        (["models=a,b,c"], "2 answers"),
        (["answers=17"], "answers"),
    ],
)
def test_options_that_cannot_work_are_refused(words, named):
    with pytest.raises(UserError) as refused:
        load(CompareConfig, None, words)
    assert named in str(refused.value)


def test_the_command_says_what_it_did(talker, tmp_path, capsys):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "completion": "x"}) + "\n" for p in PROMPTS))
    store = str(tmp_path / "labels.db")
    words = ("feedback", "compare", store, "--data", str(path), "--models", str(talker), "--comparisons", "3")
    assert run([*words, *MACHINE]) == 0
    said = capsys.readouterr()
    assert f"3 comparisons are new in {store}, 0 were there" in said.out
    assert "the account admin was made" in said.out + said.err
    assert run([*words, *MACHINE]) == 0
    assert f"0 comparisons are new in {store}, 3 were there" in capsys.readouterr().out
    assert run(["feedback", "compare", "--data", str(path)]) == ExitCode.USAGE
    assert run(["feedback", "compare", store, "--models", str(talker)]) == ExitCode.USAGE
    assert run([*words, *MACHINE, "--reward", str(tmp_path)]) != 0


def test_a_prompt_is_known_by_its_messages():
    one = Prompt((Message("user", "q"),), "a:1", "answer")
    assert prompt_digest(one.messages) == prompt_digest([Message("user", "q")])
    assert prompt_digest(one.messages) != prompt_digest([Message("system", "q")])
