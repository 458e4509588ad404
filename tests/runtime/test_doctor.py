"""What `fairlead doctor` says of a machine that is too small."""

from types import SimpleNamespace

import pytest

from fairlead.runtime import doctor


@pytest.mark.parametrize(("free", "problem"), [(5.0e9, "the demo wants 6 GiB"), (6.5e9, "")])
def test_memory_for_the_demo(monkeypatch, tmp_path, free, problem):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=free, total=8e9))
    (found,) = (one for one in doctor.examine(tmp_path, tmp_path) if one.name == "memory")
    assert found.problem == problem
