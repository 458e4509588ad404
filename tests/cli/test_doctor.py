"""`fairlead doctor` on this machine, and on machines that lack something."""

import os

import pytest

from fairlead.errors import ExitCode
from installed import COMMAND, failure, fairlead

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="fairlead is not installed beside this Python")

NO_REGISTRY = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}


def test_a_machine_without_network_and_starter_files(tmp_path):
    result = fairlead("doctor", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"), **NO_REGISTRY)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    table = lines[: lines.index("")]
    names = [line[2:16].strip() for line in table if line[2:16].strip()]
    assert names == [
        "Python", "torch", "processor", "memory", "device", "precision", "matrix rate", "this folder", "cache",
        "starter files", "registry",
    ]  # fmt: skip
    assert "not in the cache: smollm2-135m-instruct, alpaca_en_demo" in result.stdout
    assert "the demo brings them; fairlead fetch" in result.stdout
    assert "! registry       pip gets no answer" in lines
    assert not (tmp_path / "cache").exists()
    assert lines[-1] == "next: fairlead demo"


def test_a_folder_that_cannot_be_written(tmp_path):
    result = fairlead("doctor", cwd="/proc", XDG_CACHE_HOME=str(tmp_path), **NO_REGISTRY)
    lines = failure(result, ExitCode.IO)
    assert lines[0].startswith("error: this folder: /proc, ")
    assert "cannot be written" in lines[0]
    assert lines[-1] == "fix: work in a folder of your own"
