"""`fairlead runs`, `clean`, `export` and `doctor`: look after what exists."""

from pathlib import Path


def runs(folder: Path = Path("runs"), /) -> None:
    """List runs: their stages, sizes and the next command.

    Parameters
    ----------
    folder
        The folder that holds the runs.
    """
    from fairlead.artifacts.stages import list_runs

    print(list_runs(folder))


def clean(folder: Path = Path("runs"), /, *, dry_run: bool = False) -> None:
    """Free space: temporary files, and the checkpoints of finished stages.

    Parameters
    ----------
    folder
        The folder that holds the runs.
    dry_run
        Only say what would be deleted.
    """
    from fairlead.artifacts.stages import clean as free

    print(free(folder, dry_run=dry_run))


def export(artifact: Path, folder: Path, /) -> None:
    """Write a stage as one merged model folder.

    Parameters
    ----------
    artifact
        A finished stage, such as runs/demo/04-ppo.
    folder
        The new folder.
    """
    from fairlead.cli.words import show_result
    from fairlead.models.export import export as merge

    merge(artifact, folder)
    show_result("Merged model", folder, f"fairlead chat {folder}")


def doctor() -> None:
    """Check this machine: disk, memory, threads, devices, folders, registry; time a matrix product."""
    from fairlead.runtime.doctor import doctor as examine

    examine()
