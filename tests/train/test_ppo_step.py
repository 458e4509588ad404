"""One PPO step against a loop: rows alone, without packing, through plain transformers with W + s B A by hand."""

import math
import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from fairlead.artifacts.manifest import read_manifest
from fairlead.config.common import DataConfig
from fairlead.data.audit.model_facts import ModelFacts
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.sampler import Mixture, next_rows
from fairlead.models.loading import tokenizer_in
from fairlead.models.sources import resolve
from fairlead.rollout.rules import load_rules
from fairlead.runtime.start import start
from fairlead.train import ppo
from fairlead.train.rows import RowEncoder, load_conversations, load_tasks

TEMPERATURE, KL_COEF, SCORE_CLIP, PENALTY = 0.7, 0.3, 0.9, 0.25
GAMMA, LAM, LOW, HIGH, VALUE_CLIP, PTX_COEF = 0.9, 0.8, 0.1, 0.3, 0.05, 0.4
OPTIONS = (
    f"sampling.temperature={TEMPERATURE}", "sampling.max_new_tokens=12", f"kl.coef={KL_COEF}",
    f"score_clip={SCORE_CLIP}", f"missing_end_token_penalty={PENALTY}", f"gamma={GAMMA}", f"lam={LAM}",
    f"clip_eps_low={LOW}", f"clip_eps_high={HIGH}", f"value_clip={VALUE_CLIP}",
    "num_epochs=1", "mini_batch_size=6", "optim.max_grad_norm=0", "batch.micro_batch_tokens=300", "optim.lr=1e-30",
)  # fmt: skip


class Plain:
    """A causal model whose matrices are W + (alpha / r) B A, with A and B as leaves."""

    def __init__(self, folder, roles, role):
        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        self.model.requires_grad_(False)
        spec = roles.roles[role]
        self.leaves, self.scale = {}, 0.0
        if spec.adapter:
            backbone = roles.backbones[spec.backbone]
            config = backbone.peft_config[spec.adapter]
            self.scale = config.lora_alpha / config.r
            for name, parameter in backbone.named_parameters():
                found = re.search(rf"base_model\.model\.(.+)\.lora_([AB])\.{spec.adapter}\.weight", name)
                if found:
                    leaf = parameter.detach().clone().requires_grad_()
                    self.leaves[found[1], found[2]] = leaf
        self.head = roles.heads[role].weight.detach().clone().requires_grad_() if role in roles.heads else None

    def run(self, ids):
        changed = {}
        for layer in {layer for layer, _ in self.leaves}:
            weight = self.model.get_submodule(layer).weight
            delta = self.leaves[layer, "B"] @ self.leaves[layer, "A"]
            changed[f"{layer}.weight"] = weight + self.scale * delta
        out = torch.func.functional_call(
            self.model, changed, kwargs={"input_ids": torch.tensor([ids]), "output_hidden_states": True}
        )
        return out.logits[0], out.hidden_states[-1][0]

    def logprobs(self, prompt, response, temperature):
        """Log-probability of each response token, and the entropy there."""
        logits, _ = self.run([*prompt, *response])
        logprobs, entropies = [], []
        for t, token in enumerate(response):
            row = torch.log_softmax(logits[len(prompt) + t - 1] / temperature, dim=-1)
            logprobs.append(row[token])
            entropies.append(-(row.exp() * row).sum())
        return logprobs, entropies

    def values(self, prompt, response):
        """The value of the state before each response token."""
        _, hidden = self.run([*prompt, *response])
        return [(self.head[0] * hidden[len(prompt) + t - 1]).sum() for t in range(len(response))]

    def score(self, ids):
        _, hidden = self.run(ids)
        return float((self.head[0] * hidden[-1]).sum())

    def gradients(self):
        named = {f"{layer}.lora_{side}": leaf.grad for (layer, side), leaf in self.leaves.items()}
        return named if self.head is None else named | {"head": self.head.grad}


def shaken(roles, role, seed, size):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in roles.trainable(role).values():
            parameter.add_(torch.randn_like(parameter) * size)


def gae_by_definition(rewards, values):
    """A_t as the sum of (gamma lam)^l delta_{t+l}, each delta by itself."""
    steps = len(rewards)
    after = [*values[1:], 0.0]
    deltas = [rewards[t] + GAMMA * after[t] - values[t] for t in range(steps)]
    advantages = [sum((GAMMA * LAM) ** (u - t) * deltas[u] for u in range(t, steps)) for t in range(steps)]
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def whitened(rows, shift_mean=True):
    flat = [x for row in rows for x in row]
    mean = sum(flat) / len(flat)
    var = sum((x - mean) ** 2 for x in flat) / len(flat)
    back = 0.0 if shift_mean else mean
    return [[(x - mean) / math.sqrt(var + 1e-8) + back for x in row] for row in rows]


