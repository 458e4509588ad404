"""Tables of what the rankings say: by hand, against loops over the plain rankings, and their laws."""

import math
import random
from itertools import combinations, permutations

import pytest
from argon2 import PasswordHasher
from sqlalchemy import update

from fairlead.feedback import accounts
from fairlead.feedback.accounts import add_user
from fairlead.feedback.comparisons import Answer, Verdict, add_comparison, add_ranking, next_task
from fairlead.feedback.schema import rankings
from fairlead.feedback.store import now, open_store
from fairlead.records import Message
from fairlead.web.results import agreement, arena, progress
from oracles import annotators as oracle
from tiny_store import answers_in

PROMPT = (Message("user", "q"),)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    opened = open_store(str(tmp_path / "labels.db"), create=True)
    yield opened
    opened.close()


class People:
    """Ranks by place: the n-th number is the rank of the n-th answer."""

    def __init__(self, store, *names):
        self.store = store
        self.users = {name: add_user(store, name, "annotator", "a long password") for name in names}
        self.keys = iter(range(10**6))

    def compared(self, *models, rewards=None, wanted=1):
        details = [{"reward": reward} for reward in rewards] if rewards else [{}] * len(models)
        texts = [Answer(model, f"answer {i}", details[i]) for i, model in enumerate(models)]
        return add_comparison(self.store, next(iter(self.users.values())), PROMPT, texts, wanted=wanted)

    def say(self, name, comparison, *ranks, outcome="ranked", seconds=0):
        numbers = [row["id"] for row in answers_in(self.store, comparison)] if ranks else []
        verdict = Verdict(outcome, dict(zip(numbers, ranks, strict=True)), {}, seconds=seconds)
        return add_ranking(self.store, self.users[name], comparison, verdict, key=str(next(self.keys)))


def rows(store):
    return {one.name: one for one in agreement(store).annotators}


def test_nobody_has_ranked(store):
    People(store, "ann").compared("a", "b")
    found = agreement(store)
    assert (found.annotators, found.alpha, found.pairs, arena(store)) == ([], None, [], [])


def test_one_person_alone_agrees_with_nobody(store):
    people = People(store, "ann")
    people.say("ann", people.compared("a", "b"), 1, 2)
    (row,) = agreement(store).annotators
    assert (row.name, row.rankings, row.consensus, row.reward_model) == ("ann", 1, None, None)
    assert (agreement(store).alpha, agreement(store).pairs) == (None, [])


def test_consensus_is_the_majority_of_the_others(store):
    """Three answers, four people: for ann the others say 0 before 1, are split over 0 and 2, and say 2 before 1."""
    people = People(store, "ann", "bob", "cid", "dan")
    number = people.compared("a", "b", "c", wanted=4)
    people.say("ann", number, 1, 2, 3)
    people.say("bob", number, 1, 3, 2)
    people.say("cid", number, 2, 3, 1)
    people.say("dan", number, 1, 2, 1)
    assert rows(store)["ann"].consensus == 1 / 2  # 0 > 1 as they, 1 > 2 against them; 0 and 2 has no majority
    # For bob: ann, cid, dan say 0 > 1, 0 and 2 is split, and two of three say 2 > 1.
    assert rows(store)["bob"].consensus == 1.0


def test_agreement_with_the_reward_model_leaves_ties_and_unscored_answers_out(store):
    people = People(store, "ann")
    people.say("ann", people.compared("a", "b", "c", rewards=[2.0, -1.0, 0.5]), 1, 2, 2)  # 0>1 and 0>2, as the model
    people.say("ann", people.compared("a", "b", rewards=[0.0, 1.0]), 1, 2)  # against it
    people.say("ann", people.compared("a", "b", rewards=[1.0, 1.0]), 1, 2)  # the model's tie
    people.say("ann", people.compared("a", "b"), 1, 2)
    assert rows(store)["ann"].reward_model == 2 / 3


