"""The model card of a stage: README.md with YAML front matter that model hubs read."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import minijinja
from ruamel.yaml import YAML

from fairlead import __version__
from fairlead.evaluate import wording
from fairlead.evaluate.pages import TEMPLATES
from fairlead.evaluate.report import stage_evaluation
from fairlead.evaluate.stage_folder import StageFolder, read_stage
from fairlead.evaluate.summary import Evaluation
from fairlead.evaluate.tables import label, measures
from fairlead.evaluate.verdicts import claims

_TASK = {"policy": "text-generation", "reward": "text-classification"}


def model_card(folder: Path) -> str:
    """Front matter and text of a finished stage's README.md, to be written by the caller."""
    stage = read_stage(folder)
    evaluation = stage_evaluation(stage)
    environment = minijinja.Environment(trim_blocks=True, lstrip_blocks=True, undefined_behavior="strict")
    environment.add_filter("cell", _cell)
    body = environment.render_str(
        (TEMPLATES / "card.md").read_text(encoding="utf-8"),
        title=label(stage.manifest.stage),
        name=folder.name,
        kind=stage.manifest.kind,
        base=wording.place(stage.manifest.base.name) if stage.manifest.base else "",
        parents=[(role, Path(one.path).name, one.digest) for role, one in stage.manifest.parents.items()],
        sizes=wording.sizes(stage.sizes),
        wall=wording.duration(stage.wall_seconds),
        memory=wording.size(stage.peak_memory_bytes),
        measures=measures(evaluation),
        preferences=evaluation.preferences,
        notes=[*stage.verdicts, *evaluation.notes],
        claims=claims(evaluation),
        licences=sorted(stage.licences.items()),
        digests=sorted(stage.manifest.data_digests.items()),
        versions=stage.manifest.versions,
        seed=stage.manifest.seed,
        percent=wording.percent,
        config=_yaml(stage.manifest.config),
    )
    return f"---\n{_yaml(_front_matter(stage, evaluation))}---\n\n{body}"


def _front_matter(stage: StageFolder, evaluation: Evaluation) -> dict[str, Any]:
    manifest = stage.manifest
    named = set(stage.licences.values())
    licence = named.pop() if len(named) == 1 else ""
    front: dict[str, Any] = {
        "license": licence.lower() if licence and " " not in licence else "other",  # an SPDX id is one word
        "pipeline_tag": _TASK.get(manifest.kind, "text-generation"),
        "tags": ["fairlead", manifest.stage],
        "datasets": [Path(path).name for path in sorted(manifest.data_digests)],
    }
    if manifest.base:
        front["base_model"] = wording.place(manifest.base.name)
    if results := _results(evaluation):
        front["model-index"] = [{"name": stage.path.name, "results": results}]
    front["fairlead"] = {"version": __version__, "stage": manifest.stage, "config_digest": manifest.config_digest}
    return front


def _results(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Metrics in the hub's model-index layout; intervals stand beside the value."""
    rows = [_result(one.name, "loss", one.loss, None) for one in evaluation.likelihoods]
    rows += [_result(one.name, "accuracy", one.accuracy, (one.low, one.high)) for one in evaluation.preferences]
    rows += [_result("held-out prompts", one.verifier, one.rate, (one.low, one.high)) for one in evaluation.successes]
    if rewards := evaluation.rewards:
        interval = (rewards.win_low, rewards.win_high)
        rows.append(_result("held-out prompts", "win rate against the parent", rewards.win_rate, interval))
    return rows


def _result(data: str, metric: str, value: float, interval: tuple[float, float] | None) -> dict[str, Any]:
    measured: dict[str, Any] = {"type": metric, "value": round(value, 4)}
    if interval:
        measured["interval_95"] = [round(end, 4) for end in interval]
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": data, "type": "held-out"},
        "metrics": [measured],
    }


def _yaml(value: Mapping[str, Any]) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 1_000_000
    yaml.sort_base_mapping_type_on_output = False  # keep the order in which the fields are given
    target = io.StringIO()
    yaml.dump(dict(value), target)
    return target.getvalue()


def _cell(text: str) -> str:
    """Text that stays inside one cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())
