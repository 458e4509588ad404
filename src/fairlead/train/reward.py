"""Reward model from preference pairs: a score at the last token, higher for the chosen response."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fairlead.algos.reward_loss import centring_loss, pairwise_log_exp, pairwise_log_sig
from fairlead.config.stages import RewardConfig
from fairlead.data.collate import collate_pairs
from fairlead.data.examples import PairExample
from fairlead.data.sampler import step_rows
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.preference_accuracy import (
    COLLAPSED_SPREAD,
    Scores,
    accuracy_of,
    measure_preferences,
    pair_scores,
    score_facts,
)
from fairlead.evaluate.summary import Evaluation, PreferenceAccuracy, StageSummary
from fairlead.models.build import add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.save import role_tensors, write_role
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import start
from fairlead.train.accumulate import MicroBatch, accumulate, micro_batches
from fairlead.train.limits import number_of_steps
from fairlead.train.optimizer import Optimizer
from fairlead.train.rows import load_preferences, padding_token, policy_source, rejects_path, template_of
from fairlead.train.stage import Stage, open_stage

ALL_HELD_OUT = "held-out pairs"
PAIRS_FOR_FACTS = 64  # training pairs whose scores give what ppo normalises by, where no pair is held out


def train_reward(config: RewardConfig) -> Path:
    """Run or resume the stage; returns its folder, a reward artifact: adapter (or weights) plus `score`."""
    runtime = start(config.runtime)
    source = policy_source(config.model, config.data.max_length)
    template = template_of(source)
    parents = {"model": source}
    rejects = rejects_path(config.output, "reward", runtime)
    end_token = config.score_at == "end_token"
    rows = load_preferences(config.data, template, end_token=end_token, rejects=rejects, seed=runtime.seed)
    stage = open_stage("reward", config, runtime, parents=parents, data_digests=rows.digests)
    if stage.unchanged_and_finished():
        return stage.folder
    pair_loss = {"log_sig": pairwise_log_sig, "log_exp": pairwise_log_exp}[config.loss]
    with stage.opened():
        roles = Roles()
        add_trainable(roles, "reward", source, "scores", config.model, runtime, dropout=config.model.lora.dropout)
        ready(roles, config.model, runtime)
        stage.introduce([*rows.notes, *roles.notes])
        num_steps = number_of_steps(config, len(rows.train))
        optimizer = Optimizer(roles.trainable("reward"), config.optim, runtime, num_steps=num_steps)
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
            pairs = [rows.train[i] for i in picked]
            total = sum(pair.weight for pair in pairs)
            correct: list[Tensor] = []

            def loss_of(share: MicroBatch) -> Tensor:
                batch = collate_pairs([pairs[i] for i in share.rows]).to(runtime.device)  # noqa: B023 - used in this step
                batch = batch if share.counts else batch.without_weight()
                scores = roles(batch.packed, "reward")
                chosen, rejected = scores[0::2], scores[1::2]
                correct.append(((chosen > rejected) * batch.pair_weights).sum().detach())  # noqa: B023
                losses = pair_loss(chosen, rejected, config.margin)
                if config.centring_coef:
                    losses = losses + config.centring_coef * centring_loss(chosen, rejected)
                return (losses * batch.pair_weights).sum() / total  # noqa: B023

            shares = micro_batches([pair.num_tokens for pair in pairs], config.batch, runtime)
            loss = accumulate(shares, loss_of, optimizer, runtime)
            accuracy = runtime.ranks.sum(sum(correct[1:], correct[0])) / total
            metrics = {"loss": float(loss), "accuracy": float(accuracy), **optimizer.step(step)}
            num_tokens = sum(pair.num_tokens for pair in pairs)
            numbers["tokens"] += num_tokens
            if config.eval_every_steps and (step + 1) % config.eval_every_steps == 0:
                for measured in measure_preferences(roles, "reward", rows.held_out, config.batch, runtime):
                    metrics[f"held_out_accuracy/{measured.name}"] = measured.accuracy
            stage.record(step + 1, metrics, tokens=num_tokens, rows=len(pairs))
            stage.maybe_save(step + 1, num_steps, lambda: (optimizer.state(), numbers))

        judged = rows.held_out or {"training pairs": rows.train[:PAIRS_FOR_FACTS]}
        scores = {name: pair_scores(roles, "reward", pairs, config.batch, runtime) for name, pairs in judged.items()}
        sizes = {"pairs": len(rows.train), "tokens": numbers["tokens"], "steps": num_steps}
        evaluation = Evaluation(
            StageSummary("reward", "reward", model=stage.folder.name, parent=source.name, sizes=sizes),
            preferences=_measured(rows.held_out, scores),
        )
        facts: dict[str, Any] = score_facts(scores.values())
        _require_alive(stage, facts["score_std"])
        _warn_of_chance(stage, evaluation.preferences)
        tensors = role_tensors(roles, "reward")

        def write_model(folder: Path) -> None:
            write_role(folder, roles, "reward", tensors, source.base, pad_token_id=padding_token(template))

        facts |= {"score_at": config.score_at, "pad_token_id": padding_token(template)}
        return stage.finish("reward", source, write_model, evaluation=evaluation, facts=facts)


def _measured(
    held_out: Mapping[str, Sequence[PairExample]], scores: Mapping[str, Scores]
) -> tuple[PreferenceAccuracy, ...]:
    """Accuracy on all held-out pairs first, which the claims are about, then on each group if there are several."""
    each = tuple(accuracy_of(name, pairs, scores[name]) for name, pairs in held_out.items())
    if len(each) < 2:
        return each
    pairs = [pair for group in held_out.values() for pair in group]
    chosen, rejected = ([score for name in held_out for score in scores[name][side]] for side in (0, 1))
    return accuracy_of(ALL_HELD_OUT, pairs, (chosen, rejected)), *each


def _require_alive(stage: Stage, spread: float) -> None:
    """UserError for a reward model that says the same of everything: whatever is trained on it would learn noise."""
    if spread < COLLAPSED_SPREAD:
        raise UserError(
            "the reward model has collapsed: every response gets nearly the same score", where=str(stage.folder),
            got=f"a standard deviation of {spread:.1e}", want=f"at least {COLLAPSED_SPREAD:.0e}",
            fix="lower optim.lr, and see by `fairlead data show` whether chosen and rejected differ within max_length",
            exit_code=ExitCode.BAD_DATA,
        )  # fmt: skip


def _warn_of_chance(stage: Stage, measured: Sequence[PreferenceAccuracy]) -> None:
    """Say so when the accuracy on all held-out pairs may be chance."""
    if measured and measured[0].low <= 0.5 <= measured[0].high:
        one = measured[0]
        found = f"{one.accuracy:.1%} of {one.num_pairs} held-out pairs ({one.low:.1%} to {one.high:.1%})"
        stage.say(
            f"warning: right on {found}, which may be chance: hold out more pairs, or train longer; what is optimised "
            "against it may learn noise"
        )
