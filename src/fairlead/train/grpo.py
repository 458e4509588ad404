"""Group-relative policy optimisation: several responses to a prompt, each judged against the others, and no critic.

One loop for GRPO (Shao et al. 2024), Dr. GRPO (Liu et al. 2025), DAPO (Yu et al. 2025), RLOO (Ahmadian et al. 2024) and
REINFORCE++ (Hu 2025), which differ in how advantages are made and in what a token weighs; the options name the choices.
Departures: a group whose scores are all equal teaches exactly nothing, its KL included; by default the KL is in the
reward, where the optimum is known, and the loss is a mean over tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fairlead.algos.advantages import (
    gae,
    group_advantages,
    leave_one_out_advantages,
    overlong_penalty,
    scores_equal,
    shape_rewards,
)
from fairlead.algos.aggregate import token_weights
from fairlead.algos.kl import kl_k2, kl_k3
from fairlead.algos.masked import whiten
from fairlead.algos.policy_loss import clipped_policy_loss, importance_weights, policy_statistics
from fairlead.artifacts.manifest import require_kind
from fairlead.batches import Rollout
from fairlead.config.stages import GrpoConfig
from fairlead.config.terms import REWARD_MODEL, Term, parse_term
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.collate import collate
from fairlead.data.examples import Task
from fairlead.data.sampler import epoch_order
from fairlead.errors import UserError
from fairlead.evaluate.summary import Evaluation, StageSummary
from fairlead.generate.engine import Engine, Response
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.loading import require_context
from fairlead.models.roles import Roles
from fairlead.models.save import role_tensors, write_role
from fairlead.models.sources import Source, resolve
from fairlead.rewards.terms import Function, Sample, load_functions, rule_scores
from fairlead.rollout.sample import measure_rollout, sample_responses, score_responses, scored_texts
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import Runtime, start
from fairlead.train.accumulate import MicroBatch, accumulate
from fairlead.train.episodes import MiniBatch, describe_rollout, next_rows, response_seeds, show_episodes
from fairlead.train.optimizer import Optimizer
from fairlead.train.rows import load_tasks, policy_source, rejects_path, template_of
from fairlead.train.stage import open_stage


def train_grpo(config: GrpoConfig) -> Path:
    """Run or resume the stage; returns its folder, a policy artifact."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.sampling.max_new_tokens)
    terms = [parse_term(text) for text in config.rewards]
    reward_source = _reward_of(config)
    functions, digests = load_functions(terms)
    template = template_of(source)
    rows = load_tasks(config.data, template, rejects=rejects_path(config.output, "grpo", runtime), seed=runtime.seed)
    require_context(source, max(len(task.input_ids) for task in rows.train) + config.sampling.max_new_tokens)
    parents = {"model": source} | ({"reward": reward_source} if reward_source else {})
    stage = open_stage("grpo", config, runtime, parents=parents, data_digests=rows.digests | digests)
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        learner = _Learner(config, runtime, source, reward_source, template, terms, functions)
        stage.introduce([*rows.notes, *learner.roles.notes])
        state = stage.resume()
        if state:
            learner.policy.load_state(state.tensors)
            learner.numbers = dict(state.numbers)
        first = state.step if state else 0
        stage.begin(first_step=first, num_steps=config.num_iterations, flops_per_token=learner.flops_per_token())
        for iteration in range(first, config.num_iterations):
            runtime.seed_step(iteration)
            picked = next_rows(len(rows.train), config.prompts_per_iteration, runtime.seed, iteration)
            rollout, metrics = learner.sample([rows.train[i] for i in picked], iteration)
            metrics |= learner.learn(rollout, iteration)
            tokens = int(rollout.response_mask.sum()) + sum(map(len, rollout.prompts))
            learner.numbers["tokens"] += tokens
            stage.record(iteration + 1, metrics, tokens=tokens, rows=len(rollout.prompts))
            show_episodes(stage, rollout, template, iteration + 1, range(min(2, len(rollout.prompts))))
            stage.maybe_save(iteration + 1, config.num_iterations, learner.state)
        num_episodes = config.num_iterations * config.prompts_per_iteration * config.num_responses_per_prompt
        sizes = {"episodes": num_episodes, "tokens": learner.numbers["tokens"], "iterations": config.num_iterations}
        summary = StageSummary("grpo", "policy", model=stage.folder.name, parent=source.name, sizes=sizes)
        tensors = role_tensors(learner.roles, "policy")

        def write_model(folder: Path) -> None:
            write_role(folder, learner.roles, "policy", tensors, source.base, pad_token_id=None)

        return stage.finish("policy", source, write_model, evaluation=Evaluation(summary), facts={})


