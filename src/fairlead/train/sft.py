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
from fairlead.models.build import add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.save import role_tensors, write_role
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches
from fairlead.train.limits import number_of_steps
from fairlead.train.optimizer import Optimizer
from fairlead.train.rows import load_conversations, policy_source, rejects_path, template_of
from fairlead.train.stage import open_stage


def train_sft(config: SftConfig, *, name: str = "sft") -> Path:
    """Run or resume the stage of that name; returns its folder, a policy artifact."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.data.max_length)
    parents = {"model": source}
    rejects = rejects_path(config.output, name, runtime)
    rows = load_conversations(config.data, template_of(source), rejects=rejects, seed=runtime.seed)
    stage = open_stage(name, config, runtime, parents=parents, data_digests=rows.digests)
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        roles = Roles()
        add_trainable(roles, "policy", source, "logprobs", config.model, runtime, dropout=config.model.lora.dropout)
        ready(roles, config.model, runtime)
        roles.noise["policy"] = config.neftune_alpha
        stage.introduce([*rows.notes, *roles.notes])
        num_steps = number_of_steps(config, len(rows.train))
        optimizer = Optimizer(roles.trainable("policy"), config.optim, runtime, num_steps=num_steps)
        state = stage.resume()
        if state:
            optimizer.load_state(state.tensors)
            numbers = state.numbers
        else:
            before = measure_likelihoods(roles, "policy", rows.held_out, config.batch, runtime)
            numbers: dict[str, Any] = {"tokens": 0, "parent": [asdict(measured) for measured in before]}

        def state_of() -> tuple[dict[str, Tensor], dict[str, Any]]:
            return optimizer.state(), numbers

        first = state.step if state else 0
        flops = flops_per_token(
            roles.causal_lm("policy"), num_forwards=1, num_backwards=1,
            trained_fraction=roles.trainable_fraction("policy"),
        )  # fmt: skip
        stage.begin(first_step=first, num_steps=num_steps, flops_per_token=flops)
        for step in range(first, num_steps):
            runtime.seed_step(step)
            picked = step_rows(len(rows.train), config.batch.rows, config.num_epochs, runtime.seed, step)
            examples = [rows.train[i] for i in picked]
            count = _count(examples, config)

            def loss_of(share: MicroBatch) -> Tensor:
                batch = collate([examples[i] for i in share.rows]).to(runtime.device)  # noqa: B023 - used in this step
                batch = batch if share.counts else batch.without_weight()
                if config.loss_per == "turn":
                    weights = turn_weights([examples[i] for i in share.rows]).to(runtime.device)  # noqa: B023
                    batch = replace(batch, weights=batch.weights * weights)
                return (_losses(roles, batch, config) * batch.weights).sum() / count  # noqa: B023

            shares = micro_batches([len(example.input_ids) for example in examples], config.batch, runtime)
            loss = accumulate(shares, loss_of, optimizer, runtime)
            metrics = {"loss": float(loss), **optimizer.step(step)}
            num_tokens = sum(len(example.input_ids) for example in examples)
            numbers["tokens"] += num_tokens
            if config.eval_every_steps and (step + 1) % config.eval_every_steps == 0:
                for measured in measure_likelihoods(roles, "policy", rows.held_out, config.batch, runtime):
                    metrics[f"held_out_loss/{measured.name}"] = measured.loss
            stage.record(step + 1, metrics, tokens=num_tokens, rows=len(examples))
            stage.maybe_save(step + 1, num_steps, state_of)

        summary = StageSummary(
            name, "policy", model=stage.folder.name, parent=source.name,
            sizes={"rows": len(rows.train), "tokens": numbers["tokens"], "steps": num_steps},
        )  # fmt: skip
        evaluation = Evaluation(
            summary,
            likelihoods=measure_likelihoods(roles, "policy", rows.held_out, config.batch, runtime),
            parent_likelihoods=tuple(Likelihood(**measured) for measured in numbers["parent"]),
        )
        tensors = role_tensors(roles, "policy")

        def write_model(folder: Path) -> None:
            write_role(folder, roles, "policy", tensors, source.base, pad_token_id=None)

        return stage.finish("policy", source, write_model, evaluation=evaluation, facts={})


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
