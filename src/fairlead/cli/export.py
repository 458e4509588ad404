"""`fairlead export MODEL DIR`: one merged model folder for other programs."""

from pathlib import Path


def export(artifact: Path, folder: Path, /) -> None:
    """Write a stage, or the policy of a run, as one merged model folder, comparing its logits with the adapter's.

    Parameters
    ----------
    artifact
        A finished stage, such as runs/demo/05-ppo, or a run, such as runs/demo.
    folder
        The new folder.
    """
    from fairlead.artifacts.manifest import require_kind
    from fairlead.artifacts.stages import is_run, policy_of
    from fairlead.cli.words import show_result

    stage = policy_of(artifact) if is_run(artifact) else artifact
    require_kind(stage, ("policy",), wanted_for="export")
    from fairlead.models.export import export as merge

    difference = merge(stage, folder)
    print(f"largest difference between the logits of the merged model and of the adapter: {difference:.2g} (rounding)")
    show_result("Merged model", folder, ("chat", folder))
