"""The page of a stage and the page of a journey: one HTML file each, styles and plots inside, no script, no request.

Text that a model or a user wrote is escaped by the template engine; only our own SVG is marked safe.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import minijinja

from fairlead.artifacts.atomic import write_text
from fairlead.artifacts.manifest import Manifest
from fairlead.artifacts.stages import preferred
from fairlead.evaluate import wording
from fairlead.evaluate.curves import Figure, stage_figures
from fairlead.evaluate.pages import render
from fairlead.evaluate.scoreboard import board
from fairlead.evaluate.stage_folder import StageFolder, read_stage
from fairlead.evaluate.summary import Evaluation, StageSummary
from fairlead.evaluate.tables import NONE, all_claims, fill_from_parent, label, measures, tiles
from fairlead.evaluate.verdicts import claims

STARTER_NOTE = (
    "The starter model was already tuned to follow instructions before this journey began, and it is weak in Chinese: "
    "read the gains as what a few minutes add to it, and its Chinese answers as the work of a very small English model."
)
MAX_ANSWERS = 12  # shown open; the rest is folded away
_DID = {
    "split": "shared the rows out by prompt, so that no prompt stands in two parts",
    "sft": "learned to imitate reference replies, from good examples only",
    "reward": "learned to score a reply, from pairs in which one reply is better",
    "grpo": "practised on prompts: each answer was judged against others to the same prompt",
    "ppo": "practised on prompts: the reward model scored its answers, and a KL penalty held it near its reference",
    "kto": "learned from responses that are desirable or not, each by itself, without a reward model",
    "dpo": "learned from the pairs directly, without a reward model and without sampling",
    "own_rejected": "let the model answer: its replies are rejected, the reference replies chosen",
    "best_of_n": "let the model answer each prompt several times: its best reply is chosen, its worst rejected",
    "rejection_sampling": "let the model answer each prompt several times and kept the best reply to learn from",
}


def stage_report(folder: Path, parent: Path | None = None) -> Path:
    """Write `report.html` into a finished stage's folder, compared with its parent; return its path.

    Raises UserError when the folder (66) or a file in it (65) is not what a stage leaves.
    """
    stage = read_stage(folder)
    before = read_stage(parent) if parent else None
    evaluation = stage_evaluation(stage)
    evaluation = fill_from_parent(evaluation, before.evaluation if before else None)
    names = _names(evaluation, before)
    path = folder / "report.html"
    context = {
        "title": label(stage.manifest.stage),
        "name": folder.name,
        "did": _did(stage.manifest),
        "names": names,
        "tiles": tiles(evaluation),
        "claims": claims(evaluation),
        "measures": measures(evaluation),
        "preferences": _preferences(evaluation),
        "trust": _trust(evaluation),
        "grades": _grades(evaluation),
        "notes": [*stage.verdicts, *evaluation.notes],
        "figures": _safe(stage_figures(stage.metrics, evaluation, names)),
        "answers": _answers(evaluation, names),
        "samples": _samples(stage),
        "facts": _facts(stage),
        "licences": sorted(stage.licences.items()),
        "digests": sorted(stage.manifest.data_digests.items()),
        "options": sorted(_flat(stage.manifest.config)),
        "max_answers": MAX_ANSWERS,
    }
    write_text(path, render("stage.html", context))
    return path


def journey_report(run: Path, stages: Sequence[Path], *, title: str, notes: Sequence[str] = ()) -> Path:
    """Write `report.html` into a run's folder: what each stage did, whether the claims hold, all answers side by side.

    `stages` are finished stage folders in the order of the journey. `notes` are said on top, before any number.
    """
    read = [read_stage(stage) for stage in stages]
    evaluations = _latest([stage for stage in read if stage.evaluation])
    models = board(evaluations)
    verdicts = all_claims(evaluations)
    path = run / "report.html"
    context = {
        "title": title,
        "name": run.name,
        "notes": list(notes),
        "told": [f"{label(one.manifest.stage)}: {verdict}" for one in read for verdict in one.verdicts],
        "left_out": [f"{label(e.stage.stage)}: {note}" for e in evaluations for note in e.notes],
        "tiles": [tile for evaluation in evaluations for tile in tiles(evaluation)],
        "claims": verdicts,
        "held": sum(claim.holds for claim in verdicts),
        "stages": [_journey_row(stage, run) for stage in read],
        "total_wall": wording.duration(sum(stage.wall_seconds for stage in read)),
        "models": models.models,
        "numbers": models.number_rows(),
        "preferences": [row for evaluation in evaluations for row in _preferences(evaluation)],
        "trust": [row for evaluation in evaluations for row in _trust(evaluation)],
        "grades": [row for evaluation in evaluations for row in _grades(evaluation)],
        "figures": _safe(_journey_figures(read)),
        "answers": _answer_rows(models.reply_rows()),
        "licences": sorted({item for stage in read for item in stage.licences.items()}),
        "digests": sorted({item for stage in read for item in stage.manifest.data_digests.items()}),
        "split_digest": next((stage.split_digest for stage in read if stage.split_digest), ""),
        "normalises": any(stage.manifest.config.get("normalise_scores") for stage in read),
        "machine": _machine(read),
        "chat": _chat(read),
        "max_answers": MAX_ANSWERS,
    }
    write_text(path, render("journey.html", context))
    return path


@dataclass(frozen=True, slots=True)
class Cell:
    """One answer as it is shown."""

    model: str
    text: str
    score: str


def stage_evaluation(stage: StageFolder) -> Evaluation:
    """The stage's evaluation, with the names that it left to the manifest filled in."""
    manifest = stage.manifest
    evaluation = stage.evaluation or Evaluation(StageSummary(manifest.stage, manifest.kind))
    summary = evaluation.stage
    policy = manifest.parents.get("policy")
    parent = wording.place(summary.parent) or (Path(policy.path).name if policy else "")
    return replace(evaluation, stage=replace(summary, model=summary.model or stage.path.name, parent=parent))


