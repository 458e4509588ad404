"""What is looked at before a stage begins, in this process."""

import zipfile

import pytest

from fairlead.cli.preflight import check_stage
from fairlead.config.parse import load
from fairlead.config.stages import SftConfig
from fairlead.errors import ExitCode, UserError
from tiny import tiny_model, write_conversations


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def check(tmp_path, model):
    """Look at an SFT of these rows."""

    def checked(rows, *words):
        base = [f"model.name={model}", f"output={tmp_path / 'run'}", f"data.train={rows}"]
        check_stage("sft", load(SftConfig, None, [*base, *words]))

    return checked


def test_rows_in_an_archive_are_there(check, tmp_path):
    write_conversations(tmp_path / "rows.jsonl", 8)
    with zipfile.ZipFile(tmp_path / "rows.zip", "w") as archive:
        archive.write(tmp_path / "rows.jsonl", "a.jsonl")
        archive.write(tmp_path / "rows.jsonl", "b.jsonl")
    check(tmp_path / "rows.zip")
    check(tmp_path / "rows.zip" / "b.jsonl")
    for gone in ("rows.zip/c.jsonl", "none.zip/a.jsonl"):
        with pytest.raises(UserError) as caught:
            check(tmp_path / gone)
        assert caught.value.exit_code == ExitCode.MISSING_INPUT
