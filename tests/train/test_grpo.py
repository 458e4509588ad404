"""GRPO and its relatives: one step against a loop through plain transformers, silent groups, rewards, and a climb."""

import math

import pytest
import torch

from fairlead.config.online import GrpoConfig
from fairlead.data.audit.model_facts import ModelFacts
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.sampler import Mixture, next_rows, stream_rows
from fairlead.errors import UserError
from fairlead.models.loading import tokenizer_in
from fairlead.models.sources import resolve
from fairlead.rollout.rules import load_rules
from fairlead.runtime.start import start
from fairlead.train import grpo
from fairlead.train.rows import RowEncoder, Rows, load_tasks
from oracles import advantages as oracle
from oracles.reductions import whiten
from tiny_stages import fingerprints, rows_of, write_rows
from train.test_ppo_step import Plain, assert_gradients, shaken

TEMPERATURE, KL_COEF, LOW, HIGH, LONGEST, GROUP = 0.7, 0.3, 0.1, 0.3, 12, 4
OPTIONS = (
    f"sampling.temperature={TEMPERATURE}", f"sampling.max_new_tokens={LONGEST}", f"kl.coef={KL_COEF}",
    f"clip_eps_low={LOW}", f"clip_eps_high={HIGH}", "prompts_per_iteration=3", f"num_responses_per_prompt={GROUP}",
    "mini_batch_size=6", "num_epochs=1", "optim.max_grad_norm=0", "batch.micro_batch_tokens=300", "optim.lr=1e-30",
)  # fmt: skip
VARIANTS = {
    "grpo": ("kl.where=loss", "kl.estimator=k3", "aggregation=response_mean"),
    "dr-grpo": ("divide_by_std=false", "aggregation=constant"),
    "dapo": ("kl.coef=0.0", "overlong_soft_tokens=6"),
    "rloo": ("advantage=leave_one_out", "aggregation=constant"),
    "reinforce++": ("advantage=batch",),
    "k3-in-reward": ("kl.estimator=k3", "kl.coef=2.0"),
    "corrected": ("kl.where=loss", "kl.estimator=k2", "importance_cap=1.01", "dual_clip=1.2"),
}


def set_up(world, tmp_path, *options):
    given = {word.partition("=")[0] for word in options}
    base = [word for word in OPTIONS if word.partition("=")[0] not in given]
    config = world.config("grpo", tmp_path, *base, *options)
    runtime = start(config.runtime)
    source, reward = resolve(config.model.name), resolve(config.reward_model)
    template = ChatTemplate(tokenizer_in(source.base.folder), extra_end_token_ids=range(3, 320, 9))  # lengths differ
    tasks = first_of(load_tasks(config.data, RowEncoder(template, ModelFacts("tiny")), rejects=None, seed=0), 3)
    limits = {"answer_pattern": config.answer_pattern, "max_response_tokens": config.sampling.max_new_tokens}
    rules, probes = load_rules(config.reward_terms, **limits), load_rules(config.probe_terms, **limits)
    learner = grpo._Learner(config, runtime, source, reward, template, rules, probes)
    shaken(learner.roles, "policy", 1, 0.05)
    return learner, tasks


def first_of(rows, count):
    return Rows(rows.train[:count], Mixture((count,)), {}, {}, [])


def recorded(learner, monkeypatch):
    """What the optimizer was about to apply, step by step."""
    kept, real = [], learner.policy.step

    def step(number):
        kept.append({key: value.double() for key, value in learner.policy.gradients().items()})
        return real(number)

    monkeypatch.setattr(learner.policy, "step", step)
    return kept


