"""Show that constraints.txt resolves to wheels alone for other versions of Python. Nothing is installed.

pip reads metadata only, so the CUDA build of torch, which registries offer for Linux, is named but not downloaded.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path


def main() -> None:
    """Resolve for each version given; exit 1 when one fails."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    failed = [version for version in sys.argv[1:] if not resolves(version, wanted)]
    sys.exit(f"no resolution for Python {', '.join(failed)}" if failed else 0)


def resolves(version: str, wanted: list[str]) -> bool:
    """Ask pip for one version of Python and print what it found."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--dry-run", "--ignore-installed", "--quiet", "--quiet", "--report", str(report)]
        options += ["--python-version", version, "--only-binary=:all:", "--target", str(Path(folder) / "target")]
        command = [sys.executable, "-m", "pip", "install", *options, "--constraint", "constraints.txt", *wanted]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"Python {version}: FAILED\n{result.stderr}")
            return False
        found = {
            item["metadata"]["name"]: item["metadata"]["version"] for item in json.loads(report.read_text())["install"]
        }
        locked = {line.partition("==")[0] for line in Path("constraints.txt").read_text().splitlines() if "==" in line}
        gpu = [name for name in found if name.startswith(("nvidia-", "cuda-", "triton"))]
        loose = sorted(set(found) - locked - set(gpu))
        print(
            f"Python {version}: {len(found) - len(gpu)} packages, torch {found['torch']}, not locked: {loose or 'none'}"
        )
        return True


if __name__ == "__main__":
    main()
