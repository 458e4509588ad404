"""Supervised fine-tuning: imitate every assistant turn of every conversation."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairlead.algos.sft_loss import sft_loss, smoothed_sft_loss
from fairlead.batches import PackedBatch
from fairlead.config.stages import SftConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.data.sampler import step_rows
from fairlead.evaluate.likelihood import measure_likelihoods
from fairlead.evaluate.summary import Evaluation, Likelihood, StageSummary
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime, start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches
from fairlead.train.health import restarted_after_roll_back
from fairlead.train.limits import number_of_steps
from fairlead.train.optimizer import Optimizer
from fairlead.train.policy import finish_policy, policy_alone, policy_flops
from fairlead.train.rows import encoder_of, load_conversations, policy_source, rejects_path
from fairlead.train.stage import open_stage


@restarted_after_roll_back
def train_sft(config: SftConfig, *, name: str = "sft") -> Path:
    """Run or resume the stage of that name; returns its folder, a policy artifact."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.data.max_length)
    rejects = rejects_path(config.output, name, runtime)
    rows = load_conversations(config.data, encoder_of(source), rejects=rejects, seed=runtime.seed)
    stage = open_stage(name, config, runtime, parents={"model": source}, data_digests=rows.digests)
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        longest = max(len(example.input_ids) for example in rows.train)
        roles, config = policy_alone(stage, source, config, runtime, longest=longest)
        roles.noise["policy"] = config.neftune_alpha
        stage.introduce([*rows.notes, *roles.notes])
        num_steps = number_of_steps(config, len(rows.train))
        optimizer = Optimizer(roles.trainable("policy"), stage.optim, runtime, num_steps=num_steps)
        state = stage.resume()
        if state:
            optimizer.load_state(state.tensors)
            numbers = state.numbers
        else:
            before = measure_likelihoods(roles, "policy", rows.held_out, config.batch, runtime)
            numbers: dict[str, Any] = {"tokens": 0, "parent": [asdict(measured) for measured in before]}
        first = state.step if state else 0
        stage.begin(first_step=first, num_steps=num_steps, flops_per_token=policy_flops(roles, num_forwards=1))
        for step in range(first, num_steps):
            runtime.seed_step(step)
            picked = step_rows(rows.mixture, config.batch.rows, config.num_epochs, runtime.seed, step)
            examples = [rows.train[i] for i in picked]
            metrics = _step(roles, optimizer, examples, config, runtime, step)
            num_tokens = sum(len(example.input_ids) for example in examples)
            numbers["tokens"] += num_tokens
            if config.eval_every_steps and (step + 1) % config.eval_every_steps == 0:
                for measured in measure_likelihoods(roles, "policy", rows.held_out, config.batch, runtime):
                    metrics[f"held_out_loss/{measured.name}"] = measured.loss
            stage.record(step + 1, metrics, tokens=num_tokens, rows=len(examples))
            stage.maybe_save(step + 1, num_steps, lambda: (optimizer.state(), numbers))

        sizes = {"rows": len(rows.train), "tokens": numbers["tokens"], "steps": num_steps}
        evaluation = Evaluation(
            StageSummary(name, "policy", model=stage.folder.name, parent=source.name, sizes=sizes),
            likelihoods=measure_likelihoods(roles, "policy", rows.held_out, config.batch, runtime),
            parent_likelihoods=tuple(Likelihood(**measured) for measured in numbers["parent"]),
        )
        return finish_policy(stage, roles, source, evaluation)


def _step(
    roles: Roles, optimizer: Optimizer, examples: Sequence[Example], config: SftConfig, runtime: Runtime, step: int
) -> dict[str, float]:
    """One optimizer step on these conversations, over all ranks."""
    count = _count(examples, config)

    def loss_of(share: MicroBatch) -> Tensor:
        rows = [examples[i] for i in share.rows]
        batch = collate(rows).to(runtime.device)
        batch = batch if share.counts else batch.without_weight()
        if config.loss_per == "turn":
            batch = replace(batch, weights=batch.weights * turn_weights(rows).to(runtime.device))
        return (_losses(roles, batch, config) * batch.weights).sum() / count

    shares = micro_batches([len(example.input_ids) for example in examples], config.batch, runtime)
    loss = accumulate(shares, loss_of, optimizer, runtime)
    return {"loss": float(loss), **optimizer.step(step)}


def _losses(roles: Roles, batch: PackedBatch, config: SftConfig) -> Tensor:
    """One number per trained token [M]."""
    if not (config.label_smoothing or config.z_coef):
        return sft_loss(roles(batch, "policy").logprobs)
    logprobs, means, normalisers = roles(batch, "policy", with_vocabulary=True)
    return smoothed_sft_loss(logprobs, means, normalisers, label_smoothing=config.label_smoothing, z_coef=config.z_coef)


def _count(examples: Sequence[Example], config: SftConfig) -> int:
    """The global denominator of a step, known to every rank: trained tokens, or assistant turns."""
    if config.loss_per == "turn":
        return sum(len(example.trained_turns) for example in examples)
    return sum(example.num_trained for example in examples)


def turn_weights(examples: Sequence[Example]) -> Tensor:
    """The weight of each target [M] of a batch of these rows: 1 over the trained tokens of its turn."""
    lengths = [length for example in examples for length in example.trained_turns]
    return torch.cat([torch.full((length,), 1.0 / length) for length in lengths])