def advantages_of(config, rollout, old, reference):
    """One list per response, by the definitions."""
    lengths = [len(row) for row in old]
    scores = rollout.scores.tolist()
    coef = config.kl.coef if config.kl.where == "reward" else 0.0
    rewards = [
        oracle.shape_rewards(score, p, q, len(p), coef, config.kl.estimator)
        for score, p, q in zip(scores, old, reference, strict=True)
    ]
    group = [i // GROUP for i in range(len(old))]
    match config.advantage:
        case "group":
            each = oracle.group_advantages([sum(r) for r in rewards], group, config.divide_by_std)
        case "leave_one_out":
            each = oracle.leave_one_out([sum(r) for r in rewards], group)
        case "batch":
            to_go = [[sum(r[t:]) for t in range(len(r))] for r in rewards]
            flat = iter(whiten([x for row in to_go for x in row], [True] * sum(lengths), True))
            return [[next(flat) for _ in row] for row in to_go]
    return [[a] * n for a, n in zip(each, lengths, strict=True)]


def weight_of(config, lengths, row):
    match config.aggregation:
        case "token_mean":
            return 1 / sum(lengths)
        case "response_mean":
            return 1 / (len(lengths) * lengths[row])
        case "constant":
            return 1 / (len(lengths) * LONGEST)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_equals_the_loop(world, tmp_path, monkeypatch, name):
    learner, tasks = set_up(world, tmp_path, *VARIANTS[name])
    config, roles, folder = learner.config, learner.roles, world.model
    rollout, means = learner.sample(tasks, 0)
    responses = [row[mask].tolist() for row, mask in zip(rollout.responses, rollout.response_mask, strict=True)]
    assert len({len(r) for r in responses}) > 2, "lengths must differ, or an alignment error stays hidden"
    if config.overlong_soft_tokens:
        penalties = [oracle.overlong_penalty(len(r), LONGEST, config.overlong_soft_tokens) for r in responses]
        assert rollout.scores.mean().item() == pytest.approx(means["reward/reward_model"] + sum(penalties) / 12)
    else:
        assert means["reward/reward_model"] == pytest.approx(rollout.scores.mean().item())

    old_policy, reference = Plain(folder, roles, "policy"), Plain(folder, roles, "reference")
    with torch.no_grad():
        old, ref = (
            [
                [float(x) for x in model.logprobs(p, r, TEMPERATURE)[0]]
                for p, r in zip(rollout.prompts, responses, strict=True)
            ]
            for model in (old_policy, reference)
        )
    if config.importance_cap:  # a sampler that is off, so that the correction matters
        rollout.sampler_logprobs.sub_(0.1 * torch.rand(rollout.sampler_logprobs.shape))
    shaken(roles, "policy", 3, 0.05)  # so that ratios leave 1
    policy = Plain(folder, roles, "policy")
    advantages = advantages_of(config, rollout, old, ref)
    kept = recorded(learner, monkeypatch)
    metrics = learner.learn(rollout, 0)
    order = grpo.epoch_order(12, seed=learner.runtime.seed + 1, epoch=0)
    total = 0.0
    for step in range(2):
        rows = order[step * 6 : (step + 1) * 6]
        loss = torch.zeros(())
        for leaf in policy.leaves.values():
            leaf.grad = None
        for place, b in enumerate(rows):
            new, _ = policy.logprobs(rollout.prompts[b], responses[b], TEMPERATURE)
            weight = weight_of(config, [len(responses[i]) for i in rows], place)
            for t, logprob in enumerate(new):
                ratio, a = torch.exp(logprob - old[b][t]), advantages[b][t]
                worst = torch.maximum(-a * ratio, -a * ratio.clamp(1 - LOW, 1 + HIGH))
                if config.dual_clip and a < 0:
                    worst = torch.minimum(worst, torch.tensor(-a * config.dual_clip))
                if config.importance_cap:
                    sampled = float(rollout.sampler_logprobs[b][rollout.response_mask[b]][t])
                    worst = worst * min(config.importance_cap, math.exp(old[b][t] - sampled))
                if config.kl.where == "loss":
                    d = logprob - ref[b][t]
                    kl = 0.5 * d**2 if config.kl.estimator == "k2" else torch.exp(-d) - 1 + d
                    worst = worst + config.kl.coef * kl
                loss = loss + weight * worst
        loss.backward()
        total += float(loss.detach()) / 2
        assert_gradients(kept[step], policy.gradients())
    assert metrics["policy_loss"] == pytest.approx(total, rel=1e-4, abs=1e-6)
    assert metrics["zero_variance_groups"] == 0.0


# --- groups that say nothing


@pytest.mark.parametrize("kl", [(), ("kl.where=loss", "kl.estimator=k3", "kl.coef=5.0")])
def test_groups_of_equal_scores_change_exactly_nothing(world, tmp_path, kl):
    """Not by their KL either, and not by the momentum that earlier steps left."""
    learner, tasks = set_up(world, tmp_path, "optim.lr=0.01", *kl)
    rollout, _ = learner.sample(tasks, 0)
    learner.learn(rollout, 0)
    before = {name: tensor.clone() for name, tensor in learner.policy.state().items()}
    rollout.scores.fill_(0.7)
    metrics = learner.learn(rollout, 1)
    after = learner.policy.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (metrics["zero_variance_groups"], metrics["grad_norm"]) == (1.0, 0.0)


def test_one_silent_group_leaves_the_others_as_they_are(world, tmp_path, monkeypatch):
    """Its tokens add nothing to the gradient; it is still counted in the mean over responses."""
    learner, tasks = set_up(world, tmp_path, "mini_batch_size=12", "aggregation=response_mean", "kl.where=loss",
                            "kl.estimator=k2")  # fmt: skip
    rollout, _ = learner.sample(tasks, 0)
    rollout.scores[:GROUP] = 0.25
    kept = recorded(learner, monkeypatch)
    metrics = learner.learn(rollout, 0)
    assert metrics["zero_variance_groups"] == pytest.approx(1 / 3)
    rest = rollout.rows(list(range(GROUP, 12)))
    learner.group = learner.group[GROUP:] - 1
    monkeypatch.setattr(learner, "config", learner.config.model_copy(update={"mini_batch_size": 8}))
    learner.learn(rest, 0)
    for name, gradient in kept[0].items():
        wanted = kept[1][name] * 8 / 12
        assert (gradient - wanted).norm() <= 1e-4 * wanted.norm(), name


def test_silent_groups_give_way_to_others(world, tmp_path, monkeypatch):
    """Prompts 0 and 2 of the stream score alike: two more are drawn, and one of these is silent again."""
    learner, _ = set_up(world, tmp_path, "dynamic_sampling_rounds=1")
    tasks = load_tasks(learner.config.data, RowEncoder(learner.template, ModelFacts("tiny")), rejects=None, seed=0)
    order = next_rows(tasks.mixture, 5, learner.runtime.seed, 0)
    silent = {tasks.train[order[i]].input_ids for i in (0, 2, 3)}

    def score(roles, role, texts, *_):
        return torch.tensor([0.5 if text.input_ids[: len(text.input_ids) - sum(text.trained)] in silent else float(i)
                             for i, text in enumerate(texts)])  # fmt: skip

    monkeypatch.setattr(grpo, "score_responses", score)
    rollout, metrics = learner.sample(tasks, 0)
    assert metrics["prompts_drawn"] == 5
    # 1 and 4 teach; the first that does not fills the place that is left
    assert [rollout.prompts[i] for i in range(0, 12, GROUP)] == [tasks.train[order[i]].input_ids for i in (0, 1, 4)]
    assert learner.numbers["prompts"] == 5
    assert learner.learn(rollout, 0)["zero_variance_groups"] == pytest.approx(1 / 3)
    seeds = {tuple(row.tolist()) for row in rollout.responses}
    assert len(seeds) > 9, "what is drawn later has seeds of its own"
    again, more = learner.sample(tasks, 1)
    assert more["prompts_drawn"] == 3
    assert [again.prompts[i] for i in range(0, 12, GROUP)] == [
        tasks.train[i].input_ids for i in stream_rows(tasks.mixture, 5, 3, learner.runtime.seed)
    ]


# --- rewards


def test_the_pattern_finds_the_answer(world, tmp_path):
    """Verifiers see the text of a response and the answer of the row; weights multiply; no reward model is needed."""
    file = tmp_path / "rules.py"
    file.write_text("def has_e(prompt, response, answer):\n    return float('e' in response and len(answer) > 0)\n")
    stage = world.run(
        "grpo", tmp_path / "run", f"rewards=[{file}:has_e, 0.5*length, 3*format]", "reward_model=",
        "answer_pattern=(e.*)", "num_iterations=1",
    )  # fmt: skip
    (row,) = rows_of(stage / "metrics.jsonl")
    assert row["reward/has_e"] == pytest.approx(row["reward/format"])
    assert -1.0 <= row["reward/length"] < 0.0
    total = row["reward/has_e"] + 0.5 * row["reward/length"] + 3 * row["reward/format"]
    assert row["score_mean"] == pytest.approx(total, rel=1e-5)
    other = world.run(
        "grpo", tmp_path / "other", "rewards=format", "answer_pattern=(zebra)", "num_iterations=1", "reward_model="
    )
    assert rows_of(other / "metrics.jsonl")[0]["score_mean"] == 0.0


def test_another_function_is_another_stage(world, tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("def f(prompt, response, answer):\n    return len(response)\n")
    words = (f"rewards={file}:f", "num_iterations=1", "reward_model=")
    world.run("grpo", tmp_path / "run", *words)
    file.write_text("def f(prompt, response, answer):\n    return -len(response)\n")
    with pytest.raises(UserError, match=r"rules\.py"):
        world.run("grpo", tmp_path / "run", *words)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"rewards": []}, "empty"), ({"rewards": ["format", "2*format"]}, "twice"), ({"rewards": ["wit"]}, "no reward"),
        ({"rewards": ["format"]}, "answer_pattern"), ({"answer_pattern": "("}, "no regular expression"),
        ({"advantage": "batch", "divide_by_std": False}, "divide_by_std"), ({"mini_batch_size": 48}, "does not divide"),
        ({"sampling": {"top_k": 5}}, "may only set"), ({"dual_clip": 0.5}, "above 1"),
        ({"probes": ["2*length"]}, "watched"), ({"probes": ["reward_model"]}, "watched"),
        ({"rewards": ["length"], "probes": ["length"]}, "twice"), ({"reference_every": 2}, "reference_every"),
        ({"reference_decay": 0.5}, "reference_decay"), ({"reward_model": "r", "rewards": ["length"]}, "not one of"),
        ({"reference": "refreshed", "reference_every": 1}, "always 0"),
        ({"answer_pattern": "(a)"}, "is for exact_match"),
        ({"rewards": ["a.py:f"], "probes": ["b.py:f"]}, "twice"), ({"length_sampler_min_tokens": 100}, "lower it"),
        ({"length_sampler_min_tokens": 5, "overlong_soft_tokens": 5}, "one limit for all"),
        ({"overlong_soft_tokens": 100}, "more than a response"), ({"model": {"lora": {"dropout": 0.1}}}, "dropout"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other(options, word):
    with pytest.raises(ValueError, match=word):
        GrpoConfig.model_validate(options)


def test_a_reward_model_is_wanted_only_where_it_is_a_reward(world, tmp_path):
    with pytest.raises(UserError, match="no reward model was named"):
        world.run("grpo", tmp_path, "reward_model=")


# --- as a whole


def test_the_score_rises(world, tmp_path, monkeypatch):
    """One token a response, reward 1 for a third of the tokens: the trainer climbs."""
    good = range(0, 320, 3)

    def score(roles, role, texts, batch, runtime):
        return torch.tensor([float(text.input_ids[-2] in good) for text in texts])

    monkeypatch.setattr(grpo, "score_responses", score)
    row = {"messages": [{"role": role, "content": "a"} for role in ("system", "user", "assistant")]}
    prompt = write_rows(tmp_path / "prompt.jsonl", [row])
    stage = world.run(
        "grpo", tmp_path / "run", f"data.train={prompt}", "sampling.max_new_tokens=1", "sampling.temperature=0.5",
        "num_iterations=25", "prompts_per_iteration=1", "num_responses_per_prompt=32", "mini_batch_size=32",
        "num_epochs=2", "kl.coef=0.1", "optim.lr=0.005", "optim.schedule=linear", "divide_by_std=false",
        "batch.micro_batch_tokens=8000",
    )  # fmt: skip
    scores = [line["score_mean"] for line in rows_of(stage / "metrics.jsonl")]
    assert scores[0] < 0.75, "32 draws of the untrained policy"
    assert sum(scores[-5:]) / 5 > 0.9


def test_the_same_seed_gives_the_same_bytes(world, tmp_path):
    one, other = (world.run("grpo", tmp_path / name) for name in ("a", "b"))
    assert fingerprints(one) == fingerprints(other)


def test_a_group_answers_one_prompt(world, tmp_path):
    learner, tasks = set_up(world, tmp_path)
    rollout, _ = learner.sample(tasks, 0)
    order = next_rows(tasks.mixture, 3, learner.runtime.seed, 0)
    assert [rollout.prompts[i] for i in range(0, 12, GROUP)] == [tasks.train[i].input_ids for i in order]
    assert all(len(set(rollout.prompts[i : i + GROUP])) == 1 for i in range(0, 12, GROUP))
    assert len({tuple(row.tolist()) for row in rollout.responses[:GROUP]}) > 1, "each response has a seed of its own"
    assert next_rows(Mixture((5,)), 2, 3, 0) != next_rows(Mixture((5,)), 2, 3, 1)
