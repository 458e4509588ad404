"""From a store of labels to rows, copies and stages, as a user meets them."""

import json

import pytest

from fairlead.artifacts.hashing import sha256_folder
from fairlead.cli.main import run
from fairlead.data.load import READERS
from fairlead.errors import ExitCode
from fairlead.feedback.accounts import verified
from fairlead.feedback.store import open_store
from tiny import tiny_model
from tiny_store import labelled_store

REWARD = ("reward", "--model", "tiny", "--data")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a tiny model and the store `labels.db`: 12 rankings, and 12 answers with a thumb and an edit."""
    folder = tmp_path_factory.mktemp("home")
    tiny_model(folder / "tiny")
    labelled_store(folder / "labels.db")
    return folder


@pytest.fixture
def command(home, monkeypatch, capsys):
    """Run a command in that folder; what it printed, or what it complained of."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))

    def printed(*words, code=0):
        capsys.readouterr()
        assert run(words) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return said.err if code else said.out

    return printed


@pytest.mark.parametrize("verb", ["reward", "dpo", "kto", "sft"])
def test_a_stage_reads_the_store(command, home, verb):
    command(verb, "--data", "feedback:labels.db", "--model", "tiny", "--max-steps", "2", "--output", f"runs/{verb}")
    (manifest,) = (home / "runs" / verb).glob("*/manifest.json")
    (name,) = json.loads(manifest.read_text())["data_digests"]
    assert "feedback" in name


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_export_holds_the_same_rows_and_names_them_for_ever(command, home, tmp_path, form):
    folder = tmp_path / "labels"
    text = command("feedback", "export", "labels.db", str(folder), *(["--parquet"] if form == "parquet" else []))
    assert "preferences: 24 rows" in text
    assert "'feedback:labels.db?until=12-12-12-24'" in text
    assert f"fairlead reward --data {folder}/preferences.{form}" in text  # what most want comes first
    sizes = {kind: len(READERS[kind]([folder / f"{kind}.{form}"]).records) for kind in READERS}
    assert sizes == {"conversations": 12, "preferences": 24, "judgements": 12, "prompts": 12}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["facts"]["address"] == "feedback:labels.db?until=12-12-12-24"
    again = tmp_path / "again"
    command(
        "feedback", "export", "labels.db?until=12-12-12-24", str(again), *(["--parquet"] if form == "parquet" else [])
    )
    for file in (folder).glob("*.[jp]*[lt]"):
        assert (again / file.name).read_bytes() == file.read_bytes()


def test_backup_and_restore(command, tmp_path):
    copy, new = tmp_path / "copy.db", tmp_path / "new.db"
    assert f"are in {copy}" in command("feedback", "backup", "labels.db", str(copy))
    assert f"are in {new}" in command("feedback", "restore", str(copy), str(new))
    assert "overwritten" in command("feedback", "restore", str(copy), str(new), code=ExitCode.BAD_DATA)
    assert "there already" in command("feedback", "backup", "labels.db", str(copy), code=ExitCode.USAGE)


def test_invited_with_a_password_that_must_be_changed(command, tmp_path):
    where = str(tmp_path / "team.db")
    password = command("feedback", "invite", where, "bob", "--role", "viewer").strip().rpartition(" ")[2]
    store = open_store(where)
    user = verified(store, "bob", password)
    store.close()
    assert (user.role, user.must_change) == ("viewer", True)


@pytest.mark.parametrize(("words", "code", "said"), [
    ([*REWARD, "feedback:none.db"], ExitCode.MISSING_INPUT, "there is no such store"),
    ([*REWARD, "feedback:labels.db?who=ann"], ExitCode.USAGE, "no address of labels"),
    ([*REWARD, "feedback:labels.db?before=1999-01-01"], ExitCode.MISSING_INPUT, "no preferences"),
    (["data", "refine", "--data", "feedback:labels.db"], ExitCode.USAGE, "fairlead feedback export"),
    (["feedback", "export", "none.db", "x"], ExitCode.MISSING_INPUT, "there is no such store"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused(command, words, code, said):
    assert said in command(*words, code=code)


def test_reading_leaves_the_store_as_it_was(command, home, tmp_path):
    before = sha256_folder(home / "tiny"), (home / "labels.db").read_bytes()
    command("feedback", "export", "labels.db", str(tmp_path / "x"))
    assert before == (sha256_folder(home / "tiny"), (home / "labels.db").read_bytes())