def _did(manifest: Manifest) -> str:
    """What a stage is for; replies by their method. Empty for what makes nothing."""
    stage = manifest.stage.partition("-round-")[0]
    return _DID.get(manifest.config.get("method", "own_rejected") if stage == "replies" else stage, "")


def _names(evaluation: Evaluation, parent: StageFolder | None) -> tuple[str, str]:
    """How to call parent and child in a table's head."""
    before = label(parent.manifest.stage) if parent else evaluation.stage.parent or "Parent"
    after = label(evaluation.stage.stage)
    return (f"{before} (before)", f"{after} (after)") if before == after else (before, after)


def _preferences(evaluation: Evaluation) -> list[dict[str, Any]]:
    judges = {
        "reward model": "the reward model's score",
        "log-probability": f"its log-probability under {label(evaluation.stage.stage)}",
        "log-ratio": f"its log-probability under {label(evaluation.stage.stage)}, less that under the reference",
    }
    return [
        {
            "name": one.name,
            "accuracy": wording.percent(one.accuracy),
            "interval": wording.between(one.low, one.high, wording.percent),
            "pairs": wording.count(one.num_pairs),
            "judge": judges[one.scorer],
            "claimed": evaluation.stage.stage == "reward",  # see verdicts.py
            "rule": one.length_rule,
            "rule_accuracy": wording.percent(one.length_rule_accuracy),
            "margin": wording.signed(one.mean_margin),
            "spread": wording.fixed(one.score_std),
        }
        for one in evaluation.preferences
    ]


