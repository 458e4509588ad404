"""Reward model from ranked or graded responses: a score at the last token, higher for the better response."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.reward_loss import centring_loss, pairwise_log_exp, pairwise_log_sig, regression_loss
from fairlead.batches import RankedBatch
from fairlead.config.stages import RewardConfig
from fairlead.data.collate import collate_ranked
from fairlead.data.examples import Example, RankedExample
from fairlead.data.sampler import step_rows
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.preference_accuracy import (
    COLLAPSED_SPREAD,
    Judged,
    accuracy_of,
    doubts_about,
    judge,
    response_scores,
    score_facts,
)
from fairlead.evaluate.summary import Evaluation, GradeAgreement, PreferenceAccuracy, StageSummary
from fairlead.models.build import add_trainable, ready
from fairlead.models.head import normalise_head
from fairlead.models.roles import Roles
from fairlead.models.save import rehearse_save, role_tensors, write_role
from fairlead.models.sources import Source
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import Runtime, start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches
from fairlead.train.health import restarted_after_roll_back
from fairlead.train.limits import number_of_steps
from fairlead.train.memory import fitted
from fairlead.train.optimizer import Optimizer
from fairlead.train.rows import encoder_of, load_ranked, padding_token, policy_source, rejects_path
from fairlead.train.stage import Stage, open_stage

ALL_HELD_OUT = "held-out pairs"
ROWS_FOR_FACTS = 64  # training rows whose scores give what ppo normalises by, where no row is held out


@restarted_after_roll_back
def train_reward(config: RewardConfig) -> Path:
    """Run or resume the stage; returns its folder, a reward artifact: adapter (or weights) plus `score`."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.data.max_length)
    encoder = encoder_of(source)
    parents = {"model": source}
    rejects = rejects_path(config.output, "reward", runtime)
    end_token = config.score_at == "end_token"
    rows = load_ranked(
        config.data, encoder, end_token=end_token, graded=config.needs_grades, paired=config.loss != "regression",
        rejects=rejects, seed=runtime.seed,
    )  # fmt: skip
    stage = open_stage("reward", config, runtime, parents=parents, data_digests=rows.digests)
    if stage.unchanged_and_finished():
        return stage.folder
    scale = _scale_of_grades(rows.train) if config.needs_grades else None
    train = [_scaled(row, *scale) for row in rows.train] if scale else rows.train
    with stage.opened():
        roles = Roles()
        add_trainable(roles, "reward", source, "scores", config.model, runtime, dropout=config.model.lora.dropout)
        if config.normalise_head:
            normalise_head(roles, "reward", _responses(train[:ROWS_FOR_FACTS]), config.batch, runtime)
        ready(roles, config.model, runtime)
        rehearse_save(stage.folder, roles, "reward", source.base, runtime)
        config = fitted(config, roles, runtime, longest=max(row.num_tokens for row in train))
        stage.introduce([*rows.notes, *roles.notes])
        num_steps = number_of_steps(config, len(train))
        optimizer = Optimizer(roles.trainable("reward"), stage.optim, runtime, num_steps=num_steps)
        state = stage.resume()
        if state:
            optimizer.load_state(state.tensors)
        numbers: dict[str, Any] = state.numbers if state else {"tokens": 0}
        first = state.step if state else 0
        flops = flops_per_token(
            roles.causal_lm("reward"), num_forwards=1, num_backwards=1,
            trained_fraction=roles.trainable_fraction("reward"),
        )  # fmt: skip
        stage.begin(first_step=first, num_steps=num_steps, flops_per_token=flops)
        for step in range(first, num_steps):
            runtime.seed_step(step)
            picked = step_rows(rows.mixture, config.batch.rows, config.num_epochs, runtime.seed, step)
            ranked = [train[i] for i in picked]
            metrics, num_tokens = _gradients_of(ranked, roles, config, optimizer, runtime)
            metrics |= optimizer.step(step)
            numbers["tokens"] += num_tokens
            if config.eval_every_steps and (step + 1) % config.eval_every_steps == 0:
                metrics |= _in_between(judge(roles, "reward", rows.held_out, config.batch, runtime))
            stage.record(step + 1, metrics, tokens=num_tokens, rows=len(ranked))
            stage.maybe_save(step + 1, num_steps, lambda: (optimizer.state(), numbers))

        judged, facts = _measured(stage, config, roles, rows.held_out, train, scale)
        sizes = {"rows": len(train), "pairs": sum(len(row.pair_indices) for row in train)}
        sizes |= {"tokens": numbers["tokens"], "steps": num_steps}
        summary = StageSummary("reward", "reward", model=stage.folder.name, parent=source.name, sizes=sizes)
        evaluation = Evaluation(summary, preferences=judged.preferences, grades=judged.grades)
        facts |= {"score_at": config.score_at, "pad_token_id": padding_token(encoder.template)}
        return _finish(stage, roles, source, evaluation, facts)


def _finish(stage: Stage, roles: Roles, source: Source, evaluation: Evaluation, facts: dict[str, Any]) -> Path:
    """Seal the artifact."""
    tensors = role_tensors(roles, "reward")

    def write_model(folder: Path) -> None:
        write_role(folder, roles, "reward", tensors, source.base, pad_token_id=facts["pad_token_id"])

    return stage.finish("reward", source, write_model, evaluation=evaluation, facts=facts)


