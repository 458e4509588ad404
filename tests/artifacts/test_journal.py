import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.artifacts.journal import Journal, last_row, read
from fairlead.errors import ExitCode, UserError

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), FLOATS | st.text(max_size=9) | st.integers(-9, 9)), max_size=6)


@settings(max_examples=40)
@given(ROWS)
def test_rows_come_back_and_equal_rows_give_equal_bytes(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("journal")
    for name, order in (("a", 1), ("b", -1)):
        with Journal(folder / name) as journal:
            for row in rows:
                journal.append(dict(list(row.items())[::order]))
    assert read(folder / "a") == rows
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    assert [json.loads(line) for line in (folder / "a").read_text("utf-8").split("\n")[:-1]] == rows
    assert last_row(folder / "a") == (rows[-1] if rows else None)


def test_resume_truncates_to_the_recorded_length(tmp_path):
    path = tmp_path / "m.jsonl"
    with Journal(path) as journal:
        journal.append({"step": 1})
        recorded = journal.size_bytes
        journal.append({"step": 2})
    with Journal(path) as journal:
        journal.truncate(recorded)
        assert journal.size_bytes == recorded == path.stat().st_size
        journal.append({"step": 2, "again": True})
    assert read(path) == [{"step": 1}, {"step": 2, "again": True}]


def test_lost_lines_are_not_papered_over(tmp_path):
    with Journal(tmp_path / "m.jsonl") as journal:
        journal.append({"step": 1})
        with pytest.raises(UserError, match="lost lines: 11 bytes are left of 12") as caught:
            journal.truncate(12)
    assert caught.value.exit_code == ExitCode.BAD_DATA


@pytest.mark.parametrize("torn", [b'{"ste', b'{"step":2}', b"\x00" * 30])
def test_torn_last_line(tmp_path, torn):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step":1}\n' + torn)
    assert read(path) == [{"step": 1}]
    assert last_row(path) == {"step": 1}
    with Journal(path) as journal:
        journal.append({"step": 2})
    assert read(path) == [{"step": 1}, {"step": 2}]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step":1}\n{"st\n{"step":3}\n')
    with pytest.raises(UserError, match=r"m\.jsonl:2: not JSON") as caught:
        read(path)
    assert caught.value.exit_code == ExitCode.BAD_DATA


def test_non_finite_numbers_are_named_and_leave_no_trace(tmp_path):
    with Journal(tmp_path / "m.jsonl") as journal:
        with pytest.raises(ValueError, match=r"m\.jsonl: kl=nan"):
            journal.append({"kl": float("nan")})
        assert journal.size_bytes == 0


def test_last_row_looks_only_at_the_tail(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"text":"%s"}\n' % (b"x" * 1000) + b'{"step":7}\n')
    assert last_row(path, tail_bytes=64) == {"step": 7}
    assert last_row(tmp_path / "absent") is None
