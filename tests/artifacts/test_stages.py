import pytest

from fairlead.artifacts.checkpoints import save_checkpoint
from fairlead.artifacts.journal import Journal
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import MANIFEST_NAME, Manifest, write_manifest
from fairlead.artifacts.stages import (
    clean,
    is_finished,
    is_run,
    is_taken,
    list_runs,
    policy_of,
    removable,
    stage_folder,
)
from fairlead.errors import UserError


def make_stage(run, stage, *, kind=None, steps=3):
    folder = stage_folder(run, stage)
    with Journal(folder / "metrics.jsonl") as journal:
        for step in range(1, steps + 1):
            journal.append({"step": step, "loss": 1.0})
    for step in (1, 2):
        save_checkpoint(folder, step, lambda tmp: (tmp / "w").write_bytes(b"x" * 100) and None, facts={}, keep=2)
    if kind:
        write_manifest(folder, Manifest(kind=kind, stage=stage))
    return folder


def test_numbers_rise_and_a_stage_finds_its_folder_again(tmp_path):
    run = tmp_path / "demo"
    assert stage_folder(run, "sft") == run / "01-sft"
    assert not run.exists()
    for name in ("01-sft", "02-reward", "03-own_replies", "04-sft", "notes", "7-x"):
        (run / name).mkdir(parents=True)
    (run / "09-file").touch()
    assert stage_folder(run, "sft") == run / "04-sft"
    assert stage_folder(run, "reward") == run / "02-reward"
    assert stage_folder(run, "ppo") == run / "05-ppo"
    with pytest.raises(AssertionError):
        stage_folder(run, "../out")


def test_runs_say_kind_state_size_and_last_step(tmp_path):
    make_stage(tmp_path / "demo", "sft", kind="policy", steps=5)
    reward = make_stage(tmp_path / "demo", "reward", steps=0)
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "recipe.yaml").touch()
    (tmp_path / "unrelated").mkdir()
    with lock(reward):
        demo, fresh = list_runs(tmp_path)
    sft, reward = demo.stages
    assert (demo.name, fresh.name, fresh.stages) == ("demo", "fresh", ())
    assert (sft.name, sft.kind, sft.finished, sft.in_use, sft.last_step) == ("01-sft", "policy", True, False, 5)
    assert (reward.name, reward.kind, reward.finished, reward.in_use) == ("02-reward", "", False, True)
    assert reward.last_step == 2  # of its checkpoints: no metrics yet
    assert not demo.finished
    assert demo.size_bytes > sft.size_bytes > 200
    assert list_runs(tmp_path / "absent") == []


def test_a_run_can_be_named_itself(tmp_path):
    sft = make_stage(tmp_path / "demo", "sft", kind="policy")
    (found,) = list_runs(tmp_path / "demo")
    assert [stage.path for stage in found.stages] == [sft]
    assert [item.path for item in removable(tmp_path / "demo")] == [sft / "checkpoints"]


def test_a_run_stands_for_its_ppo_else_for_its_last_policy(tmp_path):
    run = tmp_path / "demo"
    assert not is_run(tmp_path)
    assert not is_run(run)
    sft = make_stage(run, "sft", kind="policy")
    make_stage(run, "reward", kind="reward")
    assert is_run(run)
    assert policy_of(run) == sft
    ppo = make_stage(run, "ppo", kind="policy")
    make_stage(run, "dpo", kind="policy")
    make_stage(run, "eval-ppo", kind="report")
    assert policy_of(run) == ppo
    (ppo / MANIFEST_NAME).unlink()
    assert policy_of(run) == run / "04-dpo"


def test_a_run_without_a_finished_policy_says_what_there_is(tmp_path):
    make_stage(tmp_path, "sft")
    make_stage(tmp_path, "reward", kind="reward")
    with pytest.raises(UserError, match="no finished policy") as caught:
        policy_of(tmp_path)
    assert caught.value.got == "01-sft (unfinished), 02-reward"


def test_a_stage_is_taken_while_it_is_in_use_and_once_it_is_finished(tmp_path):
    folder = make_stage(tmp_path, "sft")
    assert not is_taken(folder)
    with lock(folder):
        assert is_taken(folder)
    assert not is_taken(folder)
    write_manifest(folder, Manifest(kind="policy", stage="sft"))
    assert is_taken(folder)


def test_a_damaged_manifest_does_not_hide_the_run(tmp_path):
    folder = make_stage(tmp_path / "demo", "sft", kind="policy")
    (folder / MANIFEST_NAME).write_text("{}")
    assert list_runs(tmp_path)[0].stages[0].kind == "damaged"


def test_clean_deletes_only_what_no_result_needs(tmp_path):
    sft = make_stage(tmp_path / "demo", "sft", kind="policy")
    reward = make_stage(tmp_path / "demo", "reward")
    torn = reward / "model.tmp-01234567"
    torn.mkdir(parents=True)
    (torn / "w").write_bytes(b"x" * 50)
    begun = tmp_path / "demo" / "03-ppo"
    (begun / "model.tmp-01234568").mkdir(parents=True)
    (begun / "stage.json").write_bytes(b"{}")
    with lock(sft):
        assert [item.path for item in removable(tmp_path)] == [torn, begun]
    with lock(begun):
        assert [item.path for item in removable(tmp_path)][-1] == sft / "checkpoints"
    items = removable(tmp_path)
    assert [item.path for item in items] == [torn, sft / "checkpoints", begun]
    assert items[0].size_bytes == 50
    assert items[1].size_bytes > 200
    assert clean(items) == sum(item.size_bytes for item in items)
    assert is_finished(sft)
    assert not (sft / "checkpoints").exists()
    assert (reward / "checkpoints" / "step-000002").is_dir()
    assert removable(tmp_path) == []
    assert clean(items) == 0  # once more does no harm


def test_finished_means_manifest(tmp_path):
    folder = make_stage(tmp_path / "demo", "sft")
    assert not is_finished(folder)
    write_manifest(folder, Manifest(kind="policy", stage="sft"))
    assert is_finished(folder)
