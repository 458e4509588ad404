"""What experiments/fuzz_readers.py fuzzes: every reader, the inputs it begins with, and how those are changed.

An input passes where rows, rejections or a UserError come of it, and where every record and every reason can be written
as JSON. Everything else is a finding: any other exception, a signal, a hang, memory without bound.
"""

import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

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
                data = before + block * rng.choice((2, 3, 50, 2000)) + after
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
                data = before + rng.choice(words) * rng.choice((1, 1, 1, 2, 30)) + block + after
    return data[:MAX_BYTES]


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
    None, True, False, 0, -1, 1, 1e300, 0.5, 2**63, -(2**63), "", " ", "\0", "0", "true", "nan", "inf", "1_0", "１", "²",
    "\ud7ff", "\ue0000\ue001", [], {}, [[]], [None], [{}], {"": None}, [["a", "b"]], ["a", "b"],
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
    tokenizer.chat_template = data.decode(errors="replace")
    with suppress(UserError):
        template = ChatTemplate(tokenizer)
        for messages in (DIALOGUE, DIALOGUE[1:3]):
            with suppress(UserError):
                template.encode(messages)
                template.encode_response(messages[:-1], messages[-1].content, end_token=True)


# --- seeds

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
HUMAN = "\n\nHuman: q\n\nAssistant: a"
REPLIES = [{"role": "assistant", "text": text, "rank": rank} for rank, text in enumerate(("a", "b"))]
POST = {"Id": "1", "PostTypeId": "1", "Title": "t", "Body": "<p>q</p>", "AcceptedAnswerId": "2"}
ANSWERS = [{"Id": f"{i}", "PostTypeId": "2", "ParentId": "1", "Score": f"{i}", "Body": f"<p>{i}</p>"} for i in (2, 3)]
LAYOUT_ROWS: tuple[list[dict[str, Any]], ...] = (
    [{"messages": TURNS, "label": True}, {"prompt": "q", "completion": "a", "kto_tag": "false"}],
    [{"prompt": "q", "responses": ["a", "b"], "desirable": [True, False]}],
    [{"prompt": {"role": "prompter", "text": "q", "replies": REPLIES}}],
    [{"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "b"}], "score_chosen": 2}],
    [
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": TURNS[1],
            "rejected": {"from": "gpt", "value": "b"},
        }
    ],
    [{"prompt": HUMAN, "response": "a", "chosen": "a", "rejected": "b"}],
    [{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 0}],
    [{"chosen": HUMAN, "rejected": f"{HUMAN}b"}],
    [{"prompt": TURNS[:1], "responses": ["a", "b"], "scores": [1, "0.5"]}],
    [{"prompt": "q", "ranked": ["a", "b"], "system": "s"}],
    [{"prompt": "q", "response": "a", "helpfulness": 3}, {"prompt": "q", "response": "a", "score": "4"}],
    [{"question": "q", "response_j": "a", "response_k": "b"}],
    [POST, *ANSWERS],
    [{"meta_instruction": "s", "chat": {"turn_1": {"Human": "<|Human|>: q<eoh>", "Commands": "None", "MOSS": "a"}}}],
    [{"prefix": "s", "plain_text": "[Human]: q<eoh> [MOSS]: a<eoa>"}],
    [{"conversation": [{"human": "q", "assistant": "a"}]}],
    [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": [{"type": "text", "text": "a"}]}]}],
    [{"messages": TURNS, "system": "s", "tools": []}],
    [{"instruction": "q", "output": ["a", "b"]}],
    [{"instruction": "Human:q\nAssistant:a\nHuman:r\nAssistant:", "output": "b"}],
    [{"instruction": "q", "input": "i", "output": "a", "history": [["q", "a"]], "system": "s"}],
    [{"instruction": "q", "instances": [{"input": "i", "output": "a"}]}],
    [{"instruction": "q", "context": "c", "response": "a"}],
    [{"kind": "k", "input": "q", "target": "a"}],
    [{"prompt": "q", "completion": " a<|endoftext|>"}],
    [{"question": "q", "answer": "a"}],
    [{"prompt": "q", "answer": "a"}, {"user_prompt": "q"}],
    [{"title": "t", "author": "b", "paragraphs": ["a"], "content": [{"chapter": "c", "paragraphs": ["b"]}]}],
    [{"text": "a"}, {"url": "u", "not_a_page": "status 404"}],
)
"""One or more rows of every layout, in the order of `fairlead.data.layouts.LAYOUTS`."""
QUESTIONS = [{"passage": "p", "Question": "q", "options": ["a"]}, {"turns": ["q", "r"]}, {"examples": [{"input": "q"}]}]
TABLE = pa.table(
    {
        "instruction": ["q", "问"], "output": ["a", None], "n": [1, None], "f": [0.5, -1.0], "b": [True, None],
        "d": [date(2020, 1, 1), None], "t": [datetime(2020, 1, 1, 12), None], "m": [Decimal("1.5"), None],
        "raw": [b"\xff", b""], "turns": [[{"role": "user", "content": "q"}], []], "none": pa.nulls(2),
        "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        "word": pa.array(["x", "x"]).dictionary_encode(), "time": pa.array([1, 2], pa.timestamp("us", tz="UTC")),
    }
)  # fmt: skip
TEXTS = pa.table({"instruction": ["q", "问"] * 20, "output": ["a", "b"] * 20})


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _arrow(table: pa.Table, new: Callable[..., Any], compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def _zip(members: dict[str, bytes], compression: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return sink.getvalue()


def _record(kind: bytes, block: bytes) -> bytes:
    head = b"WARC/1.0\r\nWARC-Type: %s\r\nWARC-Target-URI: http://a.b/\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(block)) + block + b"\r\n\r\n"


def _response(headers: bytes, body: bytes) -> bytes:
    return _record(b"response", b"HTTP/1.1 200 OK\r\nContent-Type: text/html" + headers + b"\r\n\r\n" + body)


ALL_ROWS = tuple(map(_lines, LAYOUT_ROWS))
MIXED = b"\n".join(ALL_ROWS[16:22])
PAGE = (
    b"<!DOCTYPE html><html><head><meta charset='utf-8'><title>t</title><style>p{}</style><script>if (a<b) {}</script>"
    b'</head><body><!-- c --><h1 class="x">h&amp;&#228;&#xe4;</h1><ul><li>a<li>b</ul><pre>x\n <b>y</b></pre><code>z'
    b"</code><table><tr><td>1<th>2</table><svg/><svg>s</svg><noscript>n</noscript><br/>end</body></html>"
)
CSV = 'instruction,output,"in ""put"""\nq,"a, b",\r\n\n你,"line\nbreak",=x\n'
XML = (
    '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n<row Id="1" PostTypeId="1" Title="t&#xA;" Body="&lt;p&gt;q" />\n'
    '<row Id="2" PostTypeId="2" ParentId="1" Score="3" Body="a"/><row><text>x<b>y</b></text><text>z</text></row>'
    "<!-- c --><row><text><![CDATA[<a>]]></text></row></posts>"
)
TEXT = b"one\ntwo\n\n" + b"long " * 60 + b"\n<|endoftext|>\nthree\r\n\r\nfour<|endoftext|>"
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT_2 = (
    "{%- set ns = namespace(last=messages|length - 1) %}{%- if messages[0].role == 'system' %}{% set loop_messages = "
    "messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}{% if (m['role'] =="
    " 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}{% endif %}{{- m.content.strip() | trim }}{% "
    "generation %}{{ strftime_now('%Y') }}{% endgeneration %}{% if loop.last and tools is defined %}{{ tools | tojson(indent"
    "=2) }}{% endif %}{% endfor %}{% macro f(x) %}{{ x ~ eos_token }}{% endmacro %}{{ f(1) if not none else messages }}"
)
KEYS = (
    "messages conversations conversation role content from value system user assistant human gpt label kto_tag weight "
    "completion prompt responses desirable text replies rank deleted chosen rejected score_chosen score_rejected response "
    "scores ranked score helpfulness question response_j response_k Id PostTypeId Title Body ParentId Score "
    "AcceptedAnswerId chat turn_1 turn_2 Human Commands MOSS plain_text prefix instruction output input history tools "
    "instances context target kind answer user_prompt title author paragraphs abstract url not_a_page type "
    "tool_calls chosen_messages rejected_messages meta_instruction turns query problem passage"
).split()


def _words(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split())


JSON_WORDS = (
    *_words('" { } [ ] , : null true 1e999 -0 NaN \\ud800 \\" \\\\ {"a":1,"a":2} [[[[ ":'),
    b"\n",
    b"\0",
    b"\xff",
)
CSV_WORDS = (*_words('" "" , \t \\ =1'), b"\n", b"\r", b"\r\n", b'",', b'"\n', b"\0", b"\xff", b"\xed\xb3\xbf")
XML_WORDS = _words(
    "<row> </row> <row/> <a> </a> <![CDATA[ ]]> <!-- --> <?xml?> &lt; &#0; &#x10FFFF; & xmlns:a='b' a='1' \xff "
    "<!DOCTYPE> <!ENTITY> </posts> <posts> PostTypeId='1' Id='1' ParentId='1' Score='-1' AcceptedAnswerId='3'"
)
HTML_WORDS = _words(
    "<p> </p> <pre> </pre> <code> <script> </script> <style> </style> <svg> <svg/> </svg> <br> <li> <td> <!-- --> <! <? "
    "< > / \" ' = &amp; &#0; &#99999999999999999999 &#xd800; &# &notit; <a <a/ </ <title> \x00 \ufeff"
) + (b" ", b"\n", b"&#" + b"9" * 4400, b"a" * 4000, b"<" + b"a" * 4000)
WARC_WORDS = _words(
    "WARC/1.0 WARC-Type: response conversion Content-Length: Content-Type: text/html; charset= charset*=utf-8''a%00 "
    "utf-7 unicode-escape utf-16 punycode hex idna gb18030 Transfer-Encoding: chunked Content-Encoding: gzip deflate br "
    'HTTP/1.1 200 ffffffff a*1= a*0*= \x00 ; " 99999999999999999999'
) + (b"\r\n", b"\r\n\r\n", b"<meta charset=", b"+2AA-", b"\\ud800", b"a*" + b"9" * 4400 + b"=", b": ")
JINJA_WORDS = _words(
    "{{ }} {% %} {%- -%} {# #} if else elif endif for in endfor set endset macro endmacro messages messages[0] message "
    ".content ['role'] |tojson |trim |length |join |replace |list |format |indent |map |sort |batch |slice |safe "
    "raise_exception() strftime_now() strftime_now(1) namespace() range(99999) loop.index0 loop.previtem cycler() is "
    "defined not and or ~ + - * ** // % ( ) [ ] [::-1] [::0] .strip() .split() .items() .pop() .format() generation "
    "endgeneration recursive call include import extends block autoescape eos_token none true 9223372036854775807 -1 1e308"
) + (b" ", b"\n", b"'", b"{% raw %}", b"+1" * 2000, b"(" * 200, b"{% if 1 %}" * 200)
ZIP_WORDS = (
    b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"../", b"./", b"//", b".jsonl", b".zip/", b"\0", b"\xff\xff\xff\xff",
    b"\x63\0", b"\0\x08",
)  # fmt: skip
PACKED_WORDS = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"YZ", b"\0\0", b"\xff\xff", b"\x50\x2a\x4d\x18")
ARROW_WORDS = (b"ARROW1", b"PAR1", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x10\0\0\0", b"\x15\0", b"\x19\x0c", b"\x26\xff")
ROW_WORDS = (
    *(key.encode() for key in KEYS),
    b"\n\nHuman: ", b"\n\nAssistant:", b"Human:", b"\nAssistant:", b"[Human]:", b"[MOSS]:", b"<eoh>", b"turn_99", b"turn_",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """One reader. `read` takes an input and a folder of its own, and raises what is a finding."""

    read: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    mutate: Mutation = mutate_bytes
    shared: str = ""  # suffix of files whose beginnings are further seeds


def _encoded_seeds() -> Iterator[bytes]:
    texts = (
        MIXED.decode() + "\n" + '{"text": "这是中文，我们说的一"}',
        f"[{ALL_ROWS[20].decode()}]",
        CSV + "這是我們,的,一\n",
    )
    names = (None, *ENCODINGS)
    for form, text in enumerate((*texts, TEXT.decode() + "\n你好", XML)):
        for number, name in enumerate(names):
            encoded = text.encode(name or "utf-8", errors="replace")
            yield bytes([form, number]) + encoded
        for name in ("gb18030", "big5", "utf-16", "utf-32", "utf-16-le"):
            yield bytes([form, 0]) + text.encode(name, errors="replace")


TARGETS = {
    "json": Target(
        file_named("rows.json"),
        tuple(b"[" + rows.replace(b"\n", b",") + b"]" for rows in ALL_ROWS) + (MIXED, ALL_ROWS[0]),
        JSON_WORDS, shared=".json",
    ),
    "jsonl": Target(file_named("rows.jsonl"), (MIXED, *ALL_ROWS, b"[" + ALL_ROWS[5] + b"]"), JSON_WORDS, shared=".jsonl"),
    "csv": Target(file_named("rows.csv"), (CSV.encode(), b"\xef\xbb\xbftext\na\n"), CSV_WORDS, shared=".csv"),
    "tsv": Target(file_named("rows.tsv"), (CSV.replace(",", "\t").encode(),), CSV_WORDS),
    "parquet": Target(
        file_named("rows.parquet"),
        (
            _parquet(TABLE), _parquet(TEXTS), _parquet(TEXTS, compression="none", use_dictionary=False),
            _parquet(TEXTS, compression="zstd", data_page_version="2.0"), _parquet(TABLE, compression="gzip"),
            _parquet(TABLE, compression="none", store_schema=False, data_page_version="2.0"),
        ),
        ARROW_WORDS,
    ),
    "arrow": Target(
        file_named("rows.arrow"),
        tuple(
            _arrow(table, new, compression)
            for table in (TABLE, TEXTS) for new in (pa.ipc.new_file, pa.ipc.new_stream)
            for compression in (None, "zstd", "lz4")
        ),
        ARROW_WORDS,
    ),
    "xml": Target(file_named("rows.xml"), (XML.encode(), b"<a><b c='d'/></a>"), XML_WORDS, shared=".xml"),
    "txt": Target(
        file_named("rows.txt"), (TEXT, b"word " * 50 + b"\n" + b"word " * 50, b"a\n\nb" * 20),
        (b"<|endoftext|>", b"<|endof", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\xff", b"\0", b"\xe2\x80\xa8", b"x" * 250),
        shared=".txt",
    ),
    "warc": Target(
        file_named("rows.warc"),
        (
            _response(b"", PAGE) + _record(b"request", b"x") + _record(b"conversion", b"text"),
            _response(b"; charset=gb18030", "<p>你好".encode("gb18030")),
            _response(b"\r\nTransfer-Encoding: chunked", b"4\r\n<p>x\r\n0\r\n\r\n"),
            _response(b"\r\nContent-Encoding: gzip", gzip.compress(PAGE, mtime=0)),
            _record(b"response", b"HTTP/1.1 404 No\r\n\r\n"),
        ),
        WARC_WORDS,
    ),
    "gz": Target(file_named("rows.jsonl.gz"), (gzip.compress(MIXED, mtime=0), gzip.compress(MIXED, 0, mtime=0) * 2), PACKED_WORDS),
    "zst": Target(file_named("rows.jsonl.zst"), (_zstd(MIXED), _zstd(MIXED) * 2, _zstd(b"")), PACKED_WORDS),
    "xz": Target(
        file_named("rows.jsonl.xz"),
        (lzma.compress(MIXED), lzma.compress(MIXED, check=lzma.CHECK_NONE) * 2, lzma.compress(MIXED, lzma.FORMAT_ALONE)),
        PACKED_WORDS,
    ),
    "zip": Target(
        read_archive,
        tuple(
            _zip({"a.jsonl": MIXED, "b/c.csv": CSV.encode(), "d.jsonl.gz": gzip.compress(MIXED, mtime=0)}, compression)
            for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
        ) + (_zip({"你.jsonl": MIXED, "./x.zip/a.txt": TEXT}, zipfile.ZIP_STORED), _zip({"a.jsonl": MIXED}, zipfile.ZIP_STORED)),
        ZIP_WORDS,
    ),
    "encodings": Target(
        read_encoded, tuple(_encoded_seeds()),
        (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"\0\xd8", b"\xed\xb3\xbf", b"\0", b"\x81\x30\x81\x30", b"\n"),
    ),
    "html": Target(read_page, (PAGE, b"<p>a<p>b"), HTML_WORDS),
    "rows": Target(file_named("rows.jsonl"), ALL_ROWS, ROW_WORDS, mutate_rows, shared=".jsonl"),
    "benchmarks": Target(
        read_questions,
        (b"\0" + _lines(QUESTIONS), b"\1" + json.dumps(QUESTIONS).encode(), b"\2a question,b\nanother,1\n", b"\3question\tx\ny\t1\n"),
        (*JSON_WORDS, b"question", b"input", b"turns", b"passage", b","),
    ),
    "template": Target(read_template, (CHAT.encode(), CHAT_2.encode()), JINJA_WORDS),
}  # fmt: skip


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
    """Beginnings of real files of the reader's format below a folder, up to a line end; none where there is no folder."""
    if not target.shared:
        return ()
    paths = sorted(path for path in folder.rglob(f"*{target.shared}") if "LICENSE" not in path.name)
    pieces = []
    for path in paths[:: max(1, len(paths) // count)]:
        with path.open("rb") as file:
            head = file.read(num_bytes)
        pieces.append(head[: head.rfind(b"\n") + 1] or head)
    return tuple(pieces)
