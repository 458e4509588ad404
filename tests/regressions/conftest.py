"""One tiny model with its rows for all tests of this folder."""

import pytest

from tiny_stages import TinyWorld


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return TinyWorld(tmp_path_factory.mktemp("world"))
