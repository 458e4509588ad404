"""Say so before pip downloads more than 1 GB: the registry's Linux build of torch carries CUDA, about 3 GB.

Asks pip what it would take (metadata only), asks no question, never fails the set-up. Run by make with make's pip
options as arguments.
"""

import json
import subprocess
import sys

ESTIMATED_GB = 3.0  # torch 2.13 with its CUDA 13 packages for Linux x86-64
SECONDS = 120
WARNING = f"""
  WARNING: pip will download the CUDA build of torch and its NVIDIA packages, about {ESTIMATED_GB:g} GB.
  On a machine without a GPU stop now (Ctrl-C) and give the CPU index named on PyTorch's install page:
      make {{target}} TORCH_INDEX=URL
  That is about 0.2 GB instead.
"""


def main() -> None:
    """Print the warning if pip's choice needs it."""
    target, *options = sys.argv[1:]
    asked = [
        "--dry-run",
        "--ignore-installed",
        "--quiet",
        "--quiet",
        "--report",
        "-",
        "--constraint",
        "constraints.txt",
    ]
    command = [sys.executable, "-m", "pip", "install", *asked, *options, "torch"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
        chosen = [item["metadata"]["name"] for item in json.loads(answer.stdout)["install"]]
    except (subprocess.SubprocessError, ValueError, KeyError):
        return  # the installation itself will say what is wrong
    if any(name.startswith(("nvidia-", "cuda-")) for name in chosen):
        print(WARNING.format(target=target), file=sys.stderr)


if __name__ == "__main__":
    main()
