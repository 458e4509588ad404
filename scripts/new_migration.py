"""A new step of the feedback store's tables: python scripts/new_migration.py WHAT_CHANGES

Compares the tables of the last step with `feedback/schema.py` and writes the difference to
`feedback/migrations/versions/`, to be read and put right by hand.
"""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

FOLDER = Path(__file__).parent.parent / "src" / "fairlead" / "feedback" / "migrations"


def main(message: str) -> None:
    """Build the store of the last step in a passing file, and write what this version has more."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    steps = len(list((FOLDER / "versions").glob("[0-9]*.py")))
    with tempfile.TemporaryDirectory() as folder, create_engine(f"sqlite:///{folder}/store").connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        made = command.revision(config, message, autogenerate=True, rev_id=f"{steps + 1:04}")
        print(made.path)  # pyrefly: ignore[missing-attribute]


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
