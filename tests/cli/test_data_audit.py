"""`fairlead data audit` as a user meets it: verdicts, exit codes, the page, the next command."""

import json
import zipfile

import pytest

from fairlead.cli.main import run
from fairlead.errors import ExitCode
from tiny import tiny_model
from tiny_stages import conversations, preferences, write_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    tiny_model(folder / "tiny")
    write_rows(folder / "rows.jsonl", conversations(24))
    write_rows(folder / "pairs.jsonl", preferences(20))
    write_rows(folder / "bad.jsonl", [*conversations(24), {"messages": [{"role": "assistant", "content": "fox"}]}])
    return folder


@pytest.fixture
def audit(home, tmp_path, monkeypatch, capsys):
    """Run the command; what it printed and said."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")

    def printed(*words, code=0):
        capsys.readouterr()
        got = run(["data", "audit", *map(str, words)])
        told = capsys.readouterr()
        assert got == code, told.err
        return told

    return printed


def test_a_clean_file(audit, tmp_path):
    out = audit("rows.jsonl", "--model", "tiny", "--output", tmp_path / "out").out
    assert "ok: 0 fatal, 0 warnings, 14 ok" in out
    assert "not checked  Contamination" in out
    assert f"page: {tmp_path / 'out' / 'rows.html'}" in out
    assert (tmp_path / "out" / "rows.html").is_file()
    assert out.splitlines()[-1] == "next: fairlead sft --data rows.jsonl --model tiny"
    assert out.count(" tokens, ") >= 4


def test_preferences_and_a_folder(audit, tmp_path):
    out = audit("pairs.jsonl", "--model", "tiny", "--output", tmp_path, "--rows", 1).out
    assert "Length bias: longer is better in" in out
    assert out.splitlines()[-1] == "next: fairlead reward --data pairs.jsonl --model tiny"


def test_an_archive(audit, home, tmp_path):
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.write(home / "rows.jsonl", "folder/rows.jsonl")
    for rows in (tmp_path / "rows.zip", tmp_path / "rows.zip" / "folder" / "rows.jsonl"):
        assert f"{rows}: 24 rows" in audit(rows, "--model", "tiny", "--output", tmp_path / "out").out
    assert "no member none.jsonl" in audit(tmp_path / "rows.zip" / "none.jsonl", "--model", "tiny", code=66).err


def test_a_fatal_verdict_is_exit_65(audit, tmp_path):
    told = audit("bad.jsonl", "--model", "tiny", "--output", tmp_path, code=ExitCode.BAD_DATA)
    assert "fatal: 1 fatal, 0 warnings, 13 ok" in told.out
    assert "bad.jsonl:25" in told.out
    assert "next:" not in told.out
    assert told.err == ""
    assert (tmp_path / "bad.html").is_file()


def test_against_takes_several_files(audit, tmp_path):
    rows = conversations(24)
    questions = [
        write_rows(tmp_path / name, [{"question": "who wrote this very short question then"}])
        for name in ("a.jsonl", "b.jsonl")
    ]
    out = audit("rows.jsonl", "--model", "tiny", "--output", tmp_path, "--against", *questions).out
    assert "None of 2 questions stands in a row." in out
    long = "the quick brown fox jumps over the lazy dog while everyone in Paris looks on and says hello"
    stolen = {"messages": [{"role": "user", "content": long}, {"role": "assistant", "content": "yes"}]}
    write_rows(tmp_path / "rows.jsonl", [*rows, stolen])
    questions[0].write_text(json.dumps({"question": long}))
    words = (tmp_path / "rows.jsonl", "--model", "tiny", "--output", tmp_path, "--against", questions[0])
    assert "Contamination: 1 of 25 rows" in audit(*words, code=ExitCode.BAD_DATA).out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nosuch.jsonl", "--model", "tiny"), ExitCode.MISSING_INPUT, "nosuch.jsonl: there is no such file"),
        (("rows.jsonl", "--model", "tiny", "--against", "nosuch.jsonl"), ExitCode.MISSING_INPUT, "nosuch.jsonl"),
        (("rows.jsonl", "--model", "nosuch"), ExitCode.MISSING_INPUT, "there is no such model"),
        (("rows.jsonl", "--model", "tiny", "--limit", "0"), ExitCode.USAGE, "limit"),
        (("rows.jsonl", "--model", "tiny", "--output", "rows.jsonl"), ExitCode.IO, "rows.jsonl"),
        (("rows.jsonl", "--modle", "tiny"), ExitCode.USAGE, "--model"),
    ],
)
def test_mistakes(audit, words, code, says):
    told = audit(*words, code=code)
    assert says in told.err
    assert "Traceback" not in told.err
    assert told.out == ""


def test_columns_and_encoding_of_the_users_own(audit, home, capsys):
    rows = [
        {"asked": row["messages"][0]["content"], "said": row["messages"][1]["content"]} for row in conversations(24)
    ]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (home / "old.jsonl").write_bytes(text.encode("gb18030"))
    words = ("old.jsonl", "--columns", "instruction=asked", "output=said", "--encoding", "gb18030")
    told = audit(*words, "--model", "tiny")
    assert (
        "next: fairlead sft --data old.jsonl --data.columns instruction=asked,output=said --data.encoding gb18030"
        in (told.out)
    )
    assert run(["data", "show", *words, "--model", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "layout alpaca, 24 rows" in shown
    assert "--data.columns instruction=asked,output=said --data.encoding gb18030" in shown
    assert "perhaps GB18030" in audit(*words[:4], "--model", "tiny", code=ExitCode.BAD_DATA).err
    for given, says in ((("asked",), "'asked' is no pair"), (("output=said", "output=asked"), "output is named twice")):
        assert says in audit("old.jsonl", "--columns", *given, "--model", "tiny", code=ExitCode.USAGE).err
