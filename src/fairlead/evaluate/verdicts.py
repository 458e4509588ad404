"""What a stage promises and whether its numbers keep the promise: one line per claim, the number beside it.

The thresholds are those of the demo; they are stated in each claim, so a reader can disagree with them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fairlead.evaluate.summary import CHINESE_REPLIES, Evaluation, Likelihood, PreferenceAccuracy, Probes, Success
from fairlead.evaluate.wording import interval, percent, points, signed

MIN_PAIRS, MIN_ACCURACY = 100, 0.70
MIN_PROMPTS, MIN_EFFECT_SD, MAX_SEQUENCE_KL = 128, 0.3, 10.0
MAX_END_TOKEN_DROP, MAX_REPETITION_CHANGE, MAX_LENGTH_CHANGE = 0.05, 0.10, 0.25


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise, whether it holds, and the number that decides it."""

    text: str
    holds: bool
    number: str


def claims(evaluation: Evaluation) -> list[Claim]:
    """All claims that this evaluation has the numbers for."""
    match evaluation.stage.stage:
        case "sft":
            return _sft(evaluation)
        case "reward":
            return _reward(evaluation.preferences[0]) if evaluation.preferences else []
        case "ppo" | "grpo":
            return _ppo(evaluation)
        case _:
            return []


def find_likelihood(likelihoods: Iterable[Likelihood], name: str) -> Likelihood | None:
    """The likelihood of that name, if it was measured."""
    return next((one for one in likelihoods if one.name == name), None)


def _sft(evaluation: Evaluation) -> list[Claim]:
    before = find_likelihood(evaluation.parent_likelihoods, CHINESE_REPLIES)
    after = find_likelihood(evaluation.likelihoods, CHINESE_REPLIES)
    if before is None or after is None:
        return []
    text = "Fine-tuning lowers the loss on held-out Chinese replies"
    return [Claim(text, after.loss < before.loss, f"{before.loss:.3f} → {after.loss:.3f} nats per token")]


def _reward(measured: PreferenceAccuracy) -> list[Claim]:
    within = f"{percent(measured.accuracy)}, {interval(measured.low, measured.high, percent)}"
    rule = f"lower bound {percent(measured.low)} against {percent(measured.length_rule_accuracy)}"
    return [
        Claim(
            f"The reward model prefers the better reply on at least {100 * MIN_ACCURACY:.0f} % of held-out pairs",
            measured.accuracy >= MIN_ACCURACY,
            within,
        ),
        Claim(
            f"Its lower bound is above the best rule that sees only lengths (“{measured.length_rule}”)",
            measured.low > measured.length_rule_accuracy,
            rule,
        ),
        Claim(
            f"It was measured on at least {MIN_PAIRS} pairs",
            measured.num_pairs >= MIN_PAIRS,
            f"{measured.num_pairs} pairs",
        ),
    ]


def _ppo(evaluation: Evaluation) -> list[Claim]:
    name = evaluation.stage.stage.upper()
    found = _success(evaluation.successes[0], name) if evaluation.successes else []
    if rewards := evaluation.rewards:
        effect = rewards.effect_in_sd
        found += [
            Claim(
                f"{name} raises the mean score by at least {MIN_EFFECT_SD} standard deviations of its parent's scores",
                effect is not None and effect >= MIN_EFFECT_SD,
                "the parent's scores are all equal" if effect is None else f"{signed(effect)} SD",
            ),
            Claim(
                "The gain's lower bound is above zero",
                rewards.low > 0.0,
                f"{signed(rewards.paired_difference)}, {interval(rewards.low, rewards.high, signed)}",
            ),
            Claim(
                f"It was measured on at least {MIN_PROMPTS} held-out prompts",
                rewards.num_prompts >= MIN_PROMPTS,
                f"{rewards.num_prompts} prompts",
            ),
        ]
    if kl := evaluation.kl:
        text = f"The policy stays within {MAX_SEQUENCE_KL:.0f} nats per response of its reference"
        found.append(Claim(text, kl.mean_sequence_kl <= MAX_SEQUENCE_KL, f"{kl.mean_sequence_kl:.2f} nats"))
    if evaluation.probes and evaluation.parent_probes:
        found.append(_ends(evaluation.parent_probes, evaluation.probes))
        if evaluation.rewards or not evaluation.successes:  # what a verifier finds right has no such short cut
            found += _no_shortcut(evaluation.parent_probes, evaluation.probes)
    return found


def _success(measured: Success, name: str) -> list[Claim]:
    if measured.gain is None:
        return []
    gain, num_prompts = measured.gain, len(measured.right)
    return [
        Claim(
            f"{name} raises the success that {measured.verifier} finds: the gain's lower bound is above zero",
            gain.low > 0.0,
            f"{points(gain.difference)} points, {interval(gain.low, gain.high, points)}",
        ),
        Claim(
            f"Success was measured on at least {MIN_PROMPTS} held-out prompts",
            num_prompts >= MIN_PROMPTS,
            f"{num_prompts} prompts",
        ),
    ]


def _ends(before: Probes, after: Probes) -> Claim:
    return Claim(
        "Responses still end by themselves: at most 5 points less often",
        after.end_token_rate >= before.end_token_rate - MAX_END_TOKEN_DROP,
        f"{percent(before.end_token_rate)} → {percent(after.end_token_rate)}",
    )


def _no_shortcut(before: Probes, after: Probes) -> list[Claim]:
    return [
        Claim(
            "Wording stays varied: distinct token pairs fall by at most 10 %",
            after.distinct_2 >= before.distinct_2 * (1.0 - MAX_REPETITION_CHANGE),
            f"{before.distinct_2:.3f} → {after.distinct_2:.3f}",
        ),
        Claim(
            "Nothing loops: the longest repeated span grows by at most 10 %",
            after.longest_repeat <= before.longest_repeat * (1.0 + MAX_REPETITION_CHANGE),
            f"{before.longest_repeat:.2f} → {after.longest_repeat:.2f} tokens",
        ),
        Claim(
            "Length is no shortcut: the mean length stays within 25 %",
            abs(after.mean_length - before.mean_length) <= MAX_LENGTH_CHANGE * before.mean_length,
            f"{before.mean_length:.1f} → {after.mean_length:.1f} tokens",
        ),
    ]