def _trust(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What the scores of a reward model are worth beyond their order, for each group of pairs."""
    return [
        {
            "name": one.name,
            "error": wording.percent(found.calibration_error),
            "quarters": [f"{100 * group.accuracy:.0f}" for group in found.by_margin],
            "by_score": NONE if found.length.by_score is None else wording.percent(found.length.by_score),
            "by_label": "" if found.length.by_label is None else f"{wording.percent(found.length.by_label)} by label",
            "differ": wording.count(found.length.num_pairs),
            "correlation": NONE if found.length.correlation is None else wording.signed(found.length.correlation),
        }
        for one in evaluation.preferences
        if (found := one.diagnostics)
    ]


def _grades(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "responses": wording.count(one.num_responses),
            "pearson": wording.signed(one.pearson),
            "interval": wording.between(one.low, one.high, wording.signed),
            "spearman": wording.signed(one.spearman),
            "error": NONE if one.mean_squared_error is None else wording.fixed(one.mean_squared_error),
        }
        for one in evaluation.grades
    ]


def _safe(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    return [{"caption": one.caption, "svg": minijinja.safe(one.svg), "minor": one.minor} for one in figures]


def _answers(evaluation: Evaluation, names: tuple[str, str]) -> list[dict[str, Any]]:
    parent, child = names
    rows = []
    for answer in evaluation.answers:
        cells = [_cell(child, answer.reply, answer.score)]
        if answer.parent_reply is not None:
            cells.insert(0, _cell(parent, answer.parent_reply, answer.parent_score))
        rows.append({"prompt": wording.readable(answer.prompt), "cells": cells})
    return rows


def _answer_rows(rows: Sequence[tuple[str, list[tuple[str, Any]]]]) -> list[dict[str, Any]]:
    return [
        {"prompt": wording.readable(prompt), "cells": [_cell(model, reply.text, reply.score) for model, reply in cells]}
        for prompt, cells in rows
    ]


def _cell(model: str, text: str, score: float | None) -> Cell:
    return Cell(model, wording.readable(text).strip(), "" if score is None else wording.fixed(score))


def _samples(stage: StageFolder, most: int = 6) -> list[dict[str, str]]:
    """The last few things the model said in training, oldest first."""
    return [
        {
            "step": str(row.get("step", "")),
            "prompt": wording.readable(str(row.get("prompt", ""))),
            "response": wording.readable(str(row.get("response", ""))).strip(),
            "score": wording.fixed(row["score"]) if isinstance(row.get("score"), int | float) else "",
        }
        for row in stage.samples[-most:]
    ]


def _facts(stage: StageFolder) -> list[tuple[str, str]]:
    """Sizes, clock and memory: what it took."""
    manifest = stage.manifest
    base = wording.place(manifest.base.name) if manifest.base else ""
    found = [
        ("Used", wording.sizes(stage.sizes)),
        ("Wall time", wording.duration(stage.wall_seconds) if stage.wall_seconds else ""),
        ("Peak memory", wording.size(stage.peak_memory_bytes) if stage.peak_memory_bytes else ""),
        *_speeds(stage),
        ("Base weights", base),
        ("Made from", ", ".join(f"{role} {Path(one.path).name}" for role, one in manifest.parents.items())),
        ("Processes", f"{manifest.world_size}, {manifest.num_threads} threads each" if manifest.num_threads else ""),
        ("Seed", str(manifest.seed)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("Options digest", manifest.config_digest[:16]),
    ]
    return [(name, text) for name, text in found if text]


def _speeds(stage: StageFolder) -> list[tuple[str, str]]:
    """Medians of the clock's figures over steps."""
    shown = {"tokens_per_second": "tokens/s", "samples_per_second": "samples/s", "steps_per_second": "steps/s"}
    found = []
    for key, unit in shown.items():
        values = sorted(row[key] for row in stage.timings if isinstance(row.get(key), int | float))
        if values:
            middle = values[len(values) // 2]
            found.append((f"Median {unit}", wording.count(middle) if middle >= 100 else f"{middle:.2f}"))
    return found


def _journey_row(stage: StageFolder, run: Path) -> dict[str, str]:
    name = stage.path.name
    linked = (stage.path / "report.html").is_file() and stage.path.parent.resolve() == run.resolve()
    return {
        "name": label(stage.manifest.stage),
        "folder": name,
        "link": f"{name}/report.html" if linked else "",
        "did": _did(stage.manifest) or "measured the model on held-out rows",
        "sizes": wording.sizes(stage.sizes),
        "wall": wording.duration(stage.wall_seconds),
        "memory": wording.size(stage.peak_memory_bytes) if stage.peak_memory_bytes else "–",
    }


def _latest(stages: Sequence[StageFolder]) -> list[Evaluation]:
    """One evaluation per model: that of an eval stage, where there is one, replaces what training measured itself."""
    reports = [stage for stage in stages if stage.manifest.kind == "report"]
    measured = {stage_evaluation(stage).stage.model for stage in reports}
    trained = [stage for stage in stages if stage.manifest.kind != "report" and stage.path.name not in measured]
    return [stage_evaluation(stage) for stage in stages if stage in trained or stage in reports]


def _journey_figures(stages: Sequence[StageFolder]) -> list[Figure]:
    """The charts of every stage that a reader should not miss."""
    found: list[Figure] = []
    for stage in stages:
        evaluation = stage_evaluation(stage)
        name = label(stage.manifest.stage)
        figures = stage_figures(stage.metrics, evaluation, _journey_names(evaluation, stages))
        found += [replace(one, caption=f"{name}: {one.caption}") for one in figures if one.headline]
    return found


def _journey_names(evaluation: Evaluation, stages: Sequence[StageFolder]) -> tuple[str, str]:
    parent = next((one for one in stages if one.path.name == evaluation.stage.parent), None)
    return _names(evaluation, parent)


def _chat(stages: Sequence[StageFolder]) -> str:
    """The command to talk to the result: PPO's policy if there is one, else the last policy."""
    chosen = preferred([stage.path for stage in stages if stage.manifest.kind == "policy"])
    return f"fairlead chat {shlex.quote(str(chosen))}" if chosen else ""


def _machine(stages: Sequence[StageFolder]) -> str:
    """One line on versions and threads, of the first stage that ran a model."""
    for stage in stages:
        manifest = stage.manifest
        if manifest.num_threads:
            versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
            return f"Processes: {manifest.world_size}, {manifest.num_threads} threads each. Versions: {versions}."
    return ""


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested options as dotted names."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        rows += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, str(value))]
    return rows
