"""What experiments/fuzz_readers.py fuzzes: every reader, the inputs it begins with, and how those are changed.

An input passes where rows, rejections or a UserError come of it, and where every record and every reason can be written
as JSON. Everything else is a finding: any other exception, a signal, a hang, memory without bound.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import orjson

from experiments import fuzz_seeds as seeds
from fairlead.data.benchmark_items import read_benchmarks
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.encodings import ENCODINGS
from fairlead.data.html_text import html_text
from fairlead.data.load import read_records
from fairlead.data.rows import to_row
from fairlead.data.sources import expand, read_rows
from fairlead.errors import UserError
from fairlead.records import Message, Rejection

Mutation = Callable[[bytes, Random, Sequence[bytes], Sequence[bytes]], bytes]

MAX_BYTES = 64 << 10  # of one input
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


# --- mutations


def mutate_bytes(data: bytes, rng: Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A few small changes: bits, bytes, numbers, blocks, words of the format, another input from there on, an end."""
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((1, 2, 4, 16, 64, 256)))
        before, block, after = data[:start], data[start:end], data[end:]
        match rng.randrange(9):
            case 0:
                data = before + bytes(byte ^ 1 << rng.randrange(8) for byte in block[:1]) + block[1:] + after
            case 1:
                data = before + rng.randbytes(len(block)) + after
            case 2:
                data = before + after
            case 3:
                data = before + block * _often_few(rng, 2000) + after
            case 4:
                place = rng.randint(0, len(after))
                data = before + after[:place] + block + after[place:]
            case 5:
                size = rng.choice((1, 2, 4, 8))
                number = (rng.choice(EXTREMES) & (1 << 8 * size) - 1).to_bytes(size, rng.choice(("little", "big")))
                data = before + number + data[start + size :]
            case 6:
                other = rng.choice(others)
                data = before + other[rng.randint(0, len(other)) :]
            case 7 if rng.random() < 0.2:
                data = before
            case _:
                data = before + rng.choice(words) * _often_few(rng, 100) + block + after
    return data[:MAX_BYTES]


def _often_few(rng: Random, many: int) -> int:
    """How many times something is repeated: large inputs take long, and few of them are enough."""
    return many if rng.random() < 0.01 else rng.choice((1, 1, 1, 2, 3, 8))


