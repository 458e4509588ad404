"""`fairlead runs`: what exists, how large it is, and the next command."""

from pathlib import Path
from typing import TYPE_CHECKING

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

    found = list_runs(folder) or [run for run in list_runs(folder.parent) if run.path == folder]
    for run in found:
        print(f"{run.path}  {size_text(run.size_bytes)}")
        for stage in run.stages:
            print(f"  {stage.name:<16} {_state(stage):<24} {size_text(stage.size_bytes):>8}")
        print(f"  next: {next_command(run)}")
    if not found:
        print(f"no runs in {folder}\nnext: fairlead demo")


def next_command(run: "RunInfo") -> str:
    """What a user most likely wants to do with a run now."""
    policies = [stage.path for stage in run.stages if stage.kind == "policy"]
    recipe = run.path / "recipe.yaml"
    if not run.finished and recipe.is_file():
        return f"fairlead run {recipe}"
    if not run.finished:
        return "repeat the command that began the unfinished stage; it goes on from its last checkpoint"
    return f"fairlead chat {policies[-1]}" if policies else f"fairlead run {recipe}"


def _state(stage: "StageInfo") -> str:
    if stage.in_use:
        return f"running, step {stage.last_step or 0}"
    return stage.kind if stage.finished else f"unfinished, step {stage.last_step or 0}"
