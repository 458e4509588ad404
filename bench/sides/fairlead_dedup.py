"""Near-duplicates by fairlead: normalising, shingling, hashing, bands and verified Jaccard similarity.

All sides of this work are measured in CPU seconds of all their threads: documents per second and core.
"""

import time

import documents
import numpy as np
from side import Turn

from fairlead.data.dedup import all_band_keys, near_duplicates

WIDTH, THRESHOLD = 5, 0.8


def main() -> None:
    """Find them until told to stop."""
    turn = Turn()
    turn.imported()
    texts = documents.read()
    turn.begin(packages={"numpy": np.__version__})
    while True:
        began = time.process_time()
        keys = all_band_keys(texts, width=WIDTH)
        found = near_duplicates(keys, lambda indices: [texts[i] for i in indices], threshold=THRESHOLD, width=WIDTH)
        turn.end(units=len(texts), duplicates=len(found), seconds=time.process_time() - began)


if __name__ == "__main__":
    main()
