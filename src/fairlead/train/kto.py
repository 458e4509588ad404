"""Kahneman-Tversky optimisation: responses that are desirable or not, each by itself, relative to the frozen parent.

Departures from Ethayarajh et al. 2024: the mismatched pairs that the reference point is estimated from are fixed (each
row's prompt with the response of the next row that has another prompt), where the paper shifts the responses inside a
batch; so the reference is read once. The point is that of the whole step, over all ranks and micro-batches.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.preference_loss import kto_loss
from fairlead.config.common import MicroBatchConfig
from fairlead.config.stages import KtoConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example, JudgedExample, mismatched_examples
from fairlead.data.sampler import step_rows
from fairlead.evaluate.preference_accuracy import measure_judgements, sequence_scores
from fairlead.evaluate.summary import Evaluation, StageSummary
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime, start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches_by_prompt
from fairlead.train.health import restarted_after_roll_back
from fairlead.train.limits import number_of_steps
from fairlead.train.optimizer import Optimizer
from fairlead.train.policy import finish_policy, policy_alone, policy_flops, response_logprobs
from fairlead.train.reference import computed_once, logprobs_when_first_seen, step_logprobs
from fairlead.train.rows import Rows, encoder_of, load_judgements, policy_source, rejects_path
from fairlead.train.stage import Stage, open_stage

ADVISED_RATIO = (1.0, 4 / 3)
"""Of all weights of desirable responses to all weights of undesirable ones (Ethayarajh et al. 2024, eq. 8)."""


@restarted_after_roll_back
def train_kto(config: KtoConfig, *, name: str = "kto") -> Path:
    """Run or resume the stage of that name; returns its folder, a policy artifact."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.data.max_length)
    rejects = rejects_path(config.output, name, runtime)
    rows = load_judgements(
        config.data, encoder_of(source), end_token=config.add_end_token, rejects=rejects, seed=runtime.seed
    )
    mismatched = mismatched_examples([row.response for row in rows.train], config.data.max_length)
    stage = open_stage(name, config, runtime, parents={"model": source}, data_digests=rows.digests)
    if stage.unchanged_and_finished():
        return stage.folder
    with stage.opened():
        longest = max(len(row.response.input_ids) for row in rows.train)
        roles, config = policy_alone(stage, source, config, runtime, longest=longest)
        stage.introduce([*rows.notes, _balance(rows, config, runtime.seed), *roles.notes])
        num_steps = number_of_steps(config, len(rows.train))
        optimizer = Optimizer(roles.trainable("policy"), stage.optim, runtime, num_steps=num_steps)
        rows_at = partial(step_rows, rows.mixture, config.batch.rows, config.num_epochs, runtime.seed)
        reference = _reference(stage, roles, rows, mismatched, map(rows_at, range(num_steps)), config.batch)
        held_out = partial(measure_judgements, roles, "policy", rows.held_out, reference["held_out"].tolist())
        state = stage.resume()
        if state:
            optimizer.load_state(state.tensors)
        numbers: dict[str, Any] = state.numbers if state else {"tokens": 0}
        first = state.step if state else 0
        stage.begin(first_step=first, num_steps=num_steps, flops_per_token=policy_flops(roles, num_forwards=2))
        for step in range(first, num_steps):
            runtime.seed_step(step)
            picked = rows_at(step)
            judged = [rows.train[i] for i in picked]
            kl = _reference_point(
                roles, [mismatched[i] for i in picked], reference["mismatched"][picked], config, runtime
            )
            metrics = _step(roles, optimizer, judged, reference["responses"][picked], kl, config, runtime, step)
            num_tokens = sum(len(row.response.input_ids) for row in judged)
            numbers["tokens"] += num_tokens
            if config.eval_every_steps and (step + 1) % config.eval_every_steps == 0:
                for measured in held_out(config.batch, runtime):
                    metrics[f"held_out_accuracy/{measured.name}"] = measured.accuracy
            stage.record(step + 1, metrics, tokens=num_tokens, rows=len(judged))
            stage.maybe_save(step + 1, num_steps, lambda: (optimizer.state(), numbers))

        sizes = {"responses": len(rows.train), "tokens": numbers["tokens"], "steps": num_steps}
        evaluation = Evaluation(
            StageSummary(name, "policy", model=stage.folder.name, parent=source.name, sizes=sizes),
            preferences=held_out(config.batch, runtime),
        )
        return finish_policy(stage, roles, source, evaluation)


