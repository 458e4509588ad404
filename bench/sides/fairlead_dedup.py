"""Near-duplicates by fairlead on one core: normalising, shingling, hashing, bands and verified Jaccard similarity."""

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
        keys = all_band_keys(texts, width=WIDTH)
        found = near_duplicates(keys, lambda indices: [texts[i] for i in indices], threshold=THRESHOLD, width=WIDTH)
        turn.end(units=len(texts), duplicates=len(found))


if __name__ == "__main__":
    main()
