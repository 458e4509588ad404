"""The documents of the work on near-duplicates, for both sides: about 500 characters, half English, half Chinese.

    python bench/documents.py        # writes bench/.cache/documents.jsonl

A tenth are copies of earlier ones with a few words or characters replaced. Words and characters follow Zipf's law, so
that shingles repeat as they do in text.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PATH = Path(__file__).parent / ".cache" / "documents.jsonl"
COUNT = 20_000
LENGTH = 500  # characters
COPIES = 0.1


def documents(count: int, seed: int = 0) -> Iterator[str]:
    """So many documents."""
    rng = np.random.default_rng(seed)
    words = ["".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(2, 11))) for _ in range(20_000)]
    characters = [chr(0x4E00 + c) for c in rng.permutation(6000)]
    recent: list[tuple[list[str], str]] = []
    for number in range(count):
        chinese = number % 2 == 1
        if recent and rng.random() < COPIES:
            tokens, joint = recent[rng.integers(len(recent))]
            tokens = list(tokens)
            for place in rng.integers(0, len(tokens), 1 + len(tokens) // 60):
                tokens[place] = words[rng.integers(len(words))] if joint else characters[rng.integers(len(characters))]
        elif chinese:
            tokens, joint = [characters[i] for i in _zipf(rng, LENGTH, len(characters))], ""
        else:
            tokens, joint = [words[i] for i in _zipf(rng, LENGTH // 7, len(words))], " "
        recent = [*recent[-200:], (tokens, joint)]
        yield joint.join(tokens)


def _zipf(rng: np.random.Generator, count: int, kinds: int) -> list[int]:
    """Ranks with a probability that falls as 1 / rank."""
    return np.minimum(np.exp(rng.random(count) * np.log(kinds)).astype(int), kinds - 1).tolist()


def read() -> list[str]:
    """What `main` wrote."""
    return [json.loads(line)["text"] for line in PATH.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Write them."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with PATH.open("w", encoding="utf-8") as file:
        for text in documents(COUNT):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
