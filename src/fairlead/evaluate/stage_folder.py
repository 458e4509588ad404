"""Reading a finished stage's folder for its report; only the manifest has to be there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.artifacts import journal
from fairlead.artifacts.manifest import Manifest, read_manifest
from fairlead.evaluate.summary import Evaluation, read_evaluation

Row = dict[str, Any]

EVALUATION_NAME = "evaluation.json"


@dataclass(frozen=True, slots=True)
class StageFolder:
    """What a stage left on disk."""

    path: Path
    manifest: Manifest
    evaluation: Evaluation | None
    metrics: list[Row]
    timings: list[Row]
    samples: list[Row]
    health: list[Row]

    @property
    def verdicts(self) -> list[str]:
        """What the numbers of the run gave to complain of, in plain words, and what was done."""
        done = {"warn": "It went on.", "stop": "It was stopped there.", "roll_back": "It was rolled back there."}
        return [
            f"Step {row['step']}: {row['what']}; likely cause: {row['cause']}. {done[row['action']]}"
            for row in self.health
        ]

    @property
    def wall_seconds(self) -> float:
        """Wall time, from the manifest or else from the evaluation."""
        return self.manifest.wall_seconds or (self.evaluation.stage.wall_seconds if self.evaluation else 0.0)

    @property
    def peak_memory_bytes(self) -> int:
        """Peak memory, from the manifest or else from the evaluation."""
        return self.manifest.peak_memory_bytes or (self.evaluation.stage.peak_memory_bytes if self.evaluation else 0)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Rows, tokens, pairs, episodes: from the evaluation, or else from `facts.sizes` of the manifest."""
        stated = self.evaluation.stage.sizes if self.evaluation else {}
        return stated or self.manifest.facts.get("sizes", {})

    @property
    def licences(self) -> Mapping[str, str]:
        """Licence of each set of weights and of rows, by name: `facts.licences` of the manifest."""
        return self.manifest.facts.get("licences", {})

    @property
    def split_digest(self) -> str:
        """sha256 of the split into training and held-out rows: `facts.split_digest` of the manifest."""
        return str(self.manifest.facts.get("split_digest", ""))


def read_stage(folder: Path) -> StageFolder:
    """Read one finished stage. Raises UserError: 66 when it is not one, 65 when a file is damaged."""
    evaluation = folder / EVALUATION_NAME
    return StageFolder(
        path=folder,
        manifest=read_manifest(folder),
        evaluation=read_evaluation(evaluation) if evaluation.is_file() else None,
        metrics=_rows(folder / "metrics.jsonl"),
        timings=_rows(folder / "timings.jsonl"),
        samples=_rows(folder / "samples.jsonl"),
        health=_rows(folder / "health.jsonl"),
    )


def _rows(path: Path) -> list[Row]:
    return journal.read(path) if path.is_file() else []
