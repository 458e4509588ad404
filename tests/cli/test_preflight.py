"""What is looked at before a stage begins, in this process."""

import json
import zipfile

import pytest

from fairlead.artifacts.manifest import Manifest, write_manifest
from fairlead.cli.main import run
from fairlead.cli.preflight import check_stage
from fairlead.config.online import PpoConfig
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


def test_columns_are_those_of_the_prompts_alone(tmp_path, model):
    (tmp_path / "prompts.jsonl").write_text('{"asked": "Why?"}\n')
    write_conversations(tmp_path / "rows.jsonl", 8)
    reward = tmp_path / "run" / "02-reward"
    reward.mkdir(parents=True)
    write_manifest(reward, Manifest(kind="reward", stage="reward"))
    words = [
        f"model.name={model}", f"output={tmp_path / 'run'}", f"reward_model={reward}", "data.columns=prompt=asked",
        f"data.train={tmp_path / 'prompts.jsonl'}", f"ptx_data={tmp_path / 'rows.jsonl'}",
    ]  # fmt: skip
    check_stage("ppo", load(PpoConfig, None, words))


def test_what_refine_cannot_read_leaves_no_stage_behind(tmp_path, monkeypatch, capsys):
    """A fix that the message names is an option: the stage must not be begun without it."""
    monkeypatch.chdir(tmp_path)
    rows = [{"问题": f"问题{i} 请写出第{i}首唐诗", "回答": f"第{i}首 床前明月光 疑是地上霜{i}"} for i in range(8)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_bytes(text.encode("gb18030"))
    words = ["data", "refine", "--data", "rows.jsonl"]
    for more, says in (((), "encoding=gb18030"), (("--encoding", "gb18030"), "layout of the rows is not known")):
        assert run([*words, *more]) == ExitCode.BAD_DATA
        assert says in capsys.readouterr().err
    assert run([*words, "--encoding", "gb18030", "--columns", "instruction=问题,output=回答"]) == 0
