"""Proximal policy optimisation against a reward model, with a critic, a KL penalty and optional PTX mixing.

Departures from InstructGPT (Ouyang et al. 2022): the critic is an adapter on the policy's frozen base under LoRA; the
prompt distribution, the PTX weight and the KL coefficient are options; the value loss is clipped to 0.4 (ColossalChat).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairlead.algos.advantages import gae, shape_rewards
from fairlead.algos.kl import kl_estimate, next_kl_coef
from fairlead.algos.masked import masked_mean, whiten
from fairlead.algos.policy_loss import clipped_policy_loss, importance_weights, policy_statistics
from fairlead.algos.sft_loss import sft_loss
from fairlead.algos.value_loss import clipped_value_loss
from fairlead.artifacts.manifest import require_kind
from fairlead.batches import Rollout
from fairlead.config.common import DataConfig
from fairlead.config.online import PpoConfig
from fairlead.config.terms import short_name
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.collate import collate
from fairlead.data.examples import Example, Task
from fairlead.data.sampler import Mixture, epoch_order, next_rows
from fairlead.errors import UserError
from fairlead.evaluate.preference_accuracy import COLLAPSED_SPREAD
from fairlead.evaluate.summary import Evaluation, StageSummary
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.loading import require_context
from fairlead.models.roles import Roles
from fairlead.models.save import rehearse_save, role_tensors, write_role
from fairlead.models.sources import Source, resolve
from fairlead.rollout.rules import Rules, load_rules
from fairlead.rollout.sample import measure_rollout, score_responses, scored_texts
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import Runtime, start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches
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
from fairlead.train.rows import (
    encoder_of,
    load_conversations,
    load_tasks,
    padding_token,
    policy_source,
    rejects_path,
)
from fairlead.train.stage import Stage, open_stage


@restarted_after_roll_back
def train_ppo(config: PpoConfig) -> Path:
    """Run or resume the stage; returns its folder, a policy artifact (its critic lies beside the model)."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.sampling.max_new_tokens)
    reward_source = reward_of(config)
    encoder = encoder_of(source)
    parents = {"model": source, "reward": reward_source}
    rejects = rejects_path(config.output, "ppo", runtime)
    tasks = load_tasks(config.data, encoder, rejects=rejects, seed=runtime.seed)
    require_context(source, max(len(task.input_ids) for task in tasks.train) + config.sampling.max_new_tokens)
    probes = load_rules(
        config.probe_terms, answer_pattern=config.answer_pattern, max_response_tokens=config.sampling.max_new_tokens
    )
    ptx_rows: list[Example] = []
    digests = tasks.digests | probes.digests
    if config.ptx_coef > 0:
        ptx_data = DataConfig(
            train=config.ptx_data, held_out_rows=0, max_length=config.data.max_length,
            max_reject_rate=config.data.max_reject_rate, against=config.data.against, accept=config.data.accept,
        )  # fmt: skip
        ptx = load_conversations(ptx_data, encoder, rejects=None, seed=runtime.seed)
        ptx_rows, digests = ptx.train, digests | ptx.digests
    stage = open_stage("ppo", config, runtime, parents=parents, data_digests=digests)
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        rates = {"optim": stage.optim, "critic_lr": config.critic_lr * stage.step_scale}
        learner = _Learner(
            config.model_copy(update=rates), runtime, source, reward_source, encoder.template, probes, ptx_rows
        )  # fmt: skip
        for role, parent in (("policy", source), ("critic", reward_source)):
            rehearse_save(stage.folder, learner.roles, role, parent.base, runtime)
        stage.introduce([*tasks.notes, *config.kl.notes, *learner.roles.notes])
        state = stage.resume()
        if state:
            learner.load_state(state.tensors, state.numbers)
        first = state.step if state else 0
        flops = learner.flops_per_token()
        stage.begin(first_step=first, num_steps=config.num_iterations, flops_per_token=flops)
        for iteration in range(first, config.num_iterations):
            runtime.seed_step(iteration)
            picked = next_rows(tasks.mixture, config.prompts_per_iteration, runtime.seed, iteration)
            rollout, watched = learner.sample([tasks.train[i] for i in picked], iteration)
            metrics = learner.learn(rollout, iteration) | watched
            learner.adapt_kl(metrics["kl_mean"], len(picked))
            tokens = int(rollout.response_mask.sum()) + sum(map(len, rollout.prompts))
            learner.numbers["tokens"] += tokens
            show_episodes(stage, rollout, encoder.template, iteration + 1, range(min(2, len(picked))))
            stage.record(iteration + 1, metrics, tokens=tokens, rows=len(picked), **learner.phases.taken())
            with learner.phases("save"):
                stage.maybe_save(iteration + 1, config.num_iterations, learner.state)
        return _finish(stage, learner, padding_token(encoder.template))


