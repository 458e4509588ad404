"""Write constraints.txt: one version for each package that fairlead, its extras and its tools can pull in.

Run by `make lock`; nothing is installed. One file serves Python 3.11, 3.12 and 3.13: `make resolve` shows that it does.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """# Locked versions for Python 3.11, 3.12 and 3.13. Written by `make lock`; used by `make` and `pip install -c`.
# torch: where pip is set up with a CPU build it is taken; elsewhere on Linux the registry's build is CUDA's (3 GB).
"""
UNLOCKED = {"fairlead", "setuptools"}  # torch bounds setuptools itself, by Python version


def main() -> None:
    """Resolve everything anew and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        command = [sys.executable, "-m", "pip", "install", *options, ".[dev,tensorboard,trackio,wandb]"]
        subprocess.run(command, check=True)
        found = {
            item["metadata"]["name"]: item["metadata"]["version"].partition("+")[0]
            for item in json.loads(report.read_text())["install"]
        }
    names = sorted((name for name in found if name not in UNLOCKED), key=lambda name: (name != "torch", name.lower()))
    Path("constraints.txt").write_text(HEAD + "".join(f"{name}=={found[name]}\n" for name in names))


if __name__ == "__main__":
    main()
