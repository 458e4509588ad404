"""`fairlead runs`: what exists, how large it is, and the next command."""

from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.cli.words import require_there

if TYPE_CHECKING:
    from fairlead.artifacts.stages import RunInfo, StageInfo


def runs(folder: Path = Path("runs"), /) -> None:
    """List runs: their stages, sizes and the next command.

    Parameters
    ----------
    folder
        The folder that holds the runs, or one run.
    """
    from fairlead.artifacts.atomic import size_text
    from fairlead.artifacts.stages import list_runs

    if folder != Path("runs"):
        require_there(folder)
    found = list_runs(folder)
    for run in found:
        print(f"{run.path}  {size_text(run.size_bytes)}")
        for stage in run.stages:
            print(f"  {stage.name:<16} {_state(stage):<24} {size_text(stage.size_bytes):>8}")
        print(f"  next: {next_command(run)}")
    if not found:
        print(f"no runs in {folder}\nnext: fairlead demo")


def next_command(run: "RunInfo") -> str:
    """What a user most likely wants to do with a run now: go on with it, else use the best that it made."""
    from fairlead.artifacts.stages import preferred
    from fairlead.cli.words import command_line

    if hindered := _hindered(run):
        return hindered
    if _planned(run) - {stage.name.partition("-")[2] for stage in run.stages if stage.finished}:
        return command_line("run", run.path / "recipe.yaml")
    if not run.finished:
        anew = all(stage.finished or stage.last_step is None for stage in run.stages)
        how = "it has not done a step yet" if anew else "it goes on from its last checkpoint"
        return f"repeat the command that began the unfinished stage; {how}"
    if policy := preferred([stage.path for stage in run.stages if stage.kind == "policy"]):
        return command_line("chat", policy)
    if rewards := [stage.path for stage in run.stages if stage.kind == "reward"]:
        return command_line("eval", rewards[-1], "--preferences", "HELD_OUT_PAIRS.jsonl")
    reports = [path for stage in run.stages if (path := stage.path / "report.html").is_file()]
    return f"look at {reports[-1] if reports else run.path}"


def _hindered(run: "RunInfo") -> str:
    """What to do about a stage that is damaged, or that its own numbers stopped; empty where there is none."""
    from fairlead.artifacts.journal import last_row

    for stage in run.stages:
        if stage.kind == "damaged":
            return f"delete {stage.path}, whose manifest is damaged, and repeat the command that made it"
        row = None if stage.finished else last_row(stage.path / "health.jsonl")
        if row and row["action"] == "stop":
            return f"{row['fix']}, with another --output; step {row['step']} was stopped: {row['what']}"
    return ""


def _planned(run: "RunInfo") -> set[str]:
    """Stages of the journey that the run is, if it is one; and `report`, which comes last, while it is not there."""
    from fairlead.config.journey import JourneyConfig
    from fairlead.config.parse import load
    from fairlead.errors import UserError

    recipe = run.path / "recipe.yaml"
    if not recipe.is_file():
        return set()
    try:
        stages = {step.name for step in load(JourneyConfig, recipe, []).steps}
    except UserError:  # written by another version; `fairlead run` says what has changed
        return set()
    return stages | {"report"} if not (run.path / "report.html").is_file() else stages


def _state(stage: "StageInfo") -> str:
    if stage.in_use:
        return f"running, step {stage.last_step or 0}"
    if stage.finished:
        return stage.kind
    return "begun, no step yet" if stage.last_step is None else f"unfinished, step {stage.last_step}"
