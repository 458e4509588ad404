"""A corpus far larger than the memory it may take goes through `fairlead data refine`.

    OMP_NUM_THREADS=1 python experiments/refine_in_bounded_memory.py --rows 150000 --row-bytes 20000 --limit-mib 300

Rows of random words (a twentieth of them copies of earlier ones) are written as JSON lines, then refined to Parquet in
a process whose private memory the kernel limits (RLIMIT_DATA: the heap and everything else that is not a file). Prints
the size of the corpus, the peak of the resident memory (files that are mapped count in it), seconds, and what came out.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fairlead.artifacts.manifest import read_manifest

WORDS = 5000


def write_corpus(path: Path, *, num_rows: int, row_bytes: int, seed: int) -> int:
    """One text per line; returns the bytes written."""
    chance = random.Random(seed)  # noqa: S311  any words will do
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(WORDS)]
    last = ""
    with path.open("w") as file:
        for number in range(num_rows):
            if number % 20 != 19:
                last = " ".join(chance.choices(words, k=row_bytes // 7)) + "."
            file.write(json.dumps({"text": last}) + "\n")
    return path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=150_000)
    parser.add_argument("--row-bytes", type=int, default=20_000)
    parser.add_argument("--limit-mib", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        size = write_corpus(corpus, num_rows=options.rows, row_bytes=options.row_bytes, seed=0)
        limit = options.limit_mib << 20
        command = [
            sys.executable, "-m", "fairlead", "data", "refine", "--data", str(corpus), "--output", f"{folder}/out",
            "--format", "parquet",
        ]  # fmt: skip
        began = time.monotonic()
        process = subprocess.Popen(command)
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        print(f"corpus {size / 2**20:.0f} MiB, limit {options.limit_mib} MiB, {size / limit:.1f} times the limit")
        print(f"exit code {os.waitstatus_to_exitcode(status)}, {seconds:.0f} s, peak {usage.ru_maxrss / 1024:.0f} MiB")
        facts = read_manifest(Path(folder) / "out" / "01-refine").facts
        print(f"rows in {options.rows}, rows out {facts['sizes']['rows']}")


if __name__ == "__main__":
    main()
