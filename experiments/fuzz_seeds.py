"""What fuzzing begins with: small files of every format and rows of every layout; and the words of each format."""

import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fairlead.data.encodings import ENCODINGS

# --- rows

_TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
_OTHER_TURNS = [_TURNS[0], {"role": "assistant", "content": "b"}]
_ASKED = [{"from": "human", "value": "q"}]
_SAID = {"from": "gpt", "value": [{"type": "text", "text": "a"}]}
_HUMAN = "\n\nHuman: q\n\nAssistant: a"
_REPLIES = [{"role": "assistant", "text": text, "rank": rank} for rank, text in enumerate(("a", "b"))]
_ROUND = {"Human": "<|Human|>: q<eoh>", "Commands": "None", "MOSS": "<|MOSS|>: a<eom>"}
_POST = {"Id": "1", "PostTypeId": "1", "Title": "t", "Body": "<p>q</p>", "AcceptedAnswerId": "2"}
_ANSWERS = [{"Id": f"{i}", "PostTypeId": "2", "ParentId": "1", "Score": f"{i}", "Body": f"<p>{i}"} for i in (2, 3)]
LAYOUT_ROWS: tuple[list[dict[str, Any]], ...] = (
    [{"messages": _TURNS, "label": True}, {"prompt": "q", "completion": "a", "kto_tag": "false"}],
    [{"prompt": "q", "responses": ["a", "b"], "desirable": [True, False]}],
    [{"prompt": {"role": "prompter", "text": "q", "replies": _REPLIES}}],
    [
        {"message_id": "1", "parent_id": None, "message_tree_id": "1", "role": "prompter", "text": "q"},
        {"message_id": "2", "parent_id": "1", "message_tree_id": "1", "role": "assistant", "text": "a", "rank": 0},
        {"message_id": "3", "parent_id": "1", "message_tree_id": "1", "role": "assistant", "text": "b", "rank": 1.0},
    ],
    [{"chosen": _TURNS, "rejected": _OTHER_TURNS, "score_chosen": 2}],
    [{"conversations": _ASKED, "chosen": _TURNS[1], "rejected": {"from": "gpt", "value": "b"}}],
    [{"prompt": _HUMAN, "response": "a", "chosen": "a", "rejected": "b"}],
    [{"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 0}],
    [{"chosen": _HUMAN, "rejected": f"{_HUMAN}b"}],
    [{"prompt": _TURNS[:1], "responses": ["a", "b"], "scores": [1, "0.5"]}],
    [{"instruction": "q", "completions": [{"response": "a", "overall_score": 1, "fine-grained_score": 2}] * 2}],
    [{"prompt": "q", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2.0}]}],
    [{"prompt": "q", "ranked": ["a", "b"], "system": "s"}],
    [{"prompt": "q", "response": "a", "helpfulness": 3}, {"prompt": "q", "response": "a", "score": "4"}],
    [{"question": "q", "response_j": "a", "response_k": "b"}],
    [_POST, *_ANSWERS],
    [{"meta_instruction": "s", "chat": {"turn_1": _ROUND}}],
    [{"prefix": "s", "plain_text": "[Human]: q<eoh> [MOSS]: a<eoa>"}],
    [{"conversation": [{"human": "q", "assistant": "a"}]}],
    [{"conversations": [*_ASKED, _SAID]}],
    [{"data": ["q", "a"]}],
    [{"messages": _TURNS, "system": "s", "tools": []}],
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
"""One row or more of every layout, in the order of `fairlead.data.layouts.LAYOUTS`."""
QUESTIONS = [{"passage": "p", "Question": "q", "options": ["a"]}, {"turns": ["q", "r"]}, {"examples": [{"input": "q"}]}]


def lines(rows: Sequence[dict[str, Any]]) -> bytes:
    """JSON lines."""
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


ROWS = tuple(map(lines, LAYOUT_ROWS))
MIXED = b"\n".join(ROWS[19:26])
JSON = (*(b"[" + rows.replace(b"\n", b",") + b"]" for rows in ROWS), MIXED, ROWS[0])
JSONL = (MIXED, *ROWS, b"[" + ROWS[6] + b"]")
BENCHMARKS = (
    b"\0" + lines(QUESTIONS), b"\1" + json.dumps(QUESTIONS).encode(), b"\2a question,b\nanother,1\n",
    b"\3question\tx\ny\t1\n",
)  # fmt: skip


# --- text

_CSV = 'instruction,output,"in ""put"""\nq,"a, b",\r\n\n你,"line\nbreak",=x\n'
_XML = (
    '<?xml version="1.0" encoding="utf-8"?>\n<posts>\n<row Id="1" PostTypeId="1" Title="t&#xA;" Body="&lt;p&gt;q" />\n'
    '<row Id="2" PostTypeId="2" ParentId="1" Score="3" Body="a"/><row><text>x<b>y</b></text><text>z</text></row>'
    "<!-- c --><row><text><![CDATA[<a>]]></text></row></posts>"
)
_TEXT = b"one\ntwo\n\n" + b"long " * 60 + b"\n<|endoftext|>\nthree\r\n\r\nfour<|endoftext|>"
CSV = (_CSV.encode(), b"\xef\xbb\xbftext\na\n")
TSV = (_CSV.replace(",", "\t").encode(),)
XML = (_XML.encode(), b"<a><b c='d'/></a>")
TXT = (_TEXT, b"word " * 50 + b"\n" + b"word " * 50, b"a\n\nb" * 20)
PAGES = (
    b"<!DOCTYPE html><html><head><meta charset='utf-8'><title>t</title><style>p{}</style><script>if (a<b) {}</script>"
    b'</head><body><!-- c --><h1 class="x">h&amp;&#228;&#xe4;</h1><ul><li>a<li>b</ul><pre>x\n <b>y</b></pre><code>z'
    b"</code><table><tr><td>1<th>2</table><svg/><svg>s</svg><noscript>n</noscript><br/>end</body></html>",
    b"<p>a<p>b",
)


def encoded() -> Iterator[bytes]:
    """A file of each text format in each encoding; the first two bytes say which format, and what encoding is named."""
    jsonl = MIXED.decode() + '\n{"text": "这是中文，我们说的一"}'
    csv, text = f"{_CSV}這是我們,的,一\n", f"{_TEXT.decode()}\n你好"
    for form, written in enumerate((jsonl, f"[{ROWS[24].decode()}]", csv, text, _XML)):
        for number, name in enumerate((None, *ENCODINGS)):
            yield bytes([form, number]) + written.encode(name or "utf-8", errors="replace")
        for name in ("gb18030", "big5", "utf-16", "utf-32", "utf-16-le"):
            yield bytes([form, 0]) + written.encode(name, errors="replace")


CHATS = (
    b"{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    b"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    b"{%- set ns = namespace(last=messages|length - 1) %}{%- if messages[0].role == 'system' %}{% set loop_messages = "
    b"messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}{% if (m.role "
    b"== 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}{% endif %}{{- m.content.strip() | trim }}"
    b"{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}{% if loop.last and tools is defined %}{{ tools | "
    b"tojson(indent=2) }}{% endif %}{% endfor %}{% macro f(x) %}{{ x ~ eos_token }}{% endmacro %}{{ f(1) if not x }}",
)


# --- files of bytes

_TABLE = pa.table(
    {
        "instruction": ["q", "问"], "output": ["a", None], "n": [1, None], "f": [0.5, -1.0], "b": [True, None],
        "d": [date(2020, 1, 1), None], "t": [datetime(2020, 1, 1, 12), None], "m": [Decimal("1.5"), None],
        "raw": [b"\xff", b""], "turns": [[{"role": "user", "content": "q"}], []], "none": pa.nulls(2),
        "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        "word": pa.array(["x", "x"]).dictionary_encode(), "time": pa.array([1, 2], pa.timestamp("us", tz="UTC")),
    }
)  # fmt: skip
_TEXTS = pa.table({"instruction": ["q", "问"] * 20, "output": ["a", "b"] * 20})


def _parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _arrow(table: pa.Table, new: Callable[..., Any], compression: str | None) -> bytes:
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


_GZ = gzip.compress(MIXED, mtime=0)
GZ = (_GZ, gzip.compress(MIXED, 0, mtime=0) * 2)
ZST = (_zstd(MIXED), _zstd(MIXED) * 2, _zstd(b""))
XZ = (
    lzma.compress(MIXED), lzma.compress(MIXED, check=lzma.CHECK_NONE) * 2, lzma.compress(MIXED, lzma.FORMAT_ALONE),
)  # fmt: skip
ZIP = (
    _zip({"a.jsonl": MIXED}, zipfile.ZIP_STORED),
    _zip({"你.jsonl": MIXED, "./x.zip/a.txt": _TEXT}, zipfile.ZIP_STORED),
    *(
        _zip({"a.jsonl": MIXED, "b/c.csv": CSV[0], "d.jsonl.gz": _GZ}, compression)
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
    ),
)
PARQUET = (
    _parquet(_TABLE), _parquet(_TEXTS), _parquet(_TEXTS, compression="none", use_dictionary=False),
    _parquet(_TEXTS, compression="zstd", data_page_version="2.0"), _parquet(_TABLE, compression="gzip"),
    _parquet(_TABLE, compression="none", store_schema=False, data_page_version="2.0"),
)  # fmt: skip
ARROW = tuple(
    _arrow(table, new, compression)
    for table in (_TABLE, _TEXTS)
    for new in (pa.ipc.new_file, pa.ipc.new_stream)
    for compression in (None, "zstd", "lz4")
)
WARC = (
    _response(b"", PAGES[0]) + _record(b"request", b"x") + _record(b"conversion", b"text"),
    _response(b"; charset=gb18030", "<p>你好".encode("gb18030")),
    _response(b"\r\nTransfer-Encoding: chunked", b"4\r\n<p>x\r\n0\r\n\r\n"),
    _response(b"\r\nContent-Encoding: gzip", gzip.compress(PAGES[0], mtime=0)),
    _record(b"response", b"HTTP/1.1 404 No\r\n\r\n"),
)


# --- words


def _words(text: str, *others: bytes) -> tuple[bytes, ...]:
    return (*text.encode().split(), *others)


JSON_WORDS = _words('" { } [ ] , : null true 1e999 -0 NaN \\ud800 \\" {"a":1,"a":2} [[[[ ":', b"\n", b"\0", b"\xff")
CSV_WORDS = _words('" "" , \\ =1 ", "\n', b"\t", b"\n", b"\r", b"\r\n", b'"\n', b"\0", b"\xff", b"\xed\xb3\xbf")
TXT_WORDS = _words("<|endoftext|> <|endof", b"\n", b"\r", b"\r\n", b" ", b"\xff", b"\0", b"\xe2\x80\xa8", b"x" * 250)
XML_WORDS = _words(
    "<row> </row> <row/> <a> </a> <![CDATA[ ]]> <!-- --> <?xml?> &lt; &#0; &#x10FFFF; & xmlns:a='b' a='1' <!DOCTYPE> "
    "<!ENTITY> </posts> <posts> PostTypeId='1' Id='1' ParentId='1' Score='-1' AcceptedAnswerId='3'", b"\xff", b"\0",
)  # fmt: skip
HTML_WORDS = _words(
    "<p> </p> <pre> </pre> <code> <script> </script> <style> </style> <svg> <svg/> </svg> <br> <li> <td> <!-- --> <! "
    "<? < > / \" ' = &amp; &#0; &#99999999999999999999 &#xd800; &# &notit; <a <a/ </ <title> \ufeff",
    b" ", b"\n", b"\0", b"&#" + b"9" * 4400, b"a" * 4000, b"<" + b"a" * 4000,
)  # fmt: skip
WARC_WORDS = _words(
    "WARC/1.0 WARC-Type: response conversion Content-Length: Content-Type: text/html; charset= charset*=utf-8''a%00 "
    "utf-7 unicode-escape utf-16 punycode hex idna gb18030 Transfer-Encoding: chunked Content-Encoding: gzip deflate "
    'br HTTP/1.1 200 ffffffff a*1= a*0*= ; " : 99999999999999999999 +2AA- \\ud800 <meta',
    b"\r\n", b"\r\n\r\n", b"\0", b"<meta charset=", b"a*" + b"9" * 4400 + b"=",
)  # fmt: skip
CHAT_WORDS = _words(
    "{{ }} {% %} {%- -%} {# #} if else elif endif for in endfor set endset macro endmacro messages messages[0] message "
    ".content ['role'] |tojson |trim |length |join |replace |list |format |indent |map |sort |batch |slice |safe "
    "raise_exception() strftime_now() strftime_now(1) namespace() range(99999) loop.index0 loop.previtem cycler() is "
    "defined not and or ~ + - * ** // % ( ) [ ] [::-1] [::0] .strip() .split() .items() .pop() .format() generation "
    "endgeneration recursive call include import extends block autoescape eos_token none true 9223372036854775807 -1 "
    "1e308 \ue0000\ue001 \ue0009\ue001",
    b" ", b"\n", b"'", b"\xed\xa0\x80", b"{% raw %}", b"+1" * 9000, b"(" * 200, b"{% if 1 %}" * 200,
)  # fmt: skip
ZIP_WORDS = (
    b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"../", b"./", b"//", b".jsonl", b".zip/", b"\0", b"\x63\0",
    b"\xff\xff\xff\xff", b"\0\x08",
)  # fmt: skip
PACKED_WORDS = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"YZ", b"\0\0", b"\xff\xff", b"\x50\x2a\x4d\x18")
ARROW_WORDS = (b"ARROW1", b"PAR1", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x10\0\0\0", b"\x15\0", b"\x19\x0c", b"\x26\xff")
ENCODING_WORDS = (
    b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\0\0", b"\0\xd8", b"\xed\xb3\xbf", b"\0", b"\x81\x30\x81\x30",
    b"\n", b'"',
)  # fmt: skip
ROW_WORDS = _words(
    "messages conversations conversation role content from value system user assistant human gpt label kto_tag weight "
    "completion prompt responses desirable text replies rank deleted chosen rejected score_chosen score_rejected "
    "response scores ranked score helpfulness question response_j response_k Id PostTypeId Title Body ParentId Score "
    "AcceptedAnswerId chat turn_1 turn_2 Human Commands MOSS plain_text prefix instruction output input history tools "
    "instances context target kind answer user_prompt title author paragraphs abstract url not_a_page type tool_calls "
    "chosen_messages rejected_messages meta_instruction turns query problem passage Human: [Human]: [MOSS]: <eoh>",
    b"turn_", b"\n\nHuman: ", b"\n\nAssistant:", b"\nAssistant:",
)  # fmt: skip
BENCHMARK_WORDS = (*JSON_WORDS, b"question", b"input", b"turns", b"passage", b",", b"\t")
