"""Direct preference optimisation: raise the chosen response above the rejected one, relative to the frozen parent.

The losses that followed DPO differ in one function of the two log-probabilities, so they share this loop.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fairlead.algos.preference_loss import (
    dpo_loss,
    hinge_loss,
    ipo_loss,
    odds_ratio_loss,
    robust_dpo_loss,
    simpo_loss,
)
from fairlead.config.common import MicroBatchConfig
from fairlead.config.stages import DpoConfig
from fairlead.data.collate import collate_pairs
from fairlead.data.examples import PairExample
from fairlead.data.sampler import step_rows
from fairlead.evaluate.preference_accuracy import measure_preferences
from fairlead.evaluate.summary import Evaluation, StageSummary
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime, start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches_by_prompt, num_tokens_passed
from fairlead.train.health import restarted_after_roll_back
from fairlead.train.limits import number_of_steps
from fairlead.train.optimizer import Optimizer
from fairlead.train.policy import finish_policy, policy_alone, policy_flops, response_logprobs
from fairlead.train.reference import computed_once, logprobs_when_first_seen
from fairlead.train.rows import Rows, encoder_of, load_preferences, policy_source, rejects_path
from fairlead.train.stage import Stage, open_stage


@restarted_after_roll_back
def train_dpo(config: DpoConfig, *, name: str = "dpo") -> Path:
    """Run or resume the stage of that name; returns its folder, a policy artifact."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.data.max_length)
    rejects = rejects_path(config.output, name, runtime)
    rows = load_preferences(
        config.data, encoder_of(source), end_token=config.add_end_token, rejects=rejects, seed=runtime.seed
    )
    stage = open_stage(name, config, runtime, parents={"model": source}, data_digests=rows.digests)
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        longest = max(pair.num_tokens for pair in rows.train)
        roles, config = policy_alone(stage, source, config, runtime, longest=longest)
        stage.introduce([*rows.notes, *roles.notes])
        num_steps = number_of_steps(config, len(rows.train))
        optimizer = Optimizer(roles.trainable("policy"), stage.optim, runtime, num_steps=num_steps)
        rows_at = partial(step_rows, rows.mixture, config.batch.rows, config.num_epochs, runtime.seed)
        steps = map(rows_at, range(num_steps))
        reference = _reference(stage, roles, rows, steps, config.batch) if config.with_reference else None
        state = stage.resume()
        if state:
            optimizer.load_state(state.tensors)
        numbers: dict[str, Any] = state.numbers if state else {"tokens": 0}
        first = state.step if state else 0
        stage.begin(first_step=first, num_steps=num_steps, flops_per_token=policy_flops(roles, num_forwards=1))
        for step in range(first, num_steps):
            runtime.seed_step(step)
            picked = rows_at(step)
            pairs = [rows.train[i] for i in picked]
            expected = torch.zeros(len(pairs), 2) if reference is None else reference[picked]
            metrics = _step(roles, optimizer, pairs, expected, config, runtime, step)
            num_tokens = sum(num_tokens_passed(pair.sides, share_prompts=roles.packs("policy")) for pair in pairs)
            numbers["tokens"] += num_tokens
            if config.eval_every_steps and (step + 1) % config.eval_every_steps == 0:
                for measured in measure_preferences(roles, "policy", rows.held_out, config.batch, runtime):
                    metrics[f"held_out_accuracy/{measured.name}"] = measured.accuracy
            stage.record(step + 1, metrics, tokens=num_tokens, rows=len(pairs))
            stage.maybe_save(step + 1, num_steps, lambda: (optimizer.state(), numbers))

        sizes = {"pairs": len(rows.train), "tokens": numbers["tokens"], "steps": num_steps}
        evaluation = Evaluation(
            StageSummary(name, "policy", model=stage.folder.name, parent=source.name, sizes=sizes),
            preferences=measure_preferences(roles, "policy", rows.held_out, config.batch, runtime),
        )
        return finish_policy(stage, roles, source, evaluation)


