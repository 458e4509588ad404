import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import orjson
import psutil
import pytest

from fairlead.artifacts.lock import LOCK_NAME, Holder, holder, lock
from fairlead.errors import ExitCode, UserError

HOLD = "import sys, time, pathlib; from fairlead.artifacts.lock import lock\n"
HOLD += "with lock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def holding(tmp_path):
    """A living process that holds tmp_path."""
    env = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, env=env)
    assert child.stdout.readline() == b"held\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def record(folder, **changes):
    me = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-01T00:00:00+00:00"}
    me["process_started"] = psutil.Process().create_time()
    (folder / LOCK_NAME).write_bytes(orjson.dumps(me | changes))


def refuse(folder):
    with pytest.raises(UserError) as caught, lock(folder):
        pytest.fail("must not be held")
    assert caught.value.exit_code == ExitCode.RETRY
    return str(caught.value)


def test_lock_leaves_nothing_behind_and_makes_its_folder(tmp_path):
    with lock(tmp_path / "new" / "run") as left_by:
        assert left_by is None
        assert holder(tmp_path / "new" / "run").pid == os.getpid()
    assert list((tmp_path / "new" / "run").iterdir()) == []
    assert holder(tmp_path / "new" / "run") is None


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), lock(tmp_path):
        raise ZeroDivisionError
    with lock(tmp_path) as left_by:
        assert left_by is None


def test_second_process_is_refused_then_takes_over_after_kill_9(tmp_path, holding):
    message = refuse(tmp_path)
    assert f"{tmp_path} is in use by pid {holding.pid} on host {socket.gethostname()} since 20" in message
    assert holder(tmp_path).pid == holding.pid
    holding.send_signal(signal.SIGKILL)
    holding.wait()
    assert holder(tmp_path) is None
    with lock(tmp_path) as left_by:
        assert left_by.pid == holding.pid


def test_same_process_cannot_hold_twice(tmp_path):
    with lock(tmp_path):
        assert f"pid {os.getpid()}" in refuse(tmp_path)
        assert (tmp_path / LOCK_NAME).is_file()


def test_another_host_is_refused_and_the_fix_names_the_file(tmp_path):
    record(tmp_path, host="elsewhere", pid=1)
    message = refuse(tmp_path)
    assert "on host elsewhere" in message
    assert f"delete {tmp_path / LOCK_NAME}" in message
    assert (tmp_path / LOCK_NAME).is_file()


def test_a_later_process_with_the_same_number_is_not_the_holder(tmp_path):
    record(tmp_path, process_started=psutil.Process().create_time() - 100)
    with lock(tmp_path) as left_by:
        assert left_by.pid == os.getpid()


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"pid":1}'])
def test_a_record_that_was_never_finished_is_taken_over(tmp_path, text):
    (tmp_path / LOCK_NAME).write_bytes(text)
    with lock(tmp_path) as left_by:
        assert left_by is None


def test_without_flock_the_record_decides(tmp_path, holding, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert f"pid {holding.pid}" in refuse(tmp_path)
    holding.kill()
    holding.wait()
    with lock(tmp_path) as left_by:
        assert left_by.pid == holding.pid


def contend(folder: Path, until: float) -> int:
    """Take and leave the lock until the time is up; 1 when two were ever inside."""
    inside, held = folder.parent / "inside", 0
    while time.monotonic() < until:
        try:
            with lock(folder):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                inside.unlink()
                held += 1
        except FileExistsError:
            return 1
        except UserError:
            continue
    return 0 if held else 2


def test_never_two_at_once(tmp_path):
    children = []
    until = time.monotonic() + 1.0
    for _ in range(4):
        if (child := os.fork()) == 0:
            status = 3
            try:
                status = contend(tmp_path / "run", until)
            finally:
                os._exit(status)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0, 0, 0]


def test_holder_reads_as_a_sentence():
    assert str(Holder(123, "h", 0.0, "2026-01-01")) == "pid 123 on host h since 2026-01-01"
