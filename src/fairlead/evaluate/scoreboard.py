"""Every model of a journey side by side: its numbers and its answers to the same held-out prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fairlead.evaluate.summary import Evaluation, Likelihood, Probes
from fairlead.evaluate.tables import NONE, label
from fairlead.evaluate.wording import fixed, percent

BASE = "Base"


@dataclass(frozen=True, slots=True)
class Reply:
    """One model's answer; `score` is None where no reward model judged it."""

    text: str
    score: float | None


@dataclass(slots=True)
class Board:
    """Columns are models in the order of the journey; cells may be missing."""

    models: list[str] = field(default_factory=list)
    numbers: dict[str, dict[str, str]] = field(default_factory=dict)  # measure -> model -> text
    replies: dict[str, dict[str, Reply]] = field(default_factory=dict)  # prompt -> model -> reply

    def number_rows(self) -> list[tuple[str, list[str]]]:
        """Measures with one text per model."""
        return [(name, [cells.get(model, NONE) for model in self.models]) for name, cells in self.numbers.items()]

    def reply_rows(self) -> list[tuple[str, list[tuple[str, Reply]]]]:
        """Prompts with (model, reply), those that most models answered first."""
        rows = sorted(self.replies.items(), key=lambda row: -len(row[1]))
        return [(prompt, [(m, cells[m]) for m in self.models if m in cells]) for prompt, cells in rows]


def board(evaluations: Sequence[Evaluation]) -> Board:
    """Collect what each evaluation says about its own model and about its parent.

    A later stage measures its parent again in its own set-up, and for replies with scores; the later figure is kept.
    """
    found = Board()
    known: dict[str, str] = {}  # how a child may name its parent -> the parent's column
    for evaluation in evaluations:
        if not (evaluation.answers or evaluation.likelihoods or evaluation.probes):
            continue
        stage = evaluation.stage
        child = label(stage.stage)
        parent = known.get(stage.parent, BASE)
        known |= {stage.stage: child, stage.model: child}
        for model in (parent, child):
            if model not in found.models:
                found.models.insert(0 if model == BASE else len(found.models), model)
        _numbers(found, parent, evaluation.parent_likelihoods, evaluation.parent_probes)
        _numbers(found, child, evaluation.likelihoods, evaluation.probes)
        for one in evaluation.successes:
            cells = found.numbers.setdefault(f"Success, {one.verifier}", {})
            cells |= {child: percent(one.rate)} | ({parent: percent(one.gain.parent_rate)} if one.gain else {})
        if rewards := evaluation.rewards:
            found.numbers.setdefault("Mean score", {}).update(
                {parent: fixed(rewards.mean_parent), child: fixed(rewards.mean_child)}
            )
        if kl := evaluation.kl:
            found.numbers.setdefault("KL to its reference, nats", {})[child] = fixed(kl.mean_sequence_kl)
        _replies(found, evaluation, parent, child)
    return found


def _numbers(found: Board, model: str, likelihoods: Sequence[Likelihood], probes: Probes | None) -> None:
    for one in likelihoods:
        found.numbers.setdefault(f"Loss, {one.name}", {})[model] = f"{one.loss:.3f}"
    if probes:
        for name, text in (
            ("Ends by itself", percent(probes.end_token_rate)),
            ("Distinct token pairs", f"{probes.distinct_2:.3f}"),
            ("Longest repeated span, tokens", fixed(probes.longest_repeat)),
            ("Mean length, tokens", f"{probes.mean_length:.1f}"),
        ):
            found.numbers.setdefault(name, {})[model] = text


def _replies(found: Board, evaluation: Evaluation, parent: str, child: str) -> None:
    for answer in evaluation.answers:
        cells = found.replies.setdefault(answer.prompt, {})
        cells[child] = Reply(answer.reply, answer.score)
        if answer.parent_reply is not None and (parent not in cells or answer.parent_score is not None):
            cells[parent] = Reply(answer.parent_reply, answer.parent_score)
