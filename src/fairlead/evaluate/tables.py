"""From an evaluation to the rows and tiles that a page shows: numbers as text, each with one plain sentence."""

from dataclasses import dataclass, replace
from typing import Literal

from fairlead.evaluate.summary import CHINESE_REPLIES, Evaluation, Likelihood, Probes, RewardComparison, Success
from fairlead.evaluate.verdicts import Claim, claims, find_likelihood
from fairlead.evaluate.wording import between, count, fixed, interval, percent, points, signed

Tone = Literal["good", "bad", ""]
NONE = "–"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number before and after a stage."""

    name: str
    meaning: str
    parent: str
    child: str
    change: str = NONE
    interval: str = NONE  # 95 %, of the change where there is one, else of the child's number
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    note: str
    tone: Tone


def fill_from_parent(evaluation: Evaluation, parent: Evaluation | None) -> Evaluation:
    """Where the parent was not measured again beside the child, take what its own stage measured."""
    if parent is None:
        return evaluation
    replies = {answer.prompt: answer for answer in parent.answers}
    answers = tuple(
        replace(answer, parent_reply=replies[answer.prompt].reply, parent_score=replies[answer.prompt].score)
        if answer.parent_reply is None and answer.prompt in replies
        else answer
        for answer in evaluation.answers
    )
    return replace(
        evaluation,
        parent_likelihoods=evaluation.parent_likelihoods or parent.likelihoods,
        parent_probes=evaluation.parent_probes or parent.probes,
        answers=answers,
    )


def measures(evaluation: Evaluation) -> list[Measure]:
    """Everything with a before and an after; a number without a before shows a dash there."""
    rows: list[Measure] = []
    for after in evaluation.likelihoods:
        rows += _likelihood(find_likelihood(evaluation.parent_likelihoods, after.name), after)
    rows += [_success(one) for one in evaluation.successes]
    if evaluation.rewards:
        rows += _rewards(evaluation.rewards)
    if kl := evaluation.kl:
        meaning = "How far whole responses have moved from the reference model, in nats; large means another model."
        spread = between(kl.low, kl.high)
        rows.append(Measure("KL to the reference", meaning, NONE, fixed(kl.mean_sequence_kl), interval=spread))
    if evaluation.probes:
        rows += _probes(evaluation.parent_probes, evaluation.probes)
    return rows


def _likelihood(before: Likelihood | None, after: Likelihood) -> list[Measure]:
    loss = "Average surprise per token of held-out {}, in nats ({} tokens). Lower is better."
    perplexity = "Between how many equally likely tokens it hesitates, on average. Lower is better."
    name = after.name
    return [
        _before_after(
            f"Loss, {name}",
            loss.format(name, count(after.num_tokens)),
            before.loss if before else None,
            after.loss,
            digits=3,
            better="lower",
        ),
        _before_after(
            f"Perplexity, {name}",
            perplexity,
            before.perplexity if before else None,
            after.perplexity,
            digits=2,
            better="lower",
        ),
    ]


def _success(measured: Success) -> Measure:
    name, gain = f"Success, {measured.verifier}", measured.gain
    meaning = f"Share of {count(len(measured.right))} held-out prompts with an answer that this rule finds right."
    if gain is None:
        within = between(measured.low, measured.high, percent)
        return Measure(name, meaning, NONE, percent(measured.rate), interval=within)
    return Measure(
        name, meaning, percent(gain.parent_rate), percent(measured.rate), f"{points(gain.difference)} points",
        between(gain.low, gain.high, points), _tone(gain.low > 0, gain.high < 0),
    )  # fmt: skip


def _rewards(rewards: RewardComparison) -> list[Measure]:
    effect = rewards.effect_in_sd
    ties = f"; {rewards.ties} ties count half" if rewards.ties else ""
    gain = _tone(rewards.low > 0, rewards.high < 0)
    return [
        Measure(
            "Mean score",
            f"What the reward model gives, on {count(rewards.num_prompts)} held-out prompts, one response each.",
            fixed(rewards.mean_parent),
            fixed(rewards.mean_child),
            signed(rewards.paired_difference),
            between(rewards.low, rewards.high, signed),
            gain,
        ),
        Measure(
            "Gain in standard deviations",
            "The mean difference on the same prompts, in units of the spread of the parent's scores.",
            NONE,
            NONE if effect is None else signed(effect),
            tone=gain,
        ),
        Measure(
            "Win rate against the parent",
            f"Share of prompts on which the reward model prefers the new response; 50 % means no change{ties}.",
            NONE,
            percent(rewards.win_rate),
            interval=between(rewards.win_low, rewards.win_high, percent),
            tone=_tone(rewards.win_low > 0.5, rewards.win_high < 0.5),
        ),
    ]


def _probes(before: Probes | None, after: Probes) -> list[Measure]:
    ended = Measure(
        "Ends by itself",
        f"Share of {count(after.num_responses)} responses that end before the length limit. Higher is better.",
        percent(before.end_token_rate) if before else NONE,
        percent(after.end_token_rate),
        f"{points(after.end_token_rate - before.end_token_rate)} points" if before else NONE,
        between(after.end_token_low, after.end_token_high, percent),
    )
    return [
        ended,
        _before_after(
            "Distinct token pairs",
            "Share of neighbouring token pairs that differ from all others; falls when responses resemble each other.",
            before.distinct_2 if before else None,
            after.distinct_2,
            digits=3,
        ),
        _before_after(
            "Longest repeated span",
            "Tokens in the longest span that a response says twice, on average; grows when a model loops.",
            before.longest_repeat if before else None,
            after.longest_repeat,
            digits=2,
        ),
        _before_after(
            "Mean length",
            "Tokens per response. A reward model that only likes length would show here.",
            before.mean_length if before else None,
            after.mean_length,
            digits=1,
        ),
    ]


def _before_after(
    name: str, meaning: str, before: float | None, after: float, *, digits: int, better: Literal["lower", ""] = ""
) -> Measure:
    if before is None:
        return Measure(name, meaning, NONE, f"{after:.{digits}f}")
    tone = _tone(after < before, after > before) if better else ""
    return Measure(
        name, meaning, f"{before:.{digits}f}", f"{after:.{digits}f}", signed(after - before, digits), tone=tone
    )


def _tone(good: bool, bad: bool) -> Tone:
    return "good" if good else "bad" if bad else ""


def tiles(evaluation: Evaluation) -> list[Tile]:
    """The one to three numbers that sum a stage up."""
    found: list[Tile] = []
    after = find_likelihood(evaluation.likelihoods, CHINESE_REPLIES) or next(iter(evaluation.likelihoods), None)
    before = after and find_likelihood(evaluation.parent_likelihoods, after.name)
    if after and before and evaluation.stage.stage == "sft":
        note = (
            f"nats per token, {percent(1 - after.loss / before.loss)} lower"
            if after.loss < before.loss
            else "not lower"
        )
        tone = _tone(after.loss < before.loss, after.loss >= before.loss)
        found.append(Tile(f"Loss, {after.name}", f"{before.loss:.2f} → {after.loss:.2f}", note, tone))
    if evaluation.preferences:
        found.append(_accuracy_tile(evaluation))
    if evaluation.successes:
        found.append(_success_tile(evaluation.successes[0], _name(evaluation)))
    if rewards := evaluation.rewards:
        effect = NONE if rewards.effect_in_sd is None else f"{signed(rewards.effect_in_sd)} SD"
        change = f"{signed(rewards.paired_difference)}, {interval(rewards.low, rewards.high, signed)}"
        note = f"in standard deviations of the scores before; mean score {change}"
        found.append(Tile(f"Score gain, {_name(evaluation)}", effect, note, _tone(rewards.low > 0, rewards.low <= 0)))
    if kl := evaluation.kl:
        note = f"per response from its reference (KL), {interval(kl.low, kl.high)}"
        found.append(Tile(f"Distance, {_name(evaluation)}", f"{fixed(kl.mean_sequence_kl)} nats", note, ""))
    return found


def _success_tile(measured: Success, name: str) -> Tile:
    gain, prompts = measured.gain, f"of {count(len(measured.right))} held-out prompts answered right"
    if gain is None:
        within = interval(measured.low, measured.high, percent)
        return Tile(f"Success, {name}", percent(measured.rate), f"{prompts}, {within}", "")
    note = f"{prompts}; {points(gain.difference)} points, {interval(gain.low, gain.high, points)}"
    change = f"{percent(gain.parent_rate).removesuffix(' %')} → {percent(measured.rate)}"
    return Tile(f"Success, {name}", change, note, _tone(gain.low > 0, gain.low <= 0))


def _accuracy_tile(evaluation: Evaluation) -> Tile:
    measured = evaluation.preferences[0]
    note = (
        f"of {count(measured.num_pairs)} held-out pairs, {interval(measured.low, measured.high, percent)}; "
        f"best length-only rule {percent(measured.length_rule_accuracy)}"
    )
    beats = measured.low > measured.length_rule_accuracy
    name = "Reward model's accuracy"
    if measured.scorer != "reward model":
        name, note = f"Accuracy of {_name(evaluation)}", f"{note}; judged by its {measured.scorer} of each reply"
    return Tile(name, percent(measured.accuracy), note, _tone(beats, not beats))


def _name(evaluation: Evaluation) -> str:
    return label(evaluation.stage.stage)


def label(stage: str) -> str:
    """A stage's name in a table: `DPO`, `DPO, round 2`, `Measuring DPO`."""
    names = {
        "sft": "SFT",
        "dpo": "DPO",
        "kto": "KTO",
        "ppo": "PPO",
        "grpo": "GRPO",
        "reward": "Reward model",
        "split": "Split",
        "replies": "Replies",
    }
    measured = stage.removeprefix("eval-")
    repeated, _, number = measured.partition("-round-")
    name = names.get(repeated, repeated) + (f", round {number}" if number else "")
    return name if measured == stage else f"Measuring {name}"


def all_claims(evaluations: list[Evaluation]) -> list[Claim]:
    """The claims of every stage, in order."""
    return [claim for evaluation in evaluations for claim in claims(evaluation)]
