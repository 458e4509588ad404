"""`fairlead export STAGE DIR`: one merged model folder for other programs."""

from pathlib import Path


def export(artifact: Path, folder: Path, /) -> None:
    """Write a stage as one merged model folder, after comparing its logits with the adapter's.

    Parameters
    ----------
    artifact
        A finished stage, such as runs/demo/04-ppo.
    folder
        The new folder.
    """
    from fairlead.artifacts.manifest import require_kind
    from fairlead.cli.words import show_result

    require_kind(artifact, ("policy",), wanted_for="export")
    from fairlead.models.export import export as merge

    difference = merge(artifact, folder)
    print(f"largest difference between the logits of the merged model and of the adapter: {difference:.2g}")
    show_result("Merged model", folder, f"fairlead chat {folder}")
