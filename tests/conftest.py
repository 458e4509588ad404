"""Shape checks at run time, one thread, and hypothesis without a clock. Runs before any test module is imported."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Test modules write `from oracles import ...`, whatever folder pytest was started in.
sys.path.insert(0, str(Path(__file__).parent))

# The numeric tower: an int is a float, as every type checker has it.
install_import_hook(
    ["fairlead.algos", "fairlead.generate.sampling"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

torch.set_num_threads(1)

settings.register_profile("fairlead", deadline=None, print_blob=True)
settings.load_profile("fairlead")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny random model of a family (tests/tiny.py), made once per session."""
    from tiny import tiny_model

    folder = tmp_path_factory.mktemp("models")
    return cache(lambda family: tiny_model(folder / family, family))
