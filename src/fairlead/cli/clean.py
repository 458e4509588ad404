"""`fairlead clean`: free space without losing a result."""

from pathlib import Path

from fairlead.cli.words import require_there


def clean(folder: Path = Path("runs"), /, *, cache: bool = False, yes: bool = False) -> None:
    """List what can be deleted without losing a result: checkpoints of finished stages, leftovers of killed processes.

    Parameters
    ----------
    folder
        The folder that holds the runs, or one run.
    cache
        Also the cache with the starter model and rows; `fairlead fetch` brings them again.
    yes
        Delete what is listed.
    """
    from fairlead.artifacts.atomic import folder_bytes, size_text
    from fairlead.artifacts.stages import Removable, removable
    from fairlead.artifacts.stages import clean as delete
    from fairlead.runtime.environment import cache_folder

    if folder != Path("runs"):
        require_there(folder)
    items = removable(folder)
    if cache and cache_folder().is_dir():
        items.append(Removable(cache_folder(), "the cache", folder_bytes(cache_folder())))
    for item in items:
        print(f"{size_text(item.size_bytes):>8}  {item.path}  ({item.why})")
    if not items:
        print("nothing to delete")
    elif yes:
        print(f"{size_text(delete(items))} are free again")
    else:
        print(f"{size_text(sum(item.size_bytes for item in items))} in all\nnext: the same command with --yes")