def _reference(
    stage: Stage, roles: Roles, rows: Rows[PairExample], steps: Iterable[list[int]], batch: MicroBatchConfig
) -> Float[Tensor, "P 2"]:
    """Log-probability of both responses of each pair under the parent; nan for pairs that no step sees."""
    pairs = [pair.sides for pair in rows.train]

    def compute() -> dict[str, Tensor]:
        return {"pairs": logprobs_when_first_seen(stage, roles, pairs, steps, batch)}

    return computed_once(stage, [example for pair in pairs for example in pair], compute)["pairs"]


def _step(
    roles: Roles, optimizer: Optimizer, pairs: Sequence[PairExample], reference: Float[Tensor, "P 2"],
    config: DpoConfig, runtime: Runtime, step: int,
) -> dict[str, float]:  # fmt: skip
    """One optimizer step on these pairs, over all ranks."""
    total = sum(pair.weight for pair in pairs)
    num_chosen = sum(pair.weight * pair.chosen.num_trained for pair in pairs)
    sums: list[Tensor] = []

    def loss_of(share: MicroBatch) -> Tensor:
        rows = list(share.rows)
        batch = collate_pairs([pairs[i] for i in rows], share_prompts=roles.packs("policy")).to(runtime.device)
        batch = batch if share.counts else batch.without_weight()
        policy = response_logprobs(roles, "policy", batch.packed)
        losses, chosen, rejected = pair_losses(
            policy, reference[rows].flatten().to(runtime.device), batch.packed.num_targets, config
        )
        measured = torch.stack([(chosen > rejected).float(), chosen, rejected])
        sums.append((measured * batch.pair_weights).sum(1))
        loss = (losses * batch.pair_weights).sum() / total
        if config.sft_coef:
            loss = loss - config.sft_coef * (policy[0::2] * batch.pair_weights).sum() / num_chosen
        return loss

    sides = [pair.sides for pair in pairs]
    shares = micro_batches_by_prompt(sides, config.batch, runtime, share_prompts=roles.packs("policy"))
    loss = accumulate(shares, loss_of, optimizer, runtime)
    accuracy, chosen, rejected = (runtime.ranks.sum(torch.stack(sums).sum(0)) / total).tolist()
    rewards = {"chosen_reward": chosen, "rejected_reward": rejected, "margin": chosen - rejected}
    return {"loss": float(loss), "accuracy": accuracy, **rewards, **optimizer.step(step)}


def pair_losses(
    policy: Float[Tensor, "S"], reference: Float[Tensor, "S"], num_tokens: Int[Tensor, "S"], config: DpoConfig
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Loss, chosen reward and rejected reward of each pair.

    From the log-probabilities of whole responses under policy and reference (zeros where the loss has none): chosen,
    rejected, chosen, and so on, and the number of tokens of each.
    """
    if config.length_normalised or not config.with_reference:
        policy, reference = policy / num_tokens, reference / num_tokens
    loss, chosen, rejected = dpo_loss(
        policy[0::2], policy[1::2], reference[0::2], reference[1::2],
        beta=config.beta, label_smoothing=config.label_smoothing,
    )  # fmt: skip
    margin = config.beta * ((policy - reference)[0::2] - (policy - reference)[1::2])
    match config.loss:
        case "sigmoid":
            pass
        case "robust":
            loss = robust_dpo_loss(margin, label_smoothing=config.label_smoothing)
        case "ipo":
            loss = ipo_loss(margin, beta=config.beta)
        case "hinge":
            loss = hinge_loss(margin)
        case "simpo":
            loss = simpo_loss(policy[0::2], policy[1::2], beta=config.beta, gamma=config.simpo_margin)
        case "odds_ratio":
            loss = config.beta * odds_ratio_loss(policy[0::2], policy[1::2])
    return loss, chosen, rejected
