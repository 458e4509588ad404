"""`fairlead feedback compare|export|backup|restore|invite`: what people are to say, what they said, who may say it."""

from pathlib import Path
from typing import Literal

from fairlead.cli.words import Words, config_from_words, required
from fairlead.config.compare import CompareConfig


def compare(*words: Words) -> None:
    """Let models answer prompts, and put the answers into a store to be ranked."""
    config = config_from_words("feedback compare", CompareConfig, words, positional="store")
    required(config.store, "store", "name it: fairlead feedback compare labels.db --data FILE")
    from fairlead.cli.preflight import check_compare

    models = check_compare(config)
    from fairlead.pipeline.compare import compare as add

    found = add(config, models)
    print(f"{found.added} comparisons are new in {config.store}, {found.before} were there")


def export(store: str, folder: Path, /, *, parquet: bool = False) -> None:
    """Write the labels of a store as rows to train on, with their digests and how to name the same rows again.

    Parameters
    ----------
    store
        A file of SQLite or postgresql://USER@HOST/DATABASE, with a choice behind it if wanted, such as
        labels.db?annotator=ann&agreement=0.7&since=2026-11-01&before=2026-12-01&until=12-3-4-56.
    folder
        The new folder.
    parquet
        Parquet instead of JSON Lines.
    """
    from fairlead.cli.words import show_result
    from fairlead.pipeline.feedback import export as write

    exported = write(store, folder, parquet=parquet)
    for kind, rows in exported.rows.items():
        print(f"{kind}: {rows} rows")
    print(f"the same rows again, whatever is labelled later: --data '{exported.address}'")
    verb = {"preferences": "reward", "judgements": "kto", "conversations": "sft", "prompts": "replies"}
    kind = next(kind for kind in verb if kind in exported.rows)
    show_result("Labels", folder, (verb[kind], "--data", folder / exported.files[kind]))


def backup(store: str, file: Path, /) -> None:
    """Copy one state of a store into a file of SQLite, while people go on labelling.

    Parameters
    ----------
    store
        A file of SQLite or postgresql://USER@HOST/DATABASE.
    file
        The new file.
    """
    from fairlead.feedback.copies import backup as copy
    from fairlead.feedback.store import open_store

    counts = copy(open_store(store), file)
    print(f"{sum(counts.values())} rows of {len(counts)} tables are in {file}")


def restore(file: Path, store: str, /) -> None:
    """Fill a new store from a backup; nothing is overwritten.

    Parameters
    ----------
    file
        What `fairlead feedback backup` wrote.
    store
        A new file, or the address of an empty PostgreSQL database.
    """
    from fairlead.feedback.copies import restore as fill

    counts = fill(file, store)
    print(f"{sum(counts.values())} rows of {len(counts)} tables are in {store}")


def invite(store: str, name: str, /, *, role: Literal["admin", "annotator", "viewer"] = "annotator") -> None:
    """Add an account with a password that is shown once and has to be changed.

    Parameters
    ----------
    store
        A file of SQLite or postgresql://USER@HOST/DATABASE.
    name
        Who it is.
    role
        admin: everything; annotator: chat and label; viewer: chat, and read what others said.
    """
    from secrets import token_urlsafe

    from fairlead.feedback.accounts import add_user
    from fairlead.feedback.store import open_store

    password = token_urlsafe(15)
    add_user(open_store(store, create=True), name, role, password, must_change=True)
    print(f"{name} ({role}), password: {password}")
