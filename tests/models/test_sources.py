"""Where the model of a name is, after runs were moved, copied, or the working folder changed."""

import shutil

import pytest

from fairlead.artifacts.manifest import digest, read_manifest
from fairlead.errors import UserError
from fairlead.models.sources import recorded, resolve


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A whole model, an adapter on it, and an adapter on that."""
    folder = tmp_path_factory.mktemp("sources") / "run"
    sft = world.run("sft", folder, "max_steps=1", "model.tuning=full")
    world.run("dpo", folder, f"model.name={sft}", "max_steps=1")
    return folder


def test_a_base_given_from_the_working_folder_is_found_from_any_other(world, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(world.model, "tiny")
    stage = world.run("sft", "run", "model.name=tiny", "max_steps=1").absolute()
    manifest = read_manifest(stage)
    assert manifest.base is not None
    assert manifest.base.name == manifest.parents["model"].path == str(tmp_path / "here" / "tiny")
    monkeypatch.chdir("/")
    assert resolve(str(stage)).base.digest == manifest.base.digest
    elsewhere = world.run("sft", tmp_path / "run", f"model.name={shutil.copytree(world.model, tmp_path / 'tiny')}",
                          "max_steps=1")  # fmt: skip
    assert digest(elsewhere) == digest(stage), "the place is no part of what it is"


def test_an_adapter_finds_the_base_stage_of_its_moved_run(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    (run / "01-sft").rename(run / "gone")
    try:
        found = resolve(str(moved / "02-dpo"))
    finally:
        (run / "gone").rename(run / "01-sft")
    assert found.base.folder == moved / "01-sft" / "model"


def test_a_neighbour_of_the_same_name_is_taken_only_if_it_is_the_model(world, run, tmp_path):
    """The parent lies in another run; this run has a stage of that name too."""
    other = tmp_path / "other"
    world.run("sft", other, "max_steps=1", "runtime.seed=5")
    dpo = world.run("dpo", other, f"model.name={run / '01-sft'}", "max_steps=1")
    assert resolve(str(dpo)).base.folder == run / "01-sft" / "model"
    named = read_manifest(dpo).parents["model"]
    assert recorded(named.path, named.digest, dpo).artifact == run / "01-sft"


def test_an_adapter_with_the_name_of_its_base_stage_is_not_its_own_base(world, run, tmp_path):
    stage = world.run("sft", tmp_path / "run", f"model.name={run / '01-sft'}", "max_steps=1")
    assert stage.name == "01-sft"
    assert resolve(str(stage)).base.folder == run / "01-sft" / "model"


def test_a_base_that_is_nowhere_is_told_by_its_whole_path(world, tmp_path):
    stage = world.run("sft", tmp_path / "run", f"model.name={shutil.copytree(world.model, tmp_path / 'tiny')}",
                      "max_steps=1")  # fmt: skip
    shutil.rmtree(tmp_path / "tiny")
    with pytest.raises(UserError, match="there is no such model") as caught:
        resolve(str(stage))
    assert caught.value.where == str(tmp_path / "tiny")