def reward_of(config: PpoConfig) -> Source:
    """The reward model, refused by name before any weight is loaded when it is something else."""
    if not config.reward_model:
        raise UserError("no reward model was named", where="reward_model", fix="--reward-model RUN/02-reward")
    require_kind(Path(config.reward_model), ("reward",), wanted_for="ppo's reward_model")
    return resolve(config.reward_model)


class _Learner:
    """The four roles with their optimizers, between rollouts."""

    def __init__(
        self, config: PpoConfig, runtime: Runtime, source: Source, reward: Source, template: ChatTemplate,
        probes: Rules, ptx_rows: list[Example],
    ) -> None:  # fmt: skip
        self.runtime, self.template = runtime, template
        self.probes, self.ptx_rows = probes, ptx_rows
        self.phases = Phases(runtime.device)
        roles = self.roles = Roles()
        add_reference(roles, source, config, runtime)
        add_frozen(roles, "reward", reward, "scores", runtime)
        add_trainable(roles, "policy", source, "logprobs", config.model, runtime, dropout=0.0)
        add_trainable(roles, "critic", reward, "values", config.model, runtime, dropout=0.0)
        if config.critic_head == "zero":
            for parameter in roles.heads["critic"].parameters():
                torch.nn.init.zeros_(parameter)
        ready(roles, config.model, runtime)
        self.config = config = fitted(config, roles, runtime, longest=config.longest_episode)
        assert reward.manifest is not None
        facts = reward.manifest.facts
        self.score_at = facts["score_at"]
        self.score_mean, self.score_std = facts["score_mean"], max(facts["score_std"], COLLAPSED_SPREAD)
        self.steps_per_iteration = config.num_epochs * (config.prompts_per_iteration // config.mini_batch_size)
        num_steps = config.num_iterations * self.steps_per_iteration
        self.policy = Optimizer(roles.trainable("policy"), config.optim, runtime, num_steps=num_steps)
        self.critic = Optimizer(
            roles.trainable("critic"),
            config.optim,
            runtime,
            num_steps=num_steps,
            lr=config.critic_lr or config.optim.lr,
        )
        self.followers = Followers(roles, self.policy, config)
        self.engine = Engine(roles, "policy", template.end_token_ids, runtime)
        self.numbers: dict[str, Any] = {"kl_coef": config.kl.coef, "tokens": 0}

    def sample(self, tasks: Sequence[Task], iteration: int) -> tuple[Rollout, dict[str, float]]:
        """Responses, scored by the reward model and measured by policy, reference and critic; and means of probes."""
        config, runtime = self.config, self.runtime
        prompts = [task.input_ids for task in tasks]
        seeds = response_seeds(runtime.seed, iteration, len(prompts))
        with self.phases("generate"):
            responses = draw_responses(self.engine, prompts, config, seeds, runtime)
        with self.phases("score"):
            ends = self.template.end_token_ids
            texts = scored_texts(prompts, responses, score_at=self.score_at, end_token_ids=ends)
            scores = score_responses(self.roles, "reward", texts, config.batch, runtime)
            watched = self.probes.judge(tasks, responses, self.template, self.runtime.ranks)
        with self.phases("measure"):
            rollout = measure_rollout(
                self.roles, prompts, responses, scores, temperature=config.sampling.temperature, batch=config.batch,
                runtime=runtime,
            )  # fmt: skip
        return rollout, {f"probe/{short_name(name)}": float(values.mean()) for name, values in watched.items()}

    def learn(self, rollout: Rollout, iteration: int) -> dict[str, float]:
        """Several epochs of mini-batches over one rollout; returns the means of what happened."""
        config, mask = self.config, rollout.response_mask
        in_reward = config.kl.where == "reward"
        rewards = shape_rewards(
            self._shaped_scores(rollout), rollout.old_logprobs, rollout.reference_logprobs, mask,
            kl_coef=self.numbers["kl_coef"] if in_reward else 0.0, estimator=config.kl.estimator,
        )  # fmt: skip
        if config.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, rollout.values, mask, gamma=config.gamma, lam=config.lam)
        if config.whiten_advantages:
            advantages = whiten(advantages, mask, shift_mean=True)
        steps: list[dict[str, float]] = []
        for epoch in range(config.num_epochs):
            order = epoch_order(
                len(rollout.prompts), seed=self.runtime.seed + 1, epoch=iteration * config.num_epochs + epoch
            )
            for first in range(0, len(order), config.mini_batch_size):
                rows = order[first : first + config.mini_batch_size]
                step = iteration * self.steps_per_iteration + len(steps)
                mini = MiniBatch(rollout.rows(rows), advantages[rows])
                with self.phases("learn_policy"):
                    learnt = self._policy_step(mini, step)
                with self.phases("learn_critic"):
                    learnt |= self._critic_step(mini, returns[rows], step)
                steps.append(learnt)
        self.followers.after_iteration(iteration)
        means = {key: sum(s[key] for s in steps) / len(steps) for key in steps[0]}
        return _describe(rollout, returns) | means | {"kl_coef": self.numbers["kl_coef"]}

    def _shaped_scores(self, rollout: Rollout) -> Tensor:
        config, scores = self.config, rollout.scores
        if config.normalise_scores:
            scores = (scores - self.score_mean) / self.score_std
        scores = scores.clamp(-config.score_clip, config.score_clip) if config.score_clip else scores
        return scores - config.reward_baseline - config.missing_end_token_penalty * (~rollout.finished).float()

    def _policy_step(self, mini: MiniBatch, step: int) -> dict[str, float]:
        config, device = self.config, self.runtime.device
        sums: list[Tensor] = []

        def loss_of(share: MicroBatch) -> Tensor:
            batch = mini.batch(share, self.roles, "policy").to(device)
            weights = batch.weights * share.counts
            logprobs, entropy = self.roles(batch, "policy", temperature=config.sampling.temperature, with_entropy=True)
            clip = {"clip_eps_low": config.clip_eps_low, "clip_eps_high": config.clip_eps_high}
            old, advantages = (
                mini.of_targets(m, share.rows).to(device) for m in (mini.rollout.old_logprobs, mini.advantages)
            )
            losses = clipped_policy_loss(logprobs, old, advantages, dual_clip=config.dual_clip, **clip)
            if config.importance_cap:
                sampled = mini.of_targets(mini.rollout.sampler_logprobs, share.rows).to(device)
                losses = losses * importance_weights(old, sampled, cap=config.importance_cap)
            if config.kl.where == "loss":
                reference = mini.of_targets(mini.rollout.reference_logprobs, share.rows).to(device)
                losses = losses + self.numbers["kl_coef"] * kl_estimate(logprobs, reference, config.kl.estimator)
            statistics = policy_statistics(logprobs.detach(), old, advantages, **clip)
            kept = (entropy, statistics.clipped.float(), statistics.kl_k3)
            sums.append(torch.stack([(values * weights).sum() for values in kept]))
            return (losses * weights).sum() / mini.num_tokens

        shares = mini.shares(config.batch, self.roles, "policy", self.runtime)
        loss = accumulate(shares, loss_of, self.policy, self.runtime)
        metrics = {"policy_loss": float(loss)}
        if config.ptx_coef > 0:
            metrics["ptx_loss"] = self._ptx(step)
        entropy, clipped, kl = (self.runtime.ranks.sum(torch.stack(sums).sum(0)) / mini.num_tokens).tolist()
        metrics |= {"entropy": entropy, "clip_fraction": clipped, "kl_old_new": kl} | self.policy.step(step)
        self.followers.after_step()
        return metrics

    def _ptx(self, step: int) -> float:
        """Add the gradient of the SFT loss on the next conversations (Ouyang et al. 2022, eq. 2)."""
        config = self.config
        picked = next_rows(Mixture((len(self.ptx_rows),)), config.ptx_rows, self.runtime.seed + 2, step)
        examples = [self.ptx_rows[i] for i in picked]
        num_trained = sum(example.num_trained for example in examples)

        def loss_of(share: MicroBatch) -> Tensor:
            batch = collate([examples[i] for i in share.rows]).to(self.runtime.device)
            losses = sft_loss(self.roles(batch, "policy").logprobs)
            return config.ptx_coef * (losses * batch.weights * share.counts).sum() / num_trained

        shares = micro_batches([len(example.input_ids) for example in examples], config.batch, self.runtime)
        return float(accumulate(shares, loss_of, self.policy, self.runtime)) / config.ptx_coef

    def _critic_step(self, mini: MiniBatch, all_returns: Tensor, step: int) -> dict[str, float]:
        config, device = self.config, self.runtime.device

        def loss_of(share: MicroBatch) -> Tensor:
            batch = mini.batch(share, self.roles, "critic").to(device)
            values = self.roles(batch, "critic")
            old, returns = (mini.of_targets(m, share.rows).to(device) for m in (mini.rollout.values, all_returns))
            losses = clipped_value_loss(values, old, returns, value_clip=config.value_clip)
            return (losses * batch.weights * share.counts).sum() / mini.num_tokens

        shares = mini.shares(config.batch, self.roles, "critic", self.runtime)
        loss = accumulate(shares, loss_of, self.critic, self.runtime)
        done = self.critic.step(step)
        return {"value_loss": float(loss), "critic_grad_norm": done["grad_norm"]}

    def flops_per_token(self) -> float:
        """Work of one token of an episode: drawn once, read by four roles, learnt from by two in every epoch."""
        epochs = self.config.num_epochs
        return sum(
            flops_per_token(
                self.roles.causal_lm(role), num_forwards=forwards, num_backwards=backwards,
                trained_fraction=self.roles.trainable_fraction(role) if backwards else 0.0,
            )
            for role, forwards, backwards in (
                ("policy", 2 + epochs, epochs), ("critic", 1 + epochs, epochs), ("reference", 1, 0), ("reward", 1, 0)
            )
        )  # fmt: skip

    def adapt_kl(self, measured: float, num_episodes: int) -> None:
        """Steer the KL coefficient to its target, when the controller is adaptive."""
        kl = self.config.kl
        if kl.controller == "adaptive":
            self.numbers["kl_coef"] = next_kl_coef(
                self.numbers["kl_coef"], measured, num_episodes, target=kl.target, horizon=kl.horizon
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything to go on from, at the end of an iteration."""
        tensors = {f"policy/{k}": v for k, v in self.policy.state().items()}
        tensors |= {f"critic/{k}": v for k, v in self.critic.state().items()}
        return tensors | self.followers.state(), self.numbers

    def load_state(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name, optimizer in (("policy", self.policy), ("critic", self.critic)):
            mark = f"{name}/"
            optimizer.load_state({k.removeprefix(mark): v for k, v in tensors.items() if k.startswith(mark)})
        self.followers.load_state(tensors)
        self.numbers = dict(numbers)


def _describe(rollout: Rollout, returns: Tensor) -> dict[str, float]:
    """What the rollout was like, and how much of the returns the critic foresaw."""
    mask = rollout.response_mask
    unexplained = masked_mean((returns - rollout.values).square(), mask)
    spread = masked_mean((returns - masked_mean(returns, mask)).square(), mask)
    return describe_rollout(rollout) | {"explained_variance": float(1 - unexplained / spread) if spread > 0 else 0.0}


def _finish(stage: Stage, learner: _Learner, pad_token_id: int | None) -> Path:
    config, roles, source, reward = learner.config, learner.roles, stage.parents["model"], stage.parents["reward"]
    num_episodes = config.num_iterations * config.prompts_per_iteration
    summary = StageSummary(
        "ppo", "policy", model=stage.folder.name, parent=source.name,
        sizes={"episodes": num_episodes, "tokens": learner.numbers["tokens"], "iterations": config.num_iterations},
    )  # fmt: skip
    learner.followers.at_the_end()
    policy, critic = role_tensors(roles, "policy"), role_tensors(roles, "critic")

    def write_models(folder: Path) -> None:
        write_role(folder, roles, "policy", policy, source.base, pad_token_id=None)
        write_role(folder.parent / "critic", roles, "critic", critic, reward.base, pad_token_id=pad_token_id)

    return stage.finish(
        "policy", source, write_models, evaluation=Evaluation(summary), facts={"kl_coef": learner.numbers["kl_coef"]},
    )  # fmt: skip