def _balance(rows: Rows[JudgedExample], config: KtoConfig, seed: int) -> str:
    """How many responses of an epoch are of each kind, and whether their weights are as the paper advises."""
    labels = [rows.train[i].desirable for i in rows.mixture.epoch(seed=seed, epoch=0)]
    good, bad = sum(labels), len(labels) - sum(labels)
    counted = f"{good} desirable and {bad} undesirable responses in an epoch"
    if not good or not bad:
        return f"warning: {counted}: one kind alone moves the policy one way, and nothing holds it"
    ratio = config.desirable_weight * good / (config.undesirable_weight * bad)
    low, high = ADVISED_RATIO
    if low - 1e-9 <= ratio <= high + 1e-9:
        return f"{counted}, by weight {ratio:.2f} to 1"
    if ratio > high:
        advice = f"undesirable_weight={config.desirable_weight * good / bad:.3g}"
    else:
        advice = f"desirable_weight={config.undesirable_weight * bad / good:.3g}"
    return f"warning: {counted}, by weight {ratio:.2f} to 1; KTO's paper advises 1 to {high:.2f}: set {advice}"


def _reference(
    stage: Stage, roles: Roles, rows: Rows[JudgedExample], mismatched: Sequence[Example], steps: Iterable[list[int]],
    batch: MicroBatchConfig,
) -> dict[str, Tensor]:  # fmt: skip
    """Log-probabilities under the parent: of the responses and the mismatched ones [P], nan where no step sees them.

    And of the held-out responses, group after group.
    """
    responses = [row.response for row in rows.train]
    held_out = [row.response for group in rows.held_out.values() for row in group]

    def compute() -> dict[str, Tensor]:
        found = {}
        sequences = {"responses": responses, "mismatched": mismatched}
        for (name, examples), picks in zip(sequences.items(), tee(steps), strict=True):
            alone = [(example,) for example in examples]
            found[name] = logprobs_when_first_seen(stage, roles, alone, picks, batch)[:, 0]
        scores = sequence_scores(roles, "policy", held_out, batch, stage.runtime)
        return found | {"held_out": torch.tensor(scores, dtype=torch.float64)}

    return computed_once(stage, [*responses, *mismatched, *held_out], compute)


def _reference_point(
    roles: Roles, mismatched: Sequence[Example], reference: Float[Tensor, "B"], config: KtoConfig, runtime: Runtime
) -> Float[Tensor, ""]:
    """Estimate of the KL from policy to reference, nats per response; on the device, no gradient, may be negative."""
    policy = step_logprobs(roles, [(example,) for example in mismatched], config.batch, runtime)[:, 0]
    return (policy - reference).mean().to(runtime.device)


def _step(
    roles: Roles, optimizer: Optimizer, rows: Sequence[JudgedExample], reference: Float[Tensor, "B"],
    kl: Float[Tensor, ""], config: KtoConfig, runtime: Runtime, step: int,
) -> dict[str, float]:  # fmt: skip
    """One optimizer step on these responses, over all ranks."""
    labels = torch.tensor([row.desirable for row in rows])
    sums: list[Tensor] = []

    def loss_of(share: MicroBatch) -> Tensor:
        index = list(share.rows)
        batch = collate([rows[i].response for i in index], share_prompts=roles.packs("policy")).to(runtime.device)
        desirable = labels[index].to(runtime.device)
        losses, rewards = kto_loss(
            response_logprobs(roles, "policy", batch), reference[index].to(runtime.device), desirable, kl,
            beta=config.beta, desirable_weight=config.desirable_weight, undesirable_weight=config.undesirable_weight,
        )  # fmt: skip
        point = config.beta * kl.clamp(min=0.0)
        right = torch.where(desirable, rewards > point, rewards < point)
        kept = (right, rewards * desirable, rewards * ~desirable)
        sums.append(torch.stack([values.float().sum() for values in kept]) * share.counts)
        return losses.sum() * share.counts / len(rows)

    alone = [(row.response,) for row in rows]
    shares = micro_batches_by_prompt(alone, config.batch, runtime, share_prompts=roles.packs("policy"))
    loss = accumulate(shares, loss_of, optimizer, runtime)
    right, desirable, undesirable = runtime.ranks.sum(torch.stack(sums).sum(0)).tolist()
    metrics = {"loss": float(loss), "accuracy": right / len(rows), "kl_mismatched": float(kl)}
    return metrics | _rewards(desirable, undesirable, labels) | optimizer.step(step)


def _rewards(desirable: float, undesirable: float, labels: Tensor) -> dict[str, float]:
    """Mean rewards from their sums; a step without responses of one kind has no mean of it, and no margin."""
    good, bad = int(labels.sum()), int((~labels).sum())
    means = {"desirable_reward": desirable / good} if good else {}
    means |= {"undesirable_reward": undesirable / bad} if bad else {}
    return means | ({"margin": desirable / good - undesirable / bad} if good and bad else {})