def _reward_of(config: GrpoConfig) -> Source | None:
    """The reward model, if one is asked for; refused by name before any weight is loaded when it is something else."""
    if not config.scored_by_model:
        return None
    if not config.reward_model:
        raise UserError(
            "no reward model was named", where="reward_model",
            fix="--reward-model RUN/02-reward, or other --rewards, such as maths_answer",
        )  # fmt: skip
    require_kind(Path(config.reward_model), ("reward",), wanted_for="grpo's reward_model")
    return resolve(config.reward_model)


class _Learner:
    """Policy, reference and perhaps a reward model, with the policy's optimizer, between rollouts."""

    def __init__(
        self, config: GrpoConfig, runtime: Runtime, source: Source, reward: Source | None, template: ChatTemplate,
        terms: Sequence[Term], functions: dict[str, Function],
    ) -> None:  # fmt: skip
        self.config, self.runtime, self.template = config, runtime, template
        self.terms, self.functions = terms, functions
        roles = self.roles = Roles()
        add_frozen(roles, "reference", source, "logprobs", runtime)
        self.score_at = ""
        if reward is not None:
            add_frozen(roles, "reward", reward, "scores", runtime)
            assert reward.manifest is not None
            self.score_at = reward.manifest.facts["score_at"]
        add_trainable(roles, "policy", source, "logprobs", config.model, runtime, dropout=0.0)
        ready(roles, config.model, runtime)
        num_responses = config.prompts_per_iteration * config.num_responses_per_prompt
        self.steps_per_iteration = config.num_epochs * (num_responses // config.mini_batch_size)
        num_steps = config.num_iterations * self.steps_per_iteration
        self.policy = Optimizer(roles.trainable("policy"), config.optim, runtime, num_steps=num_steps)
        self.engine = Engine(roles, "policy", template.end_token_ids, runtime)
        self.group = torch.arange(num_responses) // config.num_responses_per_prompt
        self.numbers: dict[str, Any] = {"tokens": 0}

    def sample(self, tasks: Sequence[Task], iteration: int) -> tuple[Rollout, dict[str, float]]:
        """A group of responses to each prompt, scored and measured; and the mean of every reward."""
        config, runtime = self.config, self.runtime
        repeated = [task for task in tasks for _ in range(config.num_responses_per_prompt)]
        prompts = [task.input_ids for task in repeated]
        seeds = response_seeds(runtime.seed, iteration, len(prompts))
        responses = sample_responses(self.engine, prompts, config.sampling, seeds=seeds, runtime=runtime)
        each = {term.name: self._scores(term, repeated, responses) for term in self.terms}
        scores = torch.stack([term.weight * each[term.name] for term in self.terms]).sum(0)
        if config.overlong_soft_tokens:
            scores = scores + overlong_penalty(
                torch.tensor([len(response.tokens) for response in responses]),
                max_response_tokens=config.sampling.max_new_tokens, soft_tokens=config.overlong_soft_tokens,
            )  # fmt: skip
        rollout = measure_rollout(
            self.roles, prompts, responses, scores, temperature=config.sampling.temperature, batch=config.batch,
            runtime=runtime,
        )  # fmt: skip
        return rollout, {f"reward/{_short(name)}": float(values.mean()) for name, values in each.items()}

    def _scores(self, term: Term, tasks: Sequence[Task], responses: Sequence[Response]) -> Float[Tensor, "B"]:
        if term.name == REWARD_MODEL:
            ends = self.template.end_token_ids
            prompts = [task.input_ids for task in tasks]
            texts = scored_texts(prompts, responses, score_at=self.score_at, end_token_ids=ends)
            return score_responses(self.roles, "reward", texts, self.config.batch, self.runtime)
        samples = [
            Sample(task.prompt, self.template.decode(response.tokens), task.answer, len(response.tokens))
            for task, response in zip(tasks, responses, strict=True)
        ]
        return torch.tensor(
            rule_scores(
                term, samples, pattern=self.config.answer_pattern, max_tokens=self.config.sampling.max_new_tokens,
                function=self.functions.get(term.name),
            )
        )  # fmt: skip

    def learn(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Mini-batches over one rollout; returns the means of what happened."""
        config = self.config
        teaches = ~scores_equal(rollout.scores, self.group)
        advantages = self._advantages(rollout, teaches)
        steps: list[dict[str, float]] = []
        for epoch in range(config.num_epochs):
            order = epoch_order(
                len(rollout.prompts), seed=self.runtime.seed + 1, epoch=iteration * config.num_epochs + epoch
            )
            for first in range(0, len(order), config.mini_batch_size):
                rows = order[first : first + config.mini_batch_size]
                mini = MiniBatch(rollout.rows(rows), advantages[rows])
                step = iteration * self.steps_per_iteration + len(steps)
                steps.append(self._policy_step(mini, teaches[rows], step))
        means = {key: sum(s[key] for s in steps) / len(steps) for key in steps[0]}
        silent = 1.0 - float(teaches.float().mean())
        return describe_rollout(rollout) | means | {"zero_variance_groups": silent}

    def _advantages(self, rollout: Rollout, teaches: Bool[Tensor, "B"]) -> Float[Tensor, "B R"]:
        """One number per token; 0 for every token of a group whose scores are all equal."""
        config, mask = self.config, rollout.response_mask
        kl_coef = config.kl.coef if config.kl.where == "reward" else 0.0
        rewards = shape_rewards(rollout.scores, rollout.old_logprobs, rollout.reference_logprobs, mask, kl_coef=kl_coef)
        if config.advantage == "batch":
            advantages, _ = gae(rewards, torch.zeros_like(rewards), mask, gamma=1.0, lam=1.0)
            return whiten(advantages, mask, shift_mean=True).masked_fill(~teaches[:, None], 0.0)
        returns = rewards.sum(1)
        if config.advantage == "group":
            each = group_advantages(returns, self.group, divide_by_std=config.divide_by_std)
        else:
            each = leave_one_out_advantages(returns, self.group)
        return (each.masked_fill(~teaches, 0.0)[:, None] * mask).float()

    def _policy_step(self, mini: MiniBatch, teaches: Bool[Tensor, "B"], step: int) -> dict[str, float]:
        """One optimizer step; none at all when no response of the mini-batch teaches anything."""
        config, device, rollout = self.config, self.runtime.device, mini.rollout
        lengths = rollout.response_mask.sum(1)
        each = token_weights(lengths, config.aggregation, max_response_tokens=config.sampling.max_new_tokens)
        weights = (each * teaches)[:, None].float().expand_as(rollout.response_mask)
        corrections = self._corrections(rollout)
        clip = {"clip_eps_low": config.clip_eps_low, "clip_eps_high": config.clip_eps_high}
        sums: list[Tensor] = []

        def loss_of(share: MicroBatch) -> Tensor:
            batch = collate([mini.examples[i] for i in share.rows]).to(device)
            old, reference, advantages, weight, correction = (
                mini.of_targets(m, share.rows).to(device)
                for m in (rollout.old_logprobs, rollout.reference_logprobs, mini.advantages, weights, corrections)
            )
            logprobs, entropy = self.roles(batch, "policy", temperature=config.sampling.temperature, with_entropy=True)
            losses = correction * clipped_policy_loss(logprobs, old, advantages, dual_clip=config.dual_clip, **clip)
            if config.kl.where == "loss":
                estimator = kl_k2 if config.kl.estimator == "k2" else kl_k3
                losses = losses + config.kl.coef * estimator(logprobs, reference)
            statistics = policy_statistics(logprobs.detach(), old, advantages, **clip)
            kept = (entropy, statistics.clipped.float(), statistics.kl_k3)
            sums.append(torch.stack([(values * batch.weights * share.counts).sum() for values in kept]))
            return (losses * weight * share.counts).sum()

        loss = accumulate(mini.shares(config.batch, self.runtime), loss_of, self.policy, self.runtime)
        entropy, clipped, kl = (self.runtime.ranks.sum(torch.stack(sums).sum(0)) / mini.num_tokens).tolist()
        metrics = {"policy_loss": float(loss), "entropy": entropy, "clip_fraction": clipped, "kl_old_new": kl}
        if not teaches.any():
            self.policy.forget()
            return metrics | {"lr": 0.0, "grad_norm": 0.0}
        return metrics | self.policy.step(step)

    def _corrections(self, rollout: Rollout) -> Float[Tensor, "B R"]:
        """Trainer over sampler probability of each token, capped; 1 where nothing is corrected."""
        if not self.config.importance_cap:
            return torch.ones_like(rollout.old_logprobs)
        return importance_weights(rollout.old_logprobs, rollout.sampler_logprobs, cap=self.config.importance_cap)

    def flops_per_token(self) -> float:
        """Work of one token of an episode: drawn once, read by the roles, learnt from in every epoch."""
        epochs = self.config.num_epochs
        counted = [("policy", 2 + epochs, epochs), ("reference", 1, 0)]
        counted += [("reward", 1, 0)] if "reward" in self.roles.roles else []
        return sum(
            flops_per_token(
                self.roles.causal_lm(role), num_forwards=forwards, num_backwards=backwards,
                trained_fraction=self.roles.trainable_fraction(role) if backwards else 0.0,
            )
            for role, forwards, backwards in counted
        )  # fmt: skip

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything to go on from, at the end of an iteration."""
        return self.policy.state(), self.numbers


def _short(name: str) -> str:
    """A reward's name as a metric: of a user's function the name alone."""
    return name.rpartition(":")[2]
