"""Group-relative policy optimisation: several responses to a prompt, each judged against the others, and no critic.

One loop for GRPO (Shao et al. 2024), Dr. GRPO (Liu et al. 2025), DAPO (Yu et al. 2025), RLOO (Ahmadian et al. 2024) and
REINFORCE++ (Hu 2025), which differ in how advantages are made and in what a token weighs; the options name the choices.
Departures: a group whose scores are all equal teaches exactly nothing, its KL included; by default the KL is in the
reward, where the optimum is known, and the loss is a mean over tokens.
"""

from dataclasses import dataclass
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
from fairlead.algos.kl import kl_estimate
from fairlead.algos.masked import whiten
from fairlead.algos.policy_loss import clipped_policy_loss, importance_weights, policy_statistics
from fairlead.artifacts.manifest import require_kind
from fairlead.batches import Rollout
from fairlead.config.online import GrpoConfig
from fairlead.config.terms import REWARD_MODEL, short_name
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import Task
from fairlead.data.sampler import epoch_order, stream_rows
from fairlead.errors import UserError
from fairlead.evaluate.summary import Evaluation, StageSummary
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.loading import require_context
from fairlead.models.roles import Roles
from fairlead.models.save import rehearse_save
from fairlead.models.sources import Source, resolve
from fairlead.rollout.rules import Rules, load_rules
from fairlead.rollout.sample import measure_rollout, score_responses, scored_texts
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import Runtime, start
from fairlead.train.accumulate import MicroBatch, accumulate
from fairlead.train.episodes import (
    Followers,
    MiniBatch,
    add_reference,
    describe_rollout,
    draw_responses,
    response_seeds,
    show_episodes,
)
from fairlead.train.health import restarted_after_roll_back
from fairlead.train.memory import fitted
from fairlead.train.optimizer import Optimizer
from fairlead.train.phases import Phases
from fairlead.train.policy import finish_policy
from fairlead.train.rows import Rows, encoder_of, load_tasks, policy_source, rejects_path
from fairlead.train.stage import open_stage


