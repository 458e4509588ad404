"""What near-duplicates cost against the number of documents: CPU time of each part and peak memory, one core.

    python bench/dedup_scale.py      # writes bench/results/DATE-dedup-scale.json and docs/dedup.svg

Documents of `bench/documents.py` are written to shards as `fairlead data refine` has them, then compared from there,
each count in a process of its own. `elapsed_seconds` tells how much else the machine did. Wanted: a million in 2 GB.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import documents
from compare import BENCH, environment
from matplotlib.figure import Figure
from side import peak_bytes, resident_bytes

from fairlead.data.dedup import all_band_keys, near_duplicates
from fairlead.data.refine.shards import Reader, write_shards
from fairlead.data.views import whole_text
from fairlead.records import Document

COUNTS = (62_500, 125_000, 250_000, 500_000, 1_000_000)
WIDTH, THRESHOLD = 5, 0.8
WANTED_BYTES = 2e9
PICTURE = BENCH.parent / "docs" / "dedup.svg"


def main() -> None:
    """Measure every count, write, draw."""
    if len(sys.argv) > 1:
        print(json.dumps(measured(int(sys.argv[1]))))
        return
    rows = []
    for count in COUNTS:
        argv = [sys.executable, __file__, str(count)]
        alone = {**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        out = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, env=alone).stdout
        rows.append(json.loads(out))
        print(rows[-1], flush=True)
    result = {"work": "dedup-scale", "rows": rows, "wanted_bytes": WANTED_BYTES, "environment": environment()}
    path = BENCH / "results" / f"{result['environment']['date']}-dedup-scale.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    draw(rows)


def measured(count: int) -> dict[str, Any]:
    """Seconds and memory for so many documents."""
    imported = resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        made = (Document(text, f"made:{number}") for number, text in enumerate(documents.documents(count)))
        shards = write_shards(Path(folder), [("made", lambda: made)], {}, shard_rows=20_000)
        reader = Reader(shards)
        began, *worked = time.perf_counter(), time.process_time()
        keys = all_band_keys((whole_text(record) for shard in shards for record in shard.records()), width=WIDTH)
        worked.append(time.process_time())
        found = near_duplicates(
            keys, lambda indices: [whole_text(record) for record in reader.records(indices)],
            threshold=THRESHOLD, width=WIDTH,
        )  # fmt: skip
        worked.append(time.process_time())
        ended = time.perf_counter()
    seconds = {"sketch_seconds": worked[1] - worked[0], "compare_seconds": worked[2] - worked[1]}
    return seconds | {
        "elapsed_seconds": ended - began, "documents": count, "documents_per_second": count / (worked[2] - worked[0]),
        "duplicates": len(found), "peak_bytes": peak_bytes() - imported,
    }  # fmt: skip


def draw(rows: list[dict[str, Any]]) -> None:
    """Time beside what linear cost would be, and memory, against documents."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = [row["documents"] / 1000 for row in rows]
    both = [row["sketch_seconds"] + row["compare_seconds"] for row in rows]
    left.plot(counts, both, "o-", label="together")
    left.plot(counts, [row["sketch_seconds"] for row in rows], "o-", label="reading and sketching")
    left.plot(counts, [row["compare_seconds"] for row in rows], "o-", label="comparing")
    left.plot(counts, [both[0] / counts[0] * count for count in counts], "--", color="#888888", label="linear")
    left.set(ylabel="CPU seconds, one core", ylim=(0, None))
    right.plot(counts, [row["peak_bytes"] / 1e9 for row in rows], "o-", label="measured")
    right.axhline(WANTED_BYTES / 1e9, color="#cc3311", linewidth=1, label="allowed for a million")
    right.set(ylabel="peak memory, GB", ylim=(0, 2.2))
    for axes in (left, right):
        axes.set(xlabel="thousand documents", xlim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
