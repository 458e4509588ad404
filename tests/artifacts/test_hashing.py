import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.artifacts.hashing import (
    canonical_json,
    files_in,
    open_sealed_json,
    sealed_json,
    sha256_file,
    sha256_folder,
    sha256_json,
)
from fairlead.errors import ExitCode, UserError

LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3))


@given(VALUES)
def test_canonical_json_is_what_the_standard_library_says(value):
    # orjson sorts keys by UTF-8 bytes and Python by code points: the same order
    expected = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert json.loads(canonical_json(value)) == value
    if "\x7f" not in expected and "\\u" not in expected:  # the two escape control characters differently
        assert canonical_json(value) == expected.encode()


@pytest.mark.parametrize(
    ("value", "field"),
    [({"a": {"b": [1.0, float("nan")]}}, "a.b[1]=nan"), ({"loss": float("inf")}, "loss=inf"), (float("nan"), "value")],
)
def test_numbers_that_json_lacks_are_refused_by_name(value, field):
    with pytest.raises(ValueError, match="not a finite number") as caught:
        canonical_json(value)
    assert field in str(caught.value)


def test_known_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_json({"b": 1, "a": 2}) == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()


def test_folder_digest_sees_names_bytes_and_depth_but_not_hidden_files(tmp_path):
    def folder(name, files):
        for file, text in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sha256_folder(tmp_path / name)

    same = folder("one", {"a": "1", "sub/b": "2"})
    assert folder("two", {"sub/b": "2", "a": "1", ".cache/clock": "9", ".gitattributes": ""}) == same
    others = [{"a": "2", "sub/b": "1"}, {"a": "1", "sub.b": "2"}, {"a": "1"}, {"a": "1", "sub/b": "2", "c": ""}]
    digests = {folder(f"other{index}", files) for index, files in enumerate(others)}
    assert len(digests) == len(others)
    assert same not in digests


def test_links_to_files_are_followed_and_links_to_folders_refused(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "blob").write_text("x")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "w").symlink_to(tmp_path / "store" / "blob")
    assert files_in(snapshot) == ["w"]
    (snapshot / "linked").symlink_to(tmp_path / "store")
    with pytest.raises(UserError, match="a link to a folder") as caught:
        files_in(snapshot)
    assert caught.value.exit_code == ExitCode.BAD_DATA


def test_every_flipped_bit_of_a_sealed_file_is_found(tmp_path):
    path = tmp_path / "m.json"
    raw = sealed_json({"step": 40, "lr": 1e-05, "files": {"w": {"sha256": "ab" * 32}}, "text": "é \n"})
    path.write_bytes(raw)
    assert open_sealed_json(path) == {"step": 40, "lr": 1e-05, "files": {"w": {"sha256": "ab" * 32}}, "text": "é \n"}
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(UserError) as caught:
            open_sealed_json(path)
        assert caught.value.exit_code == ExitCode.BAD_DATA


@given(st.integers(1, 400))
def test_every_cut_of_a_sealed_file_is_found(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "m.json"
    raw = sealed_json({"files": {str(index): index for index in range(30)}})
    path.write_bytes(raw[: -min(length, len(raw))])
    with pytest.raises(UserError):
        open_sealed_json(path)