def _gradients_of(
    ranked: Sequence[RankedExample], roles: Roles, config: RewardConfig, optimizer: Optimizer, runtime: Runtime
) -> tuple[dict[str, float], int]:
    """Backward through the rows of a step; returns its loss and accuracy, and the tokens that passed the model."""
    share_prompts = roles.packs("reward")
    lengths = [row.num_tokens - sum(row.shared_lengths) * share_prompts for row in ranked]
    correct: list[Tensor] = []

    def loss_of(share: MicroBatch) -> Tensor:
        batch = collate_ranked([ranked[i] for i in share.rows], share_prompts=share_prompts).to(runtime.device)
        batch = batch if share.counts else batch.without_weight()
        scores = roles(batch.packed, "reward")
        correct.append(((scores[batch.better] > scores[batch.worse]) * batch.pair_weights).sum())
        return sum_of_losses(scores, batch, config) / len(ranked)

    loss = accumulate(micro_batches(lengths, config.batch, runtime), loss_of, optimizer, runtime)
    metrics = {"loss": float(loss)}
    if num_paired := sum(bool(row.pair_indices) for row in ranked):
        metrics["accuracy"] = float(runtime.ranks.sum(torch.stack(correct).sum())) / num_paired
    return metrics, sum(lengths)


def sum_of_losses(scores: Float[Tensor, "S"], batch: RankedBatch, config: RewardConfig) -> Float[Tensor, ""]:
    """Each row's mean loss over its pairs, or over its responses in regression, summed over the rows of the batch."""
    chosen, rejected = scores[batch.better], scores[batch.worse]
    margin = config.margin + config.margin_per_score * (batch.grades[batch.better] - batch.grades[batch.worse])
    match config.loss:
        case "regression":
            return (regression_loss(scores, batch.grades) * batch.response_weights).sum()
        case "log_sig":
            losses = pairwise_log_sig(chosen, rejected, margin)
        case "log_exp":
            losses = pairwise_log_exp(chosen, rejected, margin)
    if config.centring_coef:
        losses = losses + config.centring_coef * centring_loss(chosen, rejected)
    return (losses * batch.pair_weights).sum()


def _measured(
    stage: Stage, config: RewardConfig, roles: Roles, held_out: Mapping[str, Sequence[RankedExample]],
    train: Sequence[RankedExample], scale: tuple[float, float] | None,
) -> tuple[Judged, dict[str, Any]]:  # fmt: skip
    """What the trained model says of held-out rows, and the facts that others read its scores by.

    Says what may be chance; UserError where it has collapsed.
    """
    learnt = scale if config.loss == "regression" else None
    judged = judge(roles, "reward", held_out, config.batch, stage.runtime, scale=learnt)
    scores = judged.scores or response_scores(
        roles, "reward", _responses(train[:ROWS_FOR_FACTS]), config.batch, stage.runtime
    )
    facts: dict[str, Any] = score_facts(scores)
    _require_alive(stage, facts["score_std"])
    judged = replace(judged, preferences=_with_the_whole(judged, held_out))
    _tell_doubts(stage, judged.preferences, judged.grades)
    return judged, facts | ({"grade_mean": learnt[0], "grade_std": learnt[1]} if learnt else {})


def _scale_of_grades(rows: Sequence[RankedExample]) -> tuple[float, float]:
    """Mean and standard deviation of the grades of all responses; UserError where they are all the same."""
    grades = [grade for row in rows for grade in row.grades]
    mean, std = fmean(grades), pstdev(grades)
    if not std:
        raise UserError(
            "every training response has the same score", where="data.train", got=f"{mean:g} throughout",
            want="different scores", fix="train on rows that differ", exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
    return mean, std


def _scaled(row: RankedExample, mean: float, std: float) -> RankedExample:
    return replace(row, grades=tuple((grade - mean) / std for grade in row.grades))


def _responses(rows: Sequence[RankedExample]) -> list[Example]:
    return [response for row in rows for response in row.responses]


def _in_between(judged: Judged) -> dict[str, float]:
    """What is told of held-out rows while training."""
    accuracies = {f"held_out_accuracy/{one.name}": one.accuracy for one in judged.preferences}
    return accuracies | {f"held_out_correlation/{one.name}": one.pearson for one in judged.grades}


def _with_the_whole(judged: Judged, held_out: Mapping[str, Sequence[RankedExample]]) -> tuple[PreferenceAccuracy, ...]:
    """Accuracy on all held-out pairs first, which the claims are about, then on each group if there are several."""
    if len(judged.preferences) < 2:
        return judged.preferences
    pairs = [pair for rows in held_out.values() for row in rows for pair in row.pairs]
    return accuracy_of(ALL_HELD_OUT, pairs, judged.scores), *judged.preferences


def _tell_doubts(stage: Stage, preferences: Sequence[PreferenceAccuracy], grades: Sequence[GradeAgreement]) -> None:
    """Say so when the accuracy on all held-out pairs, or a correlation, may be chance."""
    for measured in (*preferences[:1], *grades):
        for doubt in doubts_about(measured):
            stage.say(f"warning: {doubt}: hold out more rows, or train longer; what is optimised on it may learn noise")


def _require_alive(stage: Stage, spread: float) -> None:
    """UserError for a reward model that says the same of everything: whatever is trained on it would learn noise."""
    if spread < COLLAPSED_SPREAD:
        raise UserError(
            "the reward model has collapsed: every response gets nearly the same score", where=str(stage.folder),
            got=f"a standard deviation of {spread:.1e}", want=f"at least {COLLAPSED_SPREAD:.0e}",
            fix="lower optim.lr, and see by `fairlead data show` whether chosen and rejected differ within max_length",
            exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip
