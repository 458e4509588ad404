"""Options of `fairlead data refine`: what rows are read, which stay, and how they are mixed."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from fairlead.config.common import FilesConfig
from fairlead.config.filters import FiltersConfig
from fairlead.config.section import Section


class DuplicatesConfig(Section):
    """Which rows are told to say the same."""

    exact: bool = True
    """Of rows that are equal but for case, width, spacing and punctuation the first stays."""
    threshold: float = Field(default=0.8, ge=0.0, le=1.0)
    """A row whose Jaccard similarity to an earlier kept one is at least this goes; 0 leaves near-duplicates."""
    shingle: PositiveInt = 5
    """Tokens of a shingle: words, or characters of scripts without spaces."""
    of: Literal["whole", "prompt", "answer"] = "whole"
    """What is compared: all of a row, what a model reads, or what it learns to say."""


class ContaminationConfig(Section):
    """Evaluation questions that must not be trained on."""

    against: tuple[str, ...] = ()
    """Files or folders of evaluation questions, in any layout."""
    action: Literal["drop", "tell"] = "drop"
    """Drop rows that share 13 tokens in a row with a question, or hold a short one whole; or list them only."""


class MixConfig(Section):
    """How much of the result each group of rows gives. Rows are left out for it, never repeated."""

    by: Literal["source", "language", "kind"] = "source"
    """What makes a group: the entry of `data`, the language of what is learnt, or the kind of row."""
    weights: tuple[str, ...] = ()
    """GROUP=NUMBER: how much of the result each group gives, relative to the others; one that is not named has 1."""
    temperature: PositiveFloat = 1.0
    """Without weights, groups count their rows to the power of 1 / this: above 1 small ones gain (Conneau 2020)."""
    rows: NonNegativeInt = 0
    """Rows to keep in all; 0 keeps as many as the shares allow."""


class ExecutorConfig(Section):
    """Who reads and filters: this process, or tasks of datatrove. The result is the same, to the byte."""

    kind: Literal["", "local", "slurm", "ray"] = ""
    """Processes of this machine, jobs of Slurm, or Ray, by datatrove's executor; empty for this process alone."""
    tasks: PositiveInt = 1
    """Tasks that the files are shared out to; a file's shards, where tasks are more than files."""
    workers: PositiveInt = 1
    """Tasks at work at the same time."""
    partition: str = ""
    """Slurm's partition."""
    time: str = Field(default="01:00:00", pattern=r"^(\d+-)?\d{1,2}:\d\d:\d\d$")
    """Slurm's limit for a task, [DAYS-]HOURS:MINUTES:SECONDS."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if not self.kind and (self.tasks > 1 or self.workers > 1):
            raise ValueError("executor.tasks and executor.workers need executor.kind")
        if self.kind != "slurm" and (self.partition or self.time != ExecutorConfig.model_fields["time"].default):
            raise ValueError("executor.partition and executor.time are for executor.kind=slurm")
        if self.kind == "slurm" and not self.partition:
            raise ValueError("executor.kind=slurm needs executor.partition")
        return self


class RefineConfig(FilesConfig):
    """From any files to clean and accounted-for training data."""

    output: str = "runs/refined"
    """Folder of the run; the stage writes into a folder of its own inside."""
    data: tuple[str, ...] = ()
    """Files or folders of rows in any layout, starter datasets, or a hub's: hf://datasets/OWNER/NAME."""
    filters: FiltersConfig = FiltersConfig()
    """Steps that look at one row at a time."""
    duplicates: DuplicatesConfig = DuplicatesConfig()
    """Rows that are like others."""
    contamination: ContaminationConfig = ContaminationConfig()
    """Rows that hold questions of evaluations."""
    mix: MixConfig = MixConfig()
    """Shares of the groups."""
    held_out: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the rows to hold out; prompts that are alike stay on one side."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """Write train and held_out as JSON lines, or as Parquet, which a training can stream."""
    shard_rows: PositiveInt = 20_000
    """Rows that are read, filtered and saved at a time; an interrupted run goes on behind the last of these."""
    executor: ExecutorConfig = ExecutorConfig()
    """Who reads and filters."""
    seed: int = Field(default=42, ge=0, lt=2**31)
    """Decides which rows are held out or left out by the mix."""

    @model_validator(mode="after")
    def _weights(self) -> Self:
        for entry in self.mix.weights:
            if not all(entry.rpartition("=")[::2]):
                raise ValueError(f"mix.weights has {entry!r}; write GROUP=NUMBER")
            try:
                weight = float(entry.rpartition("=")[2])
            except ValueError:
                weight = -1.0
            if not 0 < weight < float("inf"):
                raise ValueError(f"mix.weights has {entry!r}; the weight must be a number above 0")
        if self.mix.weights and self.mix.temperature != 1.0:
            raise ValueError("mix.temperature has no meaning beside mix.weights; leave one out")
        return self