def set_up(world, tmp_path, *options):
    config = world.config("ppo", tmp_path, *OPTIONS, *options)
    runtime = start(config.runtime)
    source, reward = resolve(config.model.name), resolve(config.reward_model)
    template = ChatTemplate(tokenizer_in(source.base.folder), extra_end_token_ids=range(3, 320, 9))  # lengths differ
    encoder = RowEncoder(template, ModelFacts("tiny"))
    tasks = load_tasks(config.data, encoder, rejects=None, seed=0).train[:6]
    rows = DataConfig(**config.data.model_dump(exclude={"long_prompts"}))
    ptx = load_conversations(rows, encoder, rejects=None, seed=0).train[:5] if config.ptx_coef else []
    learner = ppo._Learner(config, runtime, source, reward, template, load_rules((), **NO_RULES), ptx)
    shaken(learner.roles, "policy", 1, 0.05)
    shaken(learner.roles, "critic", 2, 0.05)
    return learner, tasks, template.end_token_ids, ptx


def recorded_gradients(learner, monkeypatch):
    """What each optimizer was about to apply, step by step."""
    kept = {"policy": [], "critic": []}
    for name, steps in kept.items():
        optimizer = getattr(learner, name)

        def step(number, steps=steps, optimizer=optimizer, real=optimizer.step):
            steps.append({key: value.double() for key, value in optimizer.gradients().items()})
            return real(number)

        monkeypatch.setattr(optimizer, "step", step)
    return kept


