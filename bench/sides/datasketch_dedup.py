"""Near-duplicates by datasketch on one core: its MinHash and LSH with the same bands, shingles by plain Python.

Needs nothing of fairlead. Words of English and characters of Chinese are shingled five at a time, as fairlead does;
each candidate is verified by its true Jaccard similarity; the first of its kind is kept.
"""

import time
import unicodedata

import datasketch
import documents
from datasketch import MinHash, MinHashLSH
from side import Turn

WIDTH, THRESHOLD, BANDS, ROWS = 5, 0.8, 20, 5


def main() -> None:
    """Find them until told to stop."""
    turn = Turn()
    turn.imported()
    texts = documents.read()
    turn.begin(packages={"datasketch": datasketch.__version__})
    while True:
        began = time.process_time()
        found = duplicates(texts)
        turn.end(units=len(texts), duplicates=found, seconds=time.process_time() - began)


def duplicates(texts: list[str]) -> int:
    """How many texts are like an earlier kept one."""
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    kept: dict[int, set[str]] = {}
    sets = [shingles(text) for text in texts]
    sketches = MinHash.bulk([[one.encode() for one in own] for own in sets], num_perm=BANDS * ROWS)
    found = 0
    for number, (own, sketch) in enumerate(zip(sets, sketches, strict=True)):
        if any(len(own & kept[other]) >= THRESHOLD * len(own | kept[other]) for other in index.query(sketch)):
            found += 1
            continue
        index.insert(number, sketch)
        kept[number] = own
    return found


def shingles(text: str) -> set[str]:
    """Five words, or five characters, at a time."""
    text = unicodedata.normalize("NFKC", text).casefold()
    tokens = text.split() if " " in text else list(text)
    return {" ".join(tokens[i : i + WIDTH]) for i in range(max(len(tokens) - WIDTH + 1, 1))}


if __name__ == "__main__":
    main()
