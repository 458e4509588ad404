"""A rank that takes rows from a stream, notes them with what it has done so far, and can be killed at any time.

`stream_worker.py FOLDER NUM_STEPS`: rows come from FOLDER/rows, RANK and WORLD_SIZE say which are this rank's. After
every step its rows are appended to `rank-N.jsonl`; every few steps the cursor is saved with the size of that file, and
a new start cuts it there and goes on.
"""

import json
import os
import sys
import time
from pathlib import Path

from fairlead.artifacts.atomic import write_bytes
from fairlead.data.row_stream import RowStream

ROWS_PER_STEP, SAVE_EVERY = 7, 5


def run(folder: Path, num_steps: int) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    stream = RowStream([folder / "rows"], seed=3, window_rows=40)
    taken, saved = folder / f"rank-{rank}.jsonl", folder / f"cursor-{rank}.json"
    cursor = json.loads(saved.read_text()) if saved.exists() else {**stream.cursor(0, ROWS_PER_STEP), "size": 0}
    first = stream.step_at(cursor, ROWS_PER_STEP)
    with taken.open("ab") as file:
        file.truncate(cursor["size"])
        steps = stream.steps(ROWS_PER_STEP, first=first, rank=rank, world_size=world_size)
        for step in range(first, num_steps):
            file.write(json.dumps([step, *next(steps)], ensure_ascii=False).encode() + b"\n")
            file.flush()
            time.sleep(0.002)  # or there is no time to be killed in
            if (step + 1) % SAVE_EVERY == 0:
                cursor = stream.cursor(step + 1, ROWS_PER_STEP) | {"size": file.tell()}
                write_bytes(saved, json.dumps(cursor).encode())


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
