"""Direct preference optimisation: raise the chosen response above the rejected one, relative to the frozen parent.

The losses that followed DPO differ in one function of the two log-probabilities, so they share this loop.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fairlead.algos.masked import segment_sum
from fairlead.algos.preference_loss import (
    dpo_loss,
    hinge_loss,
    ipo_loss,
    odds_ratio_loss,
    robust_dpo_loss,
    simpo_loss,
)
from fairlead.batches import PairBatch
from fairlead.config.stages import DpoConfig
from fairlead.data.collate import collate_pairs
from fairlead.data.sampler import step_rows
from fairlead.evaluate.preference_accuracy import measure_preferences
from fairlead.evaluate.summary import Evaluation, StageSummary
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.save import role_tensors, write_role
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches
from fairlead.train.limits import number_of_steps
from fairlead.train.optimizer import Optimizer
from fairlead.train.rows import load_preferences, policy_source, rejects_path, template_of
from fairlead.train.stage import open_stage


def train_dpo(config: DpoConfig, *, name: str = "dpo") -> Path:
    """Run or resume the stage of that name; returns its folder, a policy artifact."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.data.max_length)
    parents = {"model": source}
    rows = load_preferences(
        config.data, template_of(source), end_token=config.add_end_token,
        rejects=rejects_path(config.output, name, runtime), seed=runtime.seed,
    )  # fmt: skip
    stage = open_stage(name, config, runtime, parents=parents, data_digests=rows.digests)
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        roles = Roles()
        if config.with_reference:
            add_frozen(roles, "reference", source, "logprobs", runtime)
        add_trainable(roles, "policy", source, "logprobs", config.model, runtime, dropout=config.model.lora.dropout)
        ready(roles, config.model, runtime)
        stage.introduce([*rows.notes, *roles.notes])
        num_steps = number_of_steps(config, len(rows.train))
        optimizer = Optimizer(roles.trainable("policy"), config.optim, runtime, num_steps=num_steps)
        state = stage.resume()
        if state:
            optimizer.load_state(state.tensors)
        numbers: dict[str, Any] = state.numbers if state else {"tokens": 0}
        first = state.step if state else 0
        flops = flops_per_token(
            roles.causal_lm("policy"), num_forwards=1 + config.with_reference, num_backwards=1,
            trained_fraction=roles.trainable_fraction("policy"),
        )  # fmt: skip
        stage.begin(first_step=first, num_steps=num_steps, flops_per_token=flops)
        for step in range(first, num_steps):
            runtime.seed_step(step)
            picked = step_rows(len(rows.train), config.batch.rows, config.num_epochs, runtime.seed, step)
            pairs = [rows.train[i] for i in picked]
            total = sum(pair.weight for pair in pairs)
            num_chosen = sum(pair.weight * pair.chosen.num_trained for pair in pairs)
            sums: list[Tensor] = []

            def loss_of(share: MicroBatch) -> Tensor:
                batch = collate_pairs([pairs[i] for i in share.rows]).to(runtime.device)  # noqa: B023 - used in this step
                batch = batch if share.counts else batch.without_weight()
                loss, measured = _loss_of_share(roles, batch, config, total, num_chosen)  # noqa: B023
                sums.append(measured)  # noqa: B023
                return loss

            shares = micro_batches([pair.num_tokens for pair in pairs], config.batch, runtime)
            loss = accumulate(shares, loss_of, optimizer, runtime)
            means = (runtime.ranks.sum(torch.stack(sums).sum(0)) / total).tolist()
            metrics = {"loss": float(loss), **_named(means), **optimizer.step(step)}
            num_tokens = sum(pair.num_tokens for pair in pairs)
            numbers["tokens"] += num_tokens
            if config.eval_every_steps and (step + 1) % config.eval_every_steps == 0:
                for measured in measure_preferences(roles, "policy", rows.held_out, config.batch, runtime):
                    metrics[f"held_out_accuracy/{measured.name}"] = measured.accuracy
            stage.record(step + 1, metrics, tokens=num_tokens, rows=len(pairs))
            stage.maybe_save(step + 1, num_steps, lambda: (optimizer.state(), numbers))

        summary = StageSummary(
            name, "policy", model=stage.folder.name, parent=source.name,
            sizes={"pairs": len(rows.train), "tokens": numbers["tokens"], "steps": num_steps},
        )  # fmt: skip
        measured = measure_preferences(roles, "policy", rows.held_out, config.batch, runtime)
        tensors = role_tensors(roles, "policy")

        def write_model(folder: Path) -> None:
            write_role(folder, roles, "policy", tensors, source.base, pad_token_id=None)

        return stage.finish(
            "policy", source, write_model, evaluation=Evaluation(summary, preferences=measured), facts={},
        )  # fmt: skip


def _named(means: Sequence[float]) -> dict[str, float]:
    accuracy, chosen, rejected = means
    return {"accuracy": accuracy, "chosen_reward": chosen, "rejected_reward": rejected, "margin": chosen - rejected}


def _loss_of_share(
    roles: Roles, batch: PairBatch, config: DpoConfig, num_pairs: float, num_chosen: float
) -> tuple[Tensor, Tensor]:
    """This micro-batch's part of the step's loss, and its sums of accuracy, chosen and rejected reward [3].

    `num_pairs` and `num_chosen` (tokens of chosen responses) are those of the whole step, by the weights of its pairs.
    """
    reference = None
    if config.with_reference:
        with torch.no_grad():
            reference = response_logprobs(roles, "reference", batch)
    policy = response_logprobs(roles, "policy", batch)
    reference = torch.zeros_like(policy) if reference is None else reference
    losses, chosen, rejected = pair_losses(policy, reference, batch.packed.num_targets, config)
    loss = (losses * batch.pair_weights).sum() / num_pairs
    if config.sft_coef:
        loss = loss - config.sft_coef * (policy[0::2] * batch.pair_weights).sum() / num_chosen
    measured = torch.stack([(chosen > rejected).float(), chosen, rejected])
    return loss, (measured * batch.pair_weights).sum(1)


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


def response_logprobs(roles: Roles, role: str, batch: PairBatch) -> Tensor:
    """Log-probability of each whole response [2P], nats: chosen, rejected, chosen, rejected, and so on."""
    logprobs = roles(batch.packed, role).logprobs
    return segment_sum(logprobs, batch.packed.sequence_of_target, len(batch.packed.lengths))