def assert_gradients(found, want):
    """Names of the roles' parameters to names of the oracle's."""
    by_name = {}
    for name, value in found.items():
        layer = re.search(r"base_model\.model\.(.+)\.lora_([AB])\.", name)
        by_name[f"{layer[1]}.lora_{layer[2]}" if layer else "head"] = value
    assert by_name.keys() == want.keys()
    for name, gradient in want.items():
        assert (by_name[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


NO_RULES = {"answer_pattern": "", "max_response_tokens": 1}
SWITCHES = ("dual_clip=1.2", "whiten_rewards=true", "reward_baseline=0.4", "importance_cap=1.01")


KL_IN_LOSS = ("kl.where=loss", "kl.estimator=k3")
CASES = {"plain": (), "ptx": ("ptx_coef=0.4", "ptx_rows=4"), "switches": SWITCHES, "kl-in-loss": KL_IN_LOSS}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("mini_batch_size", [6, 2])
def test_a_step_equals_the_loop(world, tmp_path, monkeypatch, options, mini_batch_size):
    ptx_data = (f"ptx_data={world.conversations}",) if "ptx_rows=4" in options else ()
    learner, tasks, ends, ptx = set_up(world, tmp_path, *options, *ptx_data, f"mini_batch_size={mini_batch_size}")
    roles, folder = learner.roles, world.model
    old_policy, old_critic = Plain(folder, roles, "policy"), Plain(folder, roles, "critic")
    reference, judge = Plain(folder, roles, "reference"), Plain(folder, roles, "reward")
    known = read_manifest(world.reward).facts  # of the reward model, on its held-out pairs
    assert not reference.leaves
    assert judge.leaves

    rollout, _ = learner.sample(tasks, 0)
    prompts = rollout.prompts
    assert [*prompts] == [task.input_ids for task in tasks]
    responses = [row[mask].tolist() for row, mask in zip(rollout.responses, rollout.response_mask, strict=True)]
    assert len({len(r) for r in responses}) > 2, "lengths must differ, or an alignment error stays hidden"
    assert 0 < int(rollout.finished.sum()) < 6, "some end by themselves, some do not"

    old, references, rewards, values, scores, clips = [], [], [], [], [], []
    for b, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        with torch.no_grad():
            old.append([float(x) for x in old_policy.logprobs(prompt, response, TEMPERATURE)[0]])
            ref = [float(x) for x in reference.logprobs(prompt, response, TEMPERATURE)[0]]
            values.append([float(x) for x in old_critic.values(prompt, response)])
            finished = response[-1] in ends
            text = response[:-1] if finished else response
            scores.append(judge.score([*prompt, *text, ends[0]]))
        assert bool(rollout.finished[b]) == finished
        normal = (scores[b] - known["score_mean"]) / known["score_std"]
        clips.append(abs(normal) > SCORE_CLIP)
        score = max(-SCORE_CLIP, min(SCORE_CLIP, normal)) - (0.0 if finished else PENALTY)
        score -= learner.config.reward_baseline
        references.append(ref)
        coef = 0.0 if options == KL_IN_LOSS else KL_COEF
        reward = [-coef * (p - q) for p, q in zip(old[b], ref, strict=True)]
        reward[-1] += score
        rewards.append(reward)
        sampled = rollout.sampler_logprobs[b][rollout.response_mask[b]]
        torch.testing.assert_close(sampled, torch.tensor(old[b]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rollout.scores, torch.tensor(scores), rtol=1e-4, atol=1e-5)
    assert any(clips), "the clip of the score must matter"
    assert not all(clips)

    shaken(roles, "policy", 3, 0.02)  # so that ratios leave 1 and values leave the old ones
    shaken(roles, "critic", 4, 0.02)
    policy, critic = Plain(folder, roles, "policy"), Plain(folder, roles, "critic")
    if options == SWITCHES:
        rewards = whitened(rewards, shift_mean=False)
        rollout.sampler_logprobs.sub_(0.1 * torch.rand(rollout.sampler_logprobs.shape))  # a sampler that is off
    pairs = [gae_by_definition(r, v) for r, v in zip(rewards, values, strict=True)]
    advantages, returns = whitened([a for a, _ in pairs]), [r for _, r in pairs]

    kept = recorded_gradients(learner, monkeypatch)
    metrics = learner.learn(rollout, 0)
    order = ppo.epoch_order(6, seed=learner.runtime.seed + 1, epoch=0)
    means = {"policy_loss": 0.0, "value_loss": 0.0, "entropy": 0.0, "clip_fraction": 0.0, "kl_old_new": 0.0}
    num_steps = 6 // mini_batch_size
    for step in range(num_steps):
        rows = order[step * mini_batch_size : (step + 1) * mini_batch_size]
        count = sum(len(responses[b]) for b in rows)
        policy_loss = value_loss = torch.zeros(())
        for leaf in (*policy.leaves.values(), *critic.leaves.values(), critic.head):
            leaf.grad = None
        for b in rows:
            new, entropies = policy.logprobs(prompts[b], responses[b], TEMPERATURE)
            now = critic.values(prompts[b], responses[b])
            for t in range(len(responses[b])):
                ratio, advantage = torch.exp(new[t] - old[b][t]), advantages[b][t]
                held = ratio.clamp(1 - LOW, 1 + HIGH)
                worst = torch.maximum(-advantage * ratio, -advantage * held)
                if options == SWITCHES:
                    worst = torch.minimum(worst, torch.tensor(-advantage * 1.2)) if advantage < 0 else worst
                    sampled = float(rollout.sampler_logprobs[b][rollout.response_mask[b]][t])
                    worst = worst * min(1.01, math.exp(old[b][t] - sampled))
                if options == KL_IN_LOSS:
                    log_ratio = references[b][t] - new[t]
                    worst = worst + KL_COEF * (torch.exp(log_ratio) - 1 - log_ratio)
                policy_loss = policy_loss + worst / count
                near = values[b][t] + (now[t] - values[b][t]).clamp(-VALUE_CLIP, VALUE_CLIP)
                squares = torch.maximum((now[t] - returns[b][t]) ** 2, (near - returns[b][t]) ** 2)
                value_loss = value_loss + 0.5 * squares / count
                taken = (ratio > 1 + HIGH and advantage > 0) or (ratio < 1 - LOW and advantage < 0)
                means["clip_fraction"] += float(taken) / count / num_steps
                means["entropy"] += float(entropies[t].detach()) / count / num_steps
                means["kl_old_new"] += float((ratio - 1 - torch.log(ratio)).detach()) / count / num_steps
        means["policy_loss"] += float(policy_loss.detach()) / num_steps
        means["value_loss"] += float(value_loss.detach()) / num_steps
        (policy_loss + ptx_loss(policy, ptx, learner, step)).backward()
        value_loss.backward()
        assert_gradients(kept["policy"][step], policy.gradients())
        assert_gradients(kept["critic"][step], critic.gradients())
    for name, value in means.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert 0 < means["clip_fraction"] < 1


def ptx_loss(policy, ptx, learner, step):
    """Mean negative log-probability per trained token of the step's conversations, at temperature 1."""
    if not ptx:
        return torch.zeros(())
    rows = [ptx[i] for i in next_rows(Mixture((len(ptx),)), 4, learner.runtime.seed + 2, step)]
    total, count = torch.zeros(()), 0
    for row in rows:
        logits, _ = policy.run(row.input_ids)
        for i, trained in enumerate(row.trained):
            if trained and i > 0:
                total = total - torch.log_softmax(logits[i - 1], dim=-1)[row.input_ids[i]]
                count += 1
    return PTX_COEF * total / count


def test_the_stream_of_prompts_passes_over_all_before_any_comes_again():
    drawn = [p for iteration in range(7) for p in next_rows(Mixture((5,)), 3, 11, iteration)]
    assert all(sorted(drawn[first : first + 5]) == [0, 1, 2, 3, 4] for first in range(0, 20, 5))
    assert drawn[:5] != drawn[5:10]
    assert sorted(next_rows(Mixture((2,)), 6, 11, 0)) == [0, 0, 0, 1, 1, 1]
