"""F2, F4, F5: a kill or an error at every single system call of a save."""

import errno
import itertools
import os
import shutil
import sys

import pytest

from fairlead.artifacts.atomic import leftovers, new_folder, sweep, write_all, write_bytes
from fairlead.artifacts.checkpoints import latest_checkpoint, save_checkpoint
from fairlead.artifacts.journal import Journal, read
from fairlead.artifacts.manifest import Manifest, verify, write_manifest
from fairlead.errors import ExitCode, UserError
from faults.syscalls import Fault, errors, killed_at, run_with


def raw_write(path, data):
    """As a library writes: no fsync, no rename."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    write_all(descriptor, data)
    os.close(descriptor)


def save(folder, step):
    def write(tmp):
        (tmp / "model").mkdir()
        raw_write(tmp / "model" / "weights.safetensors", b"weights of %d" % step * 50)
        raw_write(tmp / "optimizer.safetensors", b"moments of %d" % step * 50)

    save_checkpoint(folder, step, write, facts={"step": step}, keep=2)


@pytest.fixture
def run(tmp_path):
    """A stage with two checkpoints, of which a third save will delete one."""
    save(tmp_path / "before", 1)
    save(tmp_path / "before", 2)
    return tmp_path


def fresh(run):
    folder = run / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "before", folder)
    return folder


def io_error(action):
    """The UserError of an action, which must be one of the disk; None when it went well."""
    try:
        action()
    except UserError as error:
        return error if error.exit_code == ExitCode.IO else pytest.fail(f"wrong exit code: {error}")
    return None


def whole_steps(folder):
    """Steps on disk, each proved whole by reading it back as the newest."""
    found = []
    names = sorted(path.name for path in (folder / "checkpoints").glob("step-??????"))
    for count in range(1, len(names) + 1):
        probe = folder.parent / "probe"
        shutil.rmtree(probe, ignore_errors=True)
        for name in names[:count]:
            shutil.copytree(folder / "checkpoints" / name, probe / "checkpoints" / name)
        checkpoint = latest_checkpoint(probe)
        assert checkpoint.skipped == ()
        assert (
            checkpoint.path / "model" / "weights.safetensors"
        ).read_bytes() == b"weights of %d" % checkpoint.step * 50
        found.append(checkpoint.step)
    return found


def test_kill_at_every_call_of_a_save(run):
    seen = set()
    for number in itertools.count():
        folder = fresh(run)
        killed = killed_at(number, lambda folder=folder: save(folder, 3))
        steps = whole_steps(folder)
        assert steps in ([1, 2], [1, 2, 3], [2, 3]), number  # never fewer than two, none of them half
        seen.add(tuple(steps))
        sweep(folder)
        assert leftovers(folder) == []
        save(folder, 3)
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000002", "step-000003"]
        assert whole_steps(folder) == [2, 3]
        if not killed:
            break
    assert number > 30
    assert seen == {(1, 2), (1, 2, 3), (2, 3)}


@pytest.mark.parametrize("code", errors())
def test_error_at_every_call_of_a_save(run, code):
    folder, count = fresh(run), Fault()
    run_with(count, lambda: save(folder, 3))
    for number, name in enumerate(count.calls):
        folder = fresh(run)
        fault = Fault(number, code)
        if error := io_error(lambda folder=folder, fault=fault: run_with(fault, lambda: save(folder, 3))):
            assert "Fix: " in str(error)
        else:  # it asked for a folder that is there
            assert name == "mkdir", f"call {number}, {name}, failed in silence"
            assert whole_steps(folder) == [2, 3]
        assert whole_steps(folder) in ([1, 2], [1, 2, 3], [2, 3]), number
        # whatever failed: no fsync is tried again on what may be lost
        assert name != "fsync" or "fsync" not in fault.calls[number + 1 :]
        sweep(folder)
        assert leftovers(folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which file was made durable")
def test_order_of_a_save(run):
    folder, fault = fresh(run), Fault()
    run_with(fault, lambda: save(folder, 3))
    checkpoints = folder / "checkpoints"
    tmp = next(path for name, path in fault.log if name == "rename")  # the first rename makes the checkpoint
    assert tmp.startswith(f"{checkpoints}/step-000003.tmp-")
    at = fault.log.index(("rename", tmp))
    durable = {path.removeprefix(tmp) for name, path in fault.log[:at] if name == "fsync"}
    files = {"/model/weights.safetensors", "/optimizer.safetensors", "/manifest.json"}
    assert durable >= files | {"/model", ""}
    assert fault.log[at - 1] == ("fsync", tmp)
    assert fault.log[at + 1] == ("fsync", str(checkpoints))
    assert fault.log[at + 2] == ("rename", f"{checkpoints}/step-000001")  # only now the oldest goes


def test_full_disk_names_the_last_good_checkpoint(run):
    folder = fresh(run)
    count = Fault()
    run_with(count, lambda: save(folder, 3))
    for number in [number for number, name in enumerate(count.calls) if name == "write"]:
        folder = fresh(run)
        with pytest.raises(UserError, match=r"disk full: needs .*; the last good checkpoint is step-000002"):
            run_with(Fault(number, errno.ENOSPC), lambda folder=folder: save(folder, 3))
        assert whole_steps(folder) == [1, 2]
        assert leftovers(folder) == []


def test_kill_at_every_call_of_a_replacement(tmp_path):
    def replace():
        with new_folder(tmp_path / "run" / "model", replace=True) as tmp:
            raw_write(tmp / "a", b"new a")
            raw_write(tmp / "b", b"new b")

    seen = set()
    for number in itertools.count():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        (tmp_path / "run" / "model").mkdir(parents=True)
        (tmp_path / "run" / "model" / "a").write_bytes(b"old a")
        killed = killed_at(number, replace)
        sweep(tmp_path)
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]
        content = {path.name: path.read_bytes() for path in (tmp_path / "run" / "model").iterdir()}
        assert content in ({"a": b"old a"}, {"a": b"new a", "b": b"new b"}), number
        seen.add(len(content))
        if not killed:
            break
    assert seen == {1, 2}
    assert len(content) == 2


def test_kill_at_every_call_of_a_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    seen = set()
    for number in itertools.count():
        path.write_bytes(b"old")
        killed = killed_at(number, lambda: write_bytes(path, b"new and longer"))
        seen.add(path.read_bytes())
        sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [path]
        if not killed:
            break
    assert seen == {b"old", b"new and longer"}


def test_kill_at_every_call_of_finishing_a_stage(tmp_path):
    folder = tmp_path / "01-sft"
    for number in itertools.count():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "w").write_bytes(b"weights")
        killed = killed_at(number, lambda: write_manifest(folder, Manifest(kind="policy", stage="sft")))
        if (folder / "manifest.json").exists():
            assert list(verify(folder).files) == ["model/w"]
        else:
            assert killed
        if not killed:
            break
    assert number > 5


def test_kill_at_every_call_of_a_journal(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for number in itertools.count():
        path.unlink(missing_ok=True)
        acknowledged = tmp_path / "acknowledged"
        acknowledged.write_bytes(b"")

        def train(ledger=acknowledged):
            with Journal(path) as journal, ledger.open("ab", buffering=0) as ack:
                for step in range(5):
                    journal.append({"step": step})
                    journal.flush()
                    ack.write(b"x")

        killed = killed_at(number, train)
        Journal(path).close()
        rows = read(path)
        assert rows == [{"step": step} for step in range(len(rows))]
        assert len(rows) >= len(acknowledged.read_bytes())
        if not killed:
            break
    assert number > 10
    assert len(rows) == 5


@pytest.mark.parametrize("code", errors())
def test_error_at_every_call_of_a_journal(tmp_path, code):
    def train():
        with Journal(tmp_path / "metrics.jsonl") as journal:
            for step in range(3):
                journal.append({"step": step})
                journal.flush()

    count = Fault()
    run_with(count, train)
    for number, name in enumerate(count.calls):
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        fault = Fault(number, code)
        failed = io_error(lambda fault=fault: run_with(fault, train))
        assert failed or name == "mkdir", f"call {number}, {name}, failed in silence"  # a folder that is there
        assert name != "fsync" or "fsync" not in fault.calls[number + 1 :]
        rows = read(tmp_path / "metrics.jsonl") if name != "open" else []
        assert rows == [{"step": step} for step in range(len(rows))]