def test_skips_flags_and_corrected_rankings_do_not_count(store):
    people = People(store, "ann", "bob")
    first, second, third = (people.compared("a", "b", rewards=[1.0, 0.0], wanted=2) for _ in range(3))
    people.say("ann", first, 2, 1)
    people.say("ann", first, 1, 2)  # the correction counts
    people.say("ann", second, 2, 1)
    people.say("ann", second, outcome="flagged")  # taken back
    people.say("ann", third, outcome="skipped")
    for number in (first, second, third):
        people.say("bob", number, 1, 2)
    assert (rows(store)["ann"].rankings, rows(store)["ann"].reward_model, rows(store)["ann"].consensus) == (1, 1.0, 1.0)
    assert [(pair.one, pair.other, pair.items) for pair in agreement(store).pairs] == [("ann", "bob", 1)]
    assert [(one.name, one.wins, one.losses) for one in arena(store)] == [("a", 4, 0), ("b", 0, 4)]


def test_kappa_and_alpha_do_not_depend_on_which_answer_was_added_first(store):
    """Always preferring what is first would be one label for both people, hence no kappa, if pairs had a direction."""
    people = People(store, "ann", "bob")
    for _ in range(4):
        number = people.compared("a", "b", wanted=2)
        people.say("ann", number, 1, 2)
        people.say("bob", number, 1, 2)
    assert (agreement(store).alpha, agreement(store).pairs[0].kappa) == (1.0, 1.0)
    number = people.compared("a", "b", wanted=2)
    people.say("ann", number, 1, 2)
    people.say("bob", number, 2, 1)
    assert agreement(store).pairs[0].kappa == pytest.approx((4 / 5 - 1 / 2) / (1 - 1 / 2))


def drawn(people, seed):
    """Random rankings of 2 to 4 answers with ties, corrections, skips; and what counts: (person, comparison, ranks)."""
    generator = random.Random(seed)
    counted = {}
    for _ in range(25):
        models = [generator.choice("abc") for _ in range(generator.randint(2, 4))]
        rewards = [generator.choice([-1.0, 0.0, 1.0]) for _ in models]
        number = people.compared(*models, rewards=rewards, wanted=9)
        for name in people.users:
            for _ in range(generator.randint(0, 2)):
                if generator.random() < 0.2:
                    people.say(name, number, outcome=generator.choice(["skipped", "flagged"]))
                    counted.pop((name, number), None)
                    continue
                ranks = [generator.randint(1, 3) for _ in models]
                people.say(name, number, *ranks)
                counted[name, number] = (models, rewards, ranks)
    return counted


def order(ranks, i, j):
    return 1 if ranks[i] < ranks[j] else -1 if ranks[i] > ranks[j] else 0


@pytest.mark.parametrize("seed", range(2))
def test_the_tables_are_those_of_loops(store, seed):
    people = People(store, "ann", "bob", "cid", "dan")
    counted = drawn(people, seed)
    found = agreement(store)
    for row in found.annotators:
        alike, model_alike, num = [], [], 0
        for (name, number), (_, rewards, ranks) in counted.items():
            if name != row.name:
                continue
            num += 1
            for i, j in combinations(range(len(ranks)), 2):
                others = [counted[o, number][2] for o in people.users if o != name and (o, number) in counted]
                votes = sum(order(other, i, j) for other in others)
                if order(ranks, i, j) and votes:
                    alike.append(order(ranks, i, j) * votes > 0)
                if order(ranks, i, j) and rewards[i] != rewards[j]:
                    model_alike.append((ranks[i] < ranks[j]) == (rewards[i] > rewards[j]))
        assert row.rankings == num
        assert row.consensus == pytest.approx(sum(alike) / len(alike))
        assert row.reward_model == pytest.approx(sum(model_alike) / len(model_alike))
    numbers = sorted({number for _, number in counted})
    units = []
    for number in numbers:
        said = [ranks for (_, at), (_, _, ranks) in counted.items() if at == number]
        units += [[order(ranks, i, j) for ranks in said] for i, j in permutations(range(len(said[0])), 2)]
    assert found.alpha == pytest.approx(oracle.alpha(units, "ordinal"), abs=1e-9)
    for pair in found.pairs:
        both = [n for n in numbers if (pair.one, n) in counted and (pair.other, n) in counted]
        one, other = (
            [
                order(counted[name, n][2], i, j)
                for n in both
                for i, j in permutations(range(len(counted[name, n][2])), 2)
            ]
            for name in (pair.one, pair.other)
        )
        assert (pair.items * 2, pair.kappa) == (len(one), pytest.approx(oracle.kappa(one, other)))