def mutate_rows(data: bytes, rng: Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """JSON lines with one value changed: gone, of another type, from another row, under another key, or nested."""
    try:
        rows = [orjson.loads(line) for line in data.splitlines() if line]
        donor = orjson.loads(rng.choice(others).splitlines()[0])
        at = rng.randrange(len(rows))
        rows[at] = _changed(rows[at], rng, donor, words)
        return "\n".join(map(json.dumps, rows)).encode()[:MAX_BYTES]
    except (ValueError, IndexError, RecursionError):
        return mutate_bytes(data, rng, others, words)


def _changed(value: Any, rng: Random, donor: Any, words: Sequence[bytes]) -> Any:
    if isinstance(value, dict | list) and value and rng.random() < 0.75:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        changed: Any = value.copy()
        match rng.randrange(4):
            case 0 if isinstance(changed, dict):
                changed[rng.choice(words).decode()] = changed[key] if rng.random() < 0.5 else changed.pop(key)
            case 1 if isinstance(changed, list):
                changed[key:key] = [changed[key]] * rng.choice((1, 2, 50))
            case 2 if rng.random() < 0.3:
                del changed[key]
            case _:
                changed[key] = _changed(changed[key], rng, donor, words)
        return changed
    if isinstance(donor, dict | list) and donor and rng.random() < 0.5:
        part = rng.choice(list(donor.values()) if isinstance(donor, dict) else donor)
        return _changed(value, rng, part, words) if rng.random() < 0.5 else part
    if isinstance(value, str) and rng.random() < 0.5:
        at = rng.randint(0, len(value))
        return value[:at] + rng.choice(words).decode() + value[at + rng.randint(0, 8) :]
    return rng.choice((*ATOMS, [value], {"role": "user", "content": value}, rng.choice(words).decode()))


ATOMS = (
    None, True, False, 0, -1, 1, 1e300, 0.5, 2**63, -(2**63), "", " ", "\0", "0", "true", "nan", "inf", "1_0", "１",
    "²", "\ud7ff", "\ue0000\ue001", [], {}, [[]], [None], [{}], {"": None}, [["a", "b"]], ["a", "b"],
)  # fmt: skip


# --- what is done with an input


def _as_written(outcome: Any) -> bytes:
    return orjson.dumps(asdict(outcome) if isinstance(outcome, Rejection) else to_row(outcome))


def _read_all(path: Path) -> None:
    with suppress(UserError):
        for _ in read_rows(path):
            pass
    with suppress(UserError):
        for outcome in read_records(path):
            _as_written(outcome)


def file_named(name: str) -> Callable[[bytes, Path], None]:
    """Read the input as a file of that name."""

    def read(data: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(data)
        _read_all(path)

    return read


def read_archive(data: bytes, folder: Path) -> None:
    """Read the members of a zip archive."""
    path = folder / "rows.zip"
    path.write_bytes(data)
    with suppress(UserError):
        for member in islice(expand([path], texts=True), 8):
            _read_all(member)
    _read_all(path)


def read_encoded(data: bytes, folder: Path) -> None:
    """The first byte says in which format, the second in which encoding, if in any, the rest is written."""
    suffix = (".jsonl", ".json", ".csv", ".txt", ".xml")[data[0] % 5 if data else 0]
    encoding = (None, *ENCODINGS)[data[1] % (len(ENCODINGS) + 1) if data[1:] else 0]
    path = folder / f"rows{suffix}"
    path.write_bytes(data[2:])
    with suppress(UserError):
        for _ in read_rows(path, encoding=encoding):
            pass
    with suppress(UserError):
        for outcome in read_records(path, encoding=encoding):
            _as_written(outcome)


def read_page(data: bytes, folder: Path) -> None:  # noqa: ARG001  no file is needed
    """The text of a page."""
    html_text(data.decode(errors="replace")).encode()


def read_questions(data: bytes, folder: Path) -> None:
    """The first byte says in which format the questions are."""
    path = folder / ("items.jsonl", "items.json", "items.csv", "items.tsv")[data[0] % 4 if data else 0]
    path.write_bytes(data[1:])
    with suppress(UserError):
        for item in read_benchmarks([path]):
            orjson.dumps(asdict(item))


DIALOGUE = (
    Message("system", "Be kind."), Message("user", " Hello\n"), Message("assistant", "你好 <|im_end|>"),
    Message("user", "Bye"), Message("assistant", "Bye."),
)  # fmt: skip


@cache
def _tokenizer() -> Any:
    from tiny import tiny_tokenizer  # noqa: PLC0415  transformers loads for seconds, and one reader needs it

    return tiny_tokenizer()


def read_template(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """Take the input for a model's chat template, and write dialogues with it."""
    tokenizer = _tokenizer()
    # JSON may hold half a surrogate pair, and so may a template that comes from it
    tokenizer.chat_template = data.decode(errors="replace").replace("\ufffd\ufffd\ufffd", "\ud800")
    with suppress(UserError):
        template = ChatTemplate(tokenizer)
        for messages in (DIALOGUE, DIALOGUE[1:3]):
            with suppress(UserError):
                template.encode(messages)
                template.encode_response(messages[:-1], messages[-1].content, end_token=True)


@dataclass(frozen=True, slots=True)
class Target:
    """One reader. `read` takes an input and a folder of its own, and raises what is a finding."""

    read: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    mutate: Mutation = mutate_bytes
    shared: str = ""  # suffix of files whose beginnings are further seeds


TARGETS = {
    "json": Target(file_named("rows.json"), seeds.JSON, seeds.JSON_WORDS, shared=".json"),
    "jsonl": Target(file_named("rows.jsonl"), seeds.JSONL, seeds.JSON_WORDS, shared=".jsonl"),
    "rows": Target(file_named("rows.jsonl"), seeds.ROWS, seeds.ROW_WORDS, mutate_rows, shared=".jsonl"),
    "csv": Target(file_named("rows.csv"), seeds.CSV, seeds.CSV_WORDS, shared=".csv"),
    "tsv": Target(file_named("rows.tsv"), seeds.TSV, seeds.CSV_WORDS),
    "xml": Target(file_named("rows.xml"), seeds.XML, seeds.XML_WORDS, shared=".xml"),
    "txt": Target(file_named("rows.txt"), seeds.TXT, seeds.TXT_WORDS, shared=".txt"),
    "encodings": Target(read_encoded, tuple(seeds.encoded()), seeds.ENCODING_WORDS),
    "html": Target(read_page, seeds.PAGES, seeds.HTML_WORDS),
    "warc": Target(file_named("rows.warc"), seeds.WARC, seeds.WARC_WORDS),
    "gz": Target(file_named("rows.jsonl.gz"), seeds.GZ, seeds.PACKED_WORDS),
    "zst": Target(file_named("rows.jsonl.zst"), seeds.ZST, seeds.PACKED_WORDS),
    "xz": Target(file_named("rows.jsonl.xz"), seeds.XZ, seeds.PACKED_WORDS),
    "zip": Target(read_archive, seeds.ZIP, seeds.ZIP_WORDS),
    "parquet": Target(file_named("rows.parquet"), seeds.PARQUET, seeds.ARROW_WORDS),
    "arrow": Target(file_named("rows.arrow"), seeds.ARROW, seeds.ARROW_WORDS),
    "benchmarks": Target(read_questions, seeds.BENCHMARKS, seeds.BENCHMARK_WORDS),
    "template": Target(read_template, seeds.CHATS, seeds.CHAT_WORDS),
}


# --- inputs


def mutated(target: Target, seeds: Sequence[bytes], rng: Random, count: int) -> Iterator[bytes]:
    """The seeds, then changed ones, each from a seed or from one that came before."""
    yield from seeds
    pool = list(seeds)
    for number in range(count):
        data = target.mutate(rng.choice(pool), rng, seeds, target.words)
        if number % 4 == 0:
            pool.append(data)
        yield data


def shared_pieces(target: Target, folder: Path, *, num_bytes: int = 4096, count: int = 40) -> tuple[bytes, ...]:
    """Beginnings of real files of the reader's format below a folder, up to a line end; none without a folder."""
    if not target.shared:
        return ()
    paths = sorted(path for path in folder.rglob(f"*{target.shared}") if "LICENSE" not in path.name)
    pieces = []
    for path in paths[:: max(1, len(paths) // count)]:
        with path.open("rb") as file:
            head = file.read(num_bytes)
        pieces.append(head[: head.rfind(b"\n") + 1] or head)
    return tuple(pieces)
