"""Listed words. Chinese is found anywhere in a text, other words and phrases as whole words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fairlead.config.filters import ToxicityConfig
from fairlead.data.filters.outcome import Dropped, Kept
from fairlead.data.filters.texts import main_texts
from fairlead.data.shingles import folded
from fairlead.data.views import whole_text
from fairlead.errors import ExitCode, UserError
from fairlead.records import Record

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_TOKEN = re.compile(r"\w+")
# Words that are also something harmless (a breed, a delay, a sand sculpture, a novel by Dostoevsky) are not among them
BUILT_IN = """
fuck\nfucker\nfuckers\nfucking\nfucked\nmotherfucker\nmotherfuckers\nshithead\nasshole\nassholes\ncunt\ncunts\nwhore
whores\nslut\nsluts\ndickhead\ncocksucker\nscumbag\ndumbass\nnigger\nniggers\nfaggot\nfaggots\nkike\nkikes\nwetback
kill yourself\npiece of shit\nson of a bitch
傻逼\n傻屄\n煞笔\n傻叉\n妈逼\n他妈的\n操你妈\n草你妈\n艹你妈\n日你妈\n干你娘\n狗娘养\n狗日的\n王八蛋\n王八羔子\n龟儿子
婊子\n贱人\n贱货\n骚货\n荡妇\n人渣\n脑残\n去死吧\n不得好死\n支那猪\n黑鬼\n死基佬\n死娘炮\n鸡巴
"""


@dataclass(frozen=True, slots=True)
class WordList:
    """Entries to find: pieces of Chinese by their length, and runs of whole words by how many words they are."""

    pieces: dict[int, frozenset[str]]
    runs: dict[int, frozenset[str]]

    def find(self, text: str) -> str | None:
        """An entry that the text holds, or None."""
        text = folded(text)
        for length, pieces in self.pieces.items():
            for start in range(len(text) - length + 1):
                if text[start : start + length] in pieces:
                    return text[start : start + length]
        tokens = _TOKEN.findall(text)
        for length, runs in self.runs.items():
            for start in range(len(tokens) - length + 1):
                if (run := " ".join(tokens[start : start + length])) in runs:
                    return run
        return None


def toxicity(record: Record, config: ToxicityConfig) -> Kept | Dropped:
    """Whether the texts hold no listed word."""
    words = word_list(config)
    texts = main_texts(record) if config.where == "answer" else (whole_text(record),)
    found = next((entry for entry in map(words.find, texts) if entry is not None), None)
    return Kept(record) if found is None else Dropped(f"holds the word {found!r}")


@lru_cache(maxsize=4)
def word_list(config: ToxicityConfig) -> WordList:
    """The entries of all lists. Raises UserError for a file that cannot be read or has no entry."""
    entries = BUILT_IN.split("\n") if config.built_in else []
    for file in config.files:
        entries += _entries(Path(file))
    return word_list_of(entries)


def word_list_of(entries: Iterable[str]) -> WordList:
    """Words, phrases and pieces of Chinese, ready to be found."""
    pieces, runs = dict[int, set[str]](), dict[int, set[str]]()
    for entry in map(folded, filter(None, map(str.strip, entries))):
        if _HAN.search(entry):
            pieces.setdefault(len(entry), set()).add(entry)
        elif tokens := _TOKEN.findall(entry):
            runs.setdefault(len(tokens), set()).add(" ".join(tokens))
    return WordList(_frozen(pieces.items()), _frozen(runs.items()))


def _frozen(items: Iterable[tuple[int, set[str]]]) -> dict[int, frozenset[str]]:
    return {length: frozenset(entries) for length, entries in items}


def _entries(path: Path) -> list[str]:
    fix = "check the path in filters.toxicity.files"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        what = f"the word list cannot be read ({error.strerror})"
        raise UserError(what, where=str(path), fix=fix, exit_code=ExitCode.MISSING_INPUT) from error
    except UnicodeDecodeError as error:
        what, fix = "the word list is not UTF-8", "save it as UTF-8"
        raise UserError(what, where=str(path), fix=fix, exit_code=ExitCode.BAD_DATA) from error
    entries = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    if not entries:
        what = "the word list has no word"
        raise UserError(what, where=str(path), fix="write one word a line", exit_code=ExitCode.BAD_DATA)
    return entries
