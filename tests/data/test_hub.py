"""Datasets by their address in a hub, asked of a hub that stands in for the real one."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from fairlead.data.load import read_conversations
from fairlead.data.starter import resolve_paths
from fairlead.errors import ExitCode, UserError

ROW = {"instruction": "q", "output": "a"}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What was asked of the hub; its one dataset lies in a folder."""
    asked = []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "data" / "more.jsonl").write_text(json.dumps(ROW | {"output": "b"}))

    def download(name, **options):
        asked.append((name, options))
        if name != "team/rows":
            raise LocalEntryNotFoundError("not here")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_a_dataset_is_a_folder_of_rows(asked, tmp_path):
    (path,) = resolve_paths(["hf://datasets/team/rows"], tmp_path)
    assert path == tmp_path
    assert len(read_conversations([path]).records) == 2
    ((name, options),) = asked
    assert (name, options["repo_type"], options["revision"]) == ("team/rows", "dataset", None)
    assert {"*.jsonl", "*.parquet", "*.json.gz", "*.zip"} <= set(options["allow_patterns"])
    assert not {"*", "*.py", "*.txt", "*.pkl"} & set(options["allow_patterns"])


@pytest.mark.parametrize(
    ("address", "revision", "inside"),
    [
        ("hf://datasets/team/rows/data/train.jsonl", None, "data/train.jsonl"),
        ("hf://datasets/team/rows@v1.0/data", "v1.0", "data"),
        (
            "hf://datasets/team/rows@refs%2Fconvert%2Fparquet/data/train.jsonl",
            "refs/convert/parquet",
            "data/train.jsonl",
        ),
    ],
)
def test_revision_and_file(asked, tmp_path, address, revision, inside):
    assert resolve_paths([address], Path("unused")) == [tmp_path / inside]
    assert asked[0][1]["revision"] == revision
    wanted = asked[0][1]["allow_patterns"]
    assert {inside, f"{inside}/*.jsonl", f"{inside}/*.parquet"} <= set(wanted)
    fetched = filter_repo_objects(
        [inside, f"{inside}/a/b.jsonl", f"{inside}/a.py", "data2/c.jsonl"], allow_patterns=wanted
    )
    assert list(fetched) == [inside, f"{inside}/a/b.jsonl"]


@pytest.mark.parametrize(
    ("address", "says", "code"),
    [
        ("hf://datasets/nobody/rows", "the hub's dataset could not be had", ExitCode.MISSING_INPUT),
        ("hf://datasets/team/rows/nothing.jsonl", "has no such file", ExitCode.MISSING_INPUT),
        ("hf://team/rows", "no address of a dataset", ExitCode.USAGE),
        ("hf://datasets/rows", "no address of a dataset", ExitCode.USAGE),
        ("hf://datasets/team/rows@a@b", "no address of a dataset", ExitCode.USAGE),
    ],
)
def test_what_cannot_be_had(asked, tmp_path, address, says, code):
    with pytest.raises(UserError, match=says) as refusal:
        resolve_paths([address], tmp_path)
    assert refusal.value.exit_code == code
    assert refusal.value.fix
