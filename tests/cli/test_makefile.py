"""`make setup` on a machine whose Python cannot make a virtual environment with pip in it."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
# What Debian's python3 does when python3-venv is missing: an environment without pip is left behind.
PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p .venv/bin; printf '#!/bin/sh\\nexit 1\\n' > .venv/bin/python; chmod +x .venv/bin/python
    echo asked >> asked; echo "ensurepip is not available"; exit 1;;
  *) echo 1;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def test_an_environment_without_pip_is_no_environment(tmp_path):
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    broken = tmp_path / ".venv" / "bin"  # left by an earlier attempt
    broken.mkdir(parents=True)
    (broken / "python").write_text("#!/bin/sh\necho 'No module named pip' >&2; exit 1\n")
    (broken / "python").chmod(0o755)
    command = ["make", "setup", f"PYTHON={python}"]
    for attempt in (1, 2):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode != 0
        assert len((tmp_path / "asked").read_text().splitlines()) == attempt
        assert not (tmp_path / ".venv").exists()
        lines = result.stderr.splitlines()
        assert lines[0] == f"error: {python} cannot make a virtual environment: ensurepip is not available"
        assert lines[1].startswith("fix: install its venv module (Debian, Ubuntu: apt install python3-venv)")
        assert "No module named pip" not in result.stderr + result.stdout