@pytest.mark.parametrize("seed", range(2))
def test_the_arena_counts_what_loops_count(store, seed):
    people = People(store, "ann", "bob")
    counted = drawn(people, seed)
    found = {one.name: one for one in arena(store)}
    for model in "abc":
        results, met = {1: 0, -1: 0, 0: 0}, set()
        for (_, number), (models, _, ranks) in counted.items():
            for i, j in permutations(range(len(ranks)), 2):
                if models[i] == model != models[j]:
                    results[order(ranks, i, j)] += 1
                    met.add(number)
        row = found[model]
        assert (row.wins, row.losses, row.ties, row.comparisons) == (results[1], results[-1], results[0], len(met))
        assert row.low <= row.strength <= row.high
    assert [one.strength for one in arena(store)] == sorted((one.strength for one in found.values()), reverse=True)


def test_the_strength_of_two_models_by_hand(store):
    """30 wins to 10 is log 3 in nats, less a little for the prior."""
    people = People(store, "ann")
    for win in range(40):
        people.say("ann", people.compared("good", "bad"), *((2, 1) if win % 4 == 0 else (1, 2)))
    first, second = arena(store)
    assert (first.name, second.name) == ("good", "bad")
    assert first.strength - second.strength == pytest.approx(math.log(3), abs=0.02)
    assert first.low < first.strength < first.high


def test_answers_of_one_model_say_nothing_of_models(store):
    people = People(store, "ann")
    people.say("ann", people.compared("a", "a"), 1, 2)
    assert arena(store) == []
    people.say("ann", people.compared("a", "a", "b"), 1, 2, 3)
    assert [(one.name, one.wins, one.comparisons) for one in arena(store)] == [("a", 2, 1), ("b", 0, 1)]


def test_progress_counts_what_is_there_and_what_is_left(store):
    people = People(store, "ann", "bob")
    numbers = [people.compared("a", "b", wanted=1 + (i == 2)) for i in range(4)]
    assert (progress(store, people.users["ann"]).open, progress(store, people.users["ann"]).finished) == (4, 0)
    people.say("ann", numbers[0], 1, 2, seconds=10)
    people.say("ann", numbers[1], outcome="skipped", seconds=2)
    people.say("ann", numbers[2], 1, 2, seconds=30)
    people.say("bob", numbers[3], 2, 1, seconds=500)
    mine = progress(store, people.users["ann"])
    assert (mine.mine, mine.today, mine.median_seconds) == (3, 3, 10.0)
    assert (mine.open, mine.total, mine.finished) == (0, 4, 2)
    assert mine.per_hour == pytest.approx(3 * 3600 / 42)
    assert progress(store, people.users["bob"]).open == 2  # what ann skipped, and what two are to rank
    assert next_task(store, people.users["bob"]).comparison == numbers[1]


def test_a_ranking_that_was_taken_back_leaves_the_comparison_open(store):
    people = People(store, "ann", "bob")
    number = people.compared("a", "b")
    people.say("ann", number, 1, 2)
    assert (progress(store, people.users["bob"]).open, next_task(store, people.users["bob"])) == (0, None)
    people.say("ann", number, outcome="skipped")
    assert (progress(store, people.users["bob"]).open, progress(store, people.users["bob"]).finished) == (1, 0)
    assert next_task(store, people.users["bob"]).comparison == number


def test_today_begins_at_midnight_and_the_last_hour_of_work_counts(store):
    people = People(store, "ann")
    for seconds in (10, 20, 1800, 900, 900):  # the last three took an hour
        people.say("ann", people.compared("a", "b"), 1, 2, seconds=seconds)
    with store.write() as connection:
        connection.execute(update(rankings).where(rankings.c.seconds == 10).values(created_at=now() - 24 * 3600 * 1000))
    found = progress(store, people.users["ann"])
    assert (found.mine, found.today, found.per_hour, found.median_seconds) == (5, 4, 3.0, 900.0)


def test_progress_of_somebody_who_has_not_begun(store):
    people = People(store, "ann")
    found = progress(store, people.users["ann"])
    assert (found.mine, found.per_hour, found.median_seconds, found.total) == (0, 0.0, None, 0)
