import json
import os
import shutil

import pytest
from safetensors import SafetensorError

from fairlead.artifacts import atomic
from fairlead.errors import ExitCode, UserError


@pytest.fixture
def umask_027():
    before = os.umask(0o027)
    yield
    os.umask(before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_whole_file_with_the_mode_of_the_umask(tmp_path, umask_027):
    path = tmp_path / "deep" / "a.json"
    atomic.write_json(path, {"b": 1, "a": [2]})
    atomic.write_json(path, {"b": 2, "a": [2]})
    assert path.read_bytes() == b'{"a":[2],"b":2}\n'
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(path.parent) == ["a.json"]


def test_new_folder_appears_only_at_the_end(tmp_path, umask_027):
    final = tmp_path / "runs" / "model"
    with atomic.new_folder(final) as tmp:
        assert tmp.name.startswith("model.tmp-")
        (tmp / "sub").mkdir()
        (tmp / "sub" / "w").write_bytes(b"1")
        (tmp / "sub" / "w").chmod(0o600)  # as safetensors writes
        assert not final.exists()
    assert (final / "sub" / "w").read_bytes() == b"1"
    assert (final / "sub" / "w").stat().st_mode & 0o777 == 0o640
    assert names(final.parent) == ["model"]


def test_new_folder_vanishes_on_error(tmp_path):
    def interrupted():
        with atomic.new_folder(tmp_path / "model") as tmp:
            (tmp / "w").write_bytes(b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_existing_folder_is_replaced_only_when_asked(tmp_path):
    final = tmp_path / "model"
    with atomic.new_folder(final) as tmp:
        (tmp / "old").touch()
    with pytest.raises(UserError, match="exists already") as caught, atomic.new_folder(final):
        pytest.fail("must not begin")
    assert caught.value.exit_code == ExitCode.USAGE
    with atomic.new_folder(final, replace=True) as tmp:
        (tmp / "new").touch()
    assert names(final) == ["new"]
    assert names(tmp_path) == ["model"]


def test_failed_replacement_keeps_the_old_folder(tmp_path):
    final = tmp_path / "model"
    with atomic.new_folder(final) as tmp:
        (tmp / "old").touch()
    with pytest.raises(ZeroDivisionError), atomic.new_folder(final, replace=True):
        raise ZeroDivisionError
    assert names(final) == ["old"]


def test_sweep_deletes_leftovers_and_spares_the_living(tmp_path):
    (tmp_path / "run" / "checkpoints" / "step-000040.tmp-0123abcd").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-000040.tmp-0123abcd" / "w").write_bytes(b"half")
    (tmp_path / "run" / "manifest.json.tmp-deadbeef").write_bytes(b"{")
    (tmp_path / "run" / "notes.tmp-final").write_bytes(b"a user's own file")
    with atomic.new_folder(tmp_path / "run" / "model") as living:
        assert len(atomic.leftovers(tmp_path)) == 2
        removed = atomic.sweep(tmp_path)
        assert living.is_dir()
    assert [path.name for path in removed] == ["step-000040.tmp-0123abcd", "manifest.json.tmp-deadbeef"]
    assert names(tmp_path / "run") == ["checkpoints", "model", "notes.tmp-final"]
    assert atomic.sweep(tmp_path / "absent") == []


def test_sweep_puts_back_a_folder_that_was_moved_aside(tmp_path):
    (tmp_path / "model.old-00000000").mkdir()
    (tmp_path / "model.old-00000000" / "w").touch()
    (tmp_path / "model.tmp-00000001").mkdir()
    atomic.sweep(tmp_path)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["w"]
    (tmp_path / "model.old-00000002").mkdir()
    atomic.sweep(tmp_path)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["w"]


def test_require_space_says_needs_and_has(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 3_000_000, 3_000_000))
    with pytest.raises(UserError) as caught:
        atomic.require_space(tmp_path / "not" / "there", 676_666_667)
    assert f"disk full: needs 812 MB, has 3.0 MB at {tmp_path / 'not' / 'there'}" in str(caught.value)
    assert caught.value.exit_code == ExitCode.IO
    atomic.require_space(tmp_path, 2_500_000)  # 1.2 times is exactly what is there
    with pytest.raises(UserError):
        atomic.require_space(tmp_path, 2_500_001)
    with pytest.raises(UserError), atomic.new_folder(tmp_path / "model", num_bytes=10**8):
        pytest.fail("must not begin")
    assert names(tmp_path) == []


def test_a_file_in_the_way_is_explained(tmp_path):
    (tmp_path / "runs").write_text("I am a file")
    for write in (
        lambda: atomic.write_text(tmp_path / "runs" / "a", ""),
        lambda: atomic.new_folder(tmp_path / "runs" / "demo" / "model").__enter__(),
    ):
        with pytest.raises(UserError, match="a file is in the way") as caught:
            write()
        assert caught.value.exit_code == ExitCode.IO


def test_errors_of_rust_writers_are_explained(tmp_path):
    explained = atomic.explain_disk_errors(tmp_path, 2000)
    with pytest.raises(UserError, match=r"disk full: needs 2\.0 KB, has ") as caught, explained:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert caught.value.exit_code == ExitCode.IO
    with pytest.raises(SafetensorError), atomic.explain_disk_errors(tmp_path):
        raise SafetensorError("invalid shape")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(json.JSONDecodeError), atomic.explain_disk_errors(tmp_path):
        json.loads("{")
    with pytest.raises(FileNotFoundError), atomic.explain_disk_errors(tmp_path):
        (tmp_path / "absent").read_bytes()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 KB"), (812e6, "812 MB"), (3.25e9, "3.2 GB"), (2e12, "2.0 TB")],
)
def test_size_text(num_bytes, text):
    assert atomic.size_text(num_bytes) == text
