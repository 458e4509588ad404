"""Near-duplicates by datatrove on one core: its four MinHash steps with the same bands, called one after the other.

Needs nothing of fairlead. Words of English and characters of Chinese are shingled five at a time, as fairlead does,
instead of datatrove's spaCy tokens; its executors, which start processes, are left out, and its files go to the
temporary folder. What shares a band is a duplicate to it: nothing is verified, and likeness travels along chains. Its
default of folding digits is off.
"""

import tempfile
import time
from pathlib import Path

import documents
from datatrove.data import Document
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)  # fmt: skip
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer
from loguru import logger
from side import Turn

WIDTH, BANDS, ROWS = 5, 20, 5


class Tokens(WordTokenizer):
    """Words where there are spaces, else characters."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split() if " " in text else list(text)

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


def main() -> None:
    """Find them until told to stop."""
    from importlib.metadata import version

    logger.disable("datatrove")
    turn = Turn()
    turn.imported()
    texts = documents.read()
    turn.begin(packages={"datatrove": version("datatrove")})
    while True:
        began = time.process_time()
        found = duplicates(texts)
        turn.end(units=len(texts), duplicates=found, seconds=time.process_time() - began)


def duplicates(texts: list[str]) -> int:
    """How many texts it would remove."""
    config = MinhashConfig(WIDTH, BANDS, ROWS, norm_config=TextNormConfig(norm_numbers=False))
    with tempfile.TemporaryDirectory() as name:
        signatures, pairs, clusters = (str(Path(name, part)) for part in ("signatures", "pairs", "clusters"))
        MinhashDedupSignature(signatures, config, language=Tokens())(stream(texts))
        for band in range(BANDS):
            MinhashDedupBuckets(signatures, pairs, config=config)(None, band, BANDS)
        MinhashDedupCluster(pairs, clusters, config)()
        kept = sum(1 for _ in MinhashDedupFilter(clusters)(stream(texts)))
    return len(texts) - kept


def stream(texts: list[str]):
    """The texts as datatrove's readers give them."""
    return (Document(text=text, id=str(number)) for number, text in enumerate(texts))


if __name__ == "__main__":
    main()
