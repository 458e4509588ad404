"""F4: a disk that is really full, a 1 MB tmpfs in a namespace of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNSHARE = shutil.which("unshare")

FILL = """
import json, sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from fairlead.artifacts.atomic import leftovers
from fairlead.artifacts.checkpoints import latest_checkpoint, save_checkpoint
from fairlead.artifacts.journal import Journal, read
from fairlead.errors import UserError

run, out = Path(sys.argv[1]), {}

def save(step, num_bytes):
    save_checkpoint(run, step, lambda tmp: save_file({"w": np.zeros(num_bytes, np.uint8)}, tmp / "w.safetensors"),
                    facts={}, keep=2)

save(1, 150_000)
save(2, 150_000)
for name, num_bytes in (("inside the writer", 900_000), ("by a little", 745_000)):
    try:
        save(3, num_bytes)
    except UserError as error:
        out[name] = [str(error), int(error.exit_code)]
journal = Journal(run / "metrics.jsonl")
try:
    for step in range(10_000):
        journal.append({"step": step, "text": "x" * 200})
except UserError as error:
    out["journal"] = [str(error), int(error.exit_code)]
out["rows"] = [len(read(run / "metrics.jsonl")), step]
try:
    save(4, 10)
except UserError as error:
    out["preflight"] = [str(error), int(error.exit_code)]
out["latest"] = latest_checkpoint(run).step
out["leftovers"] = [str(path) for path in leftovers(run)]
print(json.dumps(out))
"""


@pytest.fixture
def result(tmp_path):
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    probe = [UNSHARE, "-rm", "sh", "-c", mount]
    if not UNSHARE or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    argv = [UNSHARE, "-rm", "sh", "-c", f'{mount} && exec "$0" "$@"', sys.executable, "-c", FILL, str(tmp_path)]
    env = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, capture_output=True, env=env, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_full_disk_stops_and_loses_nothing(result, tmp_path):
    for name in ("inside the writer", "by a little", "preflight"):
        message, code = result[name]
        assert code == 74
        assert message.startswith("disk full: needs ")
        assert "; the last good checkpoint is step-000002" in message
        assert "Fix: " in message
    message, code = result["journal"]
    assert code == 74
    assert message.startswith("disk full: has 0 bytes at ")
    whole_rows, first_refused = result["rows"]
    assert whole_rows == first_refused > 100
    assert result["latest"] == 2
    assert result["leftovers"] == []
