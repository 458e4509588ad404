"""The official npm client against the server: every check of clients/checks.mjs holds."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serve.test_client import wait_until

CLIENTS = Path(__file__).parent / "clients"
CACHE = Path(__file__).parents[2] / "build" / "npm-client"
LEAST = 40


@pytest.fixture(scope="module")
def folder():
    """The checks beside an installed client; what is there from last time is used again."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not here")
    lock = (CLIENTS / "package-lock.json").read_bytes()
    installed = CACHE / "installed.json"
    if not installed.is_file() or installed.read_bytes() != lock:
        CACHE.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(CLIENTS / name, CACHE / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        done = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install the client: {done.stderr.strip()[-300:]}")
        installed.write_bytes(lock)
    shutil.copy(CLIENTS / "checks.mjs", CACHE / "checks.mjs")
    return CACHE


def test_every_check_of_the_npm_client_holds(folder, site):
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["node", "checks.mjs", f"{site.address}/v1"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    checks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one for one in checks if not one["ok"]] == []
    assert len(checks) >= LEAST
    wait_until(lambda: site.server.models["slow"].running == 0 and site.server.gate.running == 0)