@restarted_after_roll_back
def train_grpo(config: GrpoConfig) -> Path:
    """Run or resume the stage; returns its folder, a policy artifact."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.sampling.max_new_tokens)
    reward_source = _reward_of(config)
    limits = {"answer_pattern": config.answer_pattern, "max_response_tokens": config.sampling.max_new_tokens}
    rules, probes = load_rules(config.reward_terms, **limits), load_rules(config.probe_terms, **limits)
    encoder = encoder_of(source)
    rows = load_tasks(config.data, encoder, rejects=rejects_path(config.output, "grpo", runtime), seed=runtime.seed)
    require_context(source, max(len(task.input_ids) for task in rows.train) + config.sampling.max_new_tokens)
    parents = {"model": source} | ({"reward": reward_source} if reward_source else {})
    stage = open_stage(
        "grpo", config, runtime, parents=parents, data_digests=rows.digests | rules.digests | probes.digests
    )
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        scaled = config.model_copy(update={"optim": stage.optim})
        learner = _Learner(scaled, runtime, source, reward_source, encoder.template, rules, probes)
        rehearse_save(stage.folder, learner.roles, "policy", source.base, runtime)
        stage.introduce([*rows.notes, *config.kl.notes, *learner.roles.notes])
        state = stage.resume()
        if state:
            learner.load_state(state.tensors, state.numbers)
        first = state.step if state else 0
        stage.begin(first_step=first, num_steps=config.num_iterations, flops_per_token=learner.flops_per_token())
        for iteration in range(first, config.num_iterations):
            runtime.seed_step(iteration)
            rollout, drawn = learner.sample(rows, iteration)
            metrics = learner.learn(rollout, iteration) | drawn
            tokens = int(rollout.response_mask.sum()) + sum(map(len, rollout.prompts))
            learner.numbers["tokens"] += tokens
            show_episodes(stage, rollout, encoder.template, iteration + 1, range(min(2, len(rollout.prompts))))
            clock = learner.phases.taken()
            stage.record(iteration + 1, metrics, tokens=tokens, rows=len(rollout.prompts), **clock)
            with learner.phases("save"):
                stage.maybe_save(iteration + 1, config.num_iterations, learner.state)
        num_episodes = config.num_iterations * config.prompts_per_iteration * config.num_responses_per_prompt
        sizes = {"episodes": num_episodes, "tokens": learner.numbers["tokens"], "iterations": config.num_iterations}
        summary = StageSummary("grpo", "policy", model=stage.folder.name, parent=source.name, sizes=sizes)
        learner.followers.at_the_end()
        return finish_policy(stage, learner.roles, source, Evaluation(summary))


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


@dataclass(frozen=True)
class _Groups:
    """Responses, group after group, as they were drawn and judged."""

    tasks: list[Task]
    responses: list[Response]
    judged: dict[str, Tensor]  # of each reward and probe, [B]
    scores: Tensor  # [B]

    def rows(self, index: list[int]) -> "_Groups":
        """The given responses, in the given order."""
        return _Groups(
            [self.tasks[i] for i in index], [self.responses[i] for i in index],
            {name: values[index] for name, values in self.judged.items()}, self.scores[index],
        )  # fmt: skip

    def then(self, other: "_Groups") -> "_Groups":
        """These, and the others after them."""
        return _Groups(
            self.tasks + other.tasks, self.responses + other.responses,
            {name: torch.cat([values, other.judged[name]]) for name, values in self.judged.items()},
            torch.cat([self.scores, other.scores]),
        )  # fmt: skip


class _Learner:
    """Policy, reference and perhaps a reward model, with the policy's optimizer, between rollouts."""

    def __init__(
        self, config: GrpoConfig, runtime: Runtime, source: Source, reward: Source | None, template: ChatTemplate,
        rules: Rules, probes: Rules,
    ) -> None:  # fmt: skip
        self.runtime, self.template = runtime, template
        self.rules, self.probes = rules, probes
        self.phases = Phases(runtime.device)
        self.weights = {term.name: term.weight for term in config.reward_terms}
        roles = self.roles = Roles()
        add_reference(roles, source, config, runtime)
        self.score_at = ""
        if reward is not None:
            add_frozen(roles, "reward", reward, "scores", runtime)
            assert reward.manifest is not None
            self.score_at = reward.manifest.facts["score_at"]
        add_trainable(roles, "policy", source, "logprobs", config.model, runtime, dropout=0.0)
        ready(roles, config.model, runtime)
        self.config = config = fitted(config, roles, runtime, longest=config.longest_episode)
        num_responses = config.prompts_per_iteration * config.num_responses_per_prompt
        self.steps_per_iteration = config.num_epochs * (num_responses // config.mini_batch_size)
        num_steps = config.num_iterations * self.steps_per_iteration
        self.policy = Optimizer(roles.trainable("policy"), config.optim, runtime, num_steps=num_steps)
        self.followers = Followers(roles, self.policy, config)
        self.engine = Engine(roles, "policy", template.end_token_ids, runtime)
        self.group = torch.arange(num_responses) // config.num_responses_per_prompt
        self.numbers: dict[str, Any] = {"tokens": 0, "prompts": 0}

    def sample(self, rows: Rows[Task], iteration: int) -> tuple[Rollout, dict[str, float]]:
        """A group of responses to each of the next prompts, scored and measured; and the mean of every reward.

        With dynamic sampling, groups that score alike are set aside and other prompts take their place; those set
        aside fill up what is still missing at the end.
        """
        config, size = self.config, self.config.num_responses_per_prompt
        everything = self._draw(rows, config.prompts_per_iteration, 0, iteration)
        for _ in range(config.dynamic_sampling_rounds):
            silent = int(self._silent(everything.scores).sum())
            missing = config.prompts_per_iteration - (len(everything.scores) // size - silent)
            if missing <= 0:
                break
            everything = everything.then(self._draw(rows, missing, len(everything.scores), iteration))
        silent = self._silent(everything.scores)
        chosen = sorted(range(len(silent)), key=lambda group: (bool(silent[group]), group))
        kept = sorted(chosen[: config.prompts_per_iteration])
        groups = everything.rows([group * size + i for group in kept for i in range(size)])
        with self.phases("measure"):
            rollout = measure_rollout(
                self.roles, [task.input_ids for task in groups.tasks], groups.responses, groups.scores,
                temperature=config.sampling.temperature, batch=config.batch, runtime=self.runtime,
            )  # fmt: skip
        kinds = dict.fromkeys(self.weights, "reward") | {term.name: "probe" for term in self.probes.terms}
        means = {
            f"{kind}/{short_name(name)}": float(everything.judged[name].mean()) for name, kind in kinds.items()
        }  # fmt: skip
        of_all = {"score_mean": everything.scores.mean(), "score_std": everything.scores.std(correction=0)}
        means |= {name: float(value) for name, value in of_all.items()}
        return rollout, means | {"prompts_drawn": float(len(silent))}

    def _silent(self, scores: Float[Tensor, "B"]) -> Bool[Tensor, "G"]:
        """Whether all responses of a group score the same."""
        size = self.config.num_responses_per_prompt
        return scores_equal(scores, torch.arange(len(scores)) // size)[::size]

    def _draw(self, rows: Rows[Task], num_prompts: int, num_drawn: int, iteration: int) -> _Groups:
        """A group of responses to each of the next prompts, judged. `num_drawn` responses of the round came before."""
        config, runtime, size = self.config, self.runtime, self.config.num_responses_per_prompt
        picked = stream_rows(rows.mixture, self.numbers["prompts"], num_prompts, runtime.seed)
        self.numbers["prompts"] += num_prompts
        repeated = [rows.train[i] for i in picked for _ in range(size)]
        prompts = [task.input_ids for task in repeated]
        seeds = response_seeds(runtime.seed, iteration, num_drawn + len(prompts))[num_drawn:]
        with self.phases("generate"):
            responses = draw_responses(self.engine, prompts, config, seeds, runtime)
        with self.phases("score"):
            judged, scores = self._judge(repeated, responses)
        return _Groups(repeated, responses, judged, scores)

    def _judge(self, tasks: list[Task], responses: list[Response]) -> tuple[dict[str, Tensor], Tensor]:
        """What each reward and probe gives each response, and the sum that is its score."""
        config = self.config
        judged = self.rules.judge(tasks, responses, self.template, self.runtime.ranks)
        if config.scored_by_model:
            ends = self.template.end_token_ids
            prompts = [task.input_ids for task in tasks]
            texts = scored_texts(prompts, responses, score_at=self.score_at, end_token_ids=ends)
            judged[REWARD_MODEL] = score_responses(self.roles, "reward", texts, config.batch, self.runtime)
        scores = torch.stack([weight * judged[name] for name, weight in self.weights.items()]).sum(0)
        if config.overlong_soft_tokens:
            scores = scores + overlong_penalty(
                torch.tensor([len(response.tokens) for response in responses]),
                max_response_tokens=config.sampling.max_new_tokens, soft_tokens=config.overlong_soft_tokens,
            )  # fmt: skip
        return judged | self.probes.judge(tasks, responses, self.template, self.runtime.ranks), scores

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
                with self.phases("learn_policy"):
                    steps.append(self._policy_step(mini, teaches[rows], step))
        self.followers.after_iteration(iteration)
        means = {key: sum(s[key] for s in steps) / len(steps) for key in steps[0]}
        return describe_rollout(rollout) | means | {"zero_variance_groups": 1.0 - float(teaches.float().mean())}

    def _advantages(self, rollout: Rollout, teaches: Bool[Tensor, "B"]) -> Float[Tensor, "B R"]:
        """One number per token; 0 for every token of a group whose scores are all equal."""
        config, mask = self.config, rollout.response_mask
        kl_coef = config.kl.coef if config.kl.where == "reward" else 0.0
        rewards = shape_rewards(
            rollout.scores, rollout.old_logprobs, rollout.reference_logprobs, mask, kl_coef=kl_coef,
            estimator=config.kl.estimator,
        )  # fmt: skip
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
            batch = mini.batch(share, self.roles, "policy").to(device)
            old, reference, advantages, weight, correction = (
                mini.of_targets(m, share.rows).to(device)
                for m in (rollout.old_logprobs, rollout.reference_logprobs, mini.advantages, weights, corrections)
            )
            logprobs, entropy = self.roles(batch, "policy", temperature=config.sampling.temperature, with_entropy=True)
            losses = correction * clipped_policy_loss(logprobs, old, advantages, dual_clip=config.dual_clip, **clip)
            if config.kl.where == "loss":
                losses = losses + config.kl.coef * kl_estimate(logprobs, reference, config.kl.estimator)
            statistics = policy_statistics(logprobs.detach(), old, advantages, **clip)
            kept = (entropy, statistics.clipped.float(), statistics.kl_k3)
            sums.append(torch.stack([(values * batch.weights * share.counts).sum() for values in kept]))
            return (losses * weight * share.counts).sum()

        shares = mini.shares(config.batch, self.roles, "policy", self.runtime)
        loss = accumulate(shares, loss_of, self.policy, self.runtime)
        entropy, clipped, kl = (self.runtime.ranks.sum(torch.stack(sums).sum(0)) / mini.num_tokens).tolist()
        metrics = {"policy_loss": float(loss), "entropy": entropy, "clip_fraction": clipped, "kl_old_new": kl}
        if not teaches.any():
            self.policy.forget()
            return metrics | {"lr": 0.0, "grad_norm": 0.0}
        metrics |= self.policy.step(step)
        self.followers.after_step()
        return metrics

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
        return self.policy.state() | self.followers.state(), self.numbers

    def load_state(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.policy.load_state(tensors)
        self.followers.load_state(tensors)
        self.numbers = dict(numbers)
