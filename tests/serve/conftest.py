"""A server in a thread of the tests: an echo, a slow echo, and a tiny model on the engine."""

import threading
import time
from types import SimpleNamespace

import openai
import pytest

from fairlead.config.common import RuntimeConfig
from fairlead.models.sources import resolve
from fairlead.runtime.start import start
from fairlead.serve.app import Server
from fairlead.serve.guards import Guards
from fairlead.serve.load import LoadedModels
from fairlead.serve.models import Echo
from fairlead.serve.run import bound, server_of


def running(server, *, pages=None, **guards):
    """The address of a server, and how to end it."""
    sock = bound("127.0.0.1", 0)
    web = server_of(Guards(server.app(pages), pages=pages, **guards))
    thread = threading.Thread(target=web.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not web.started:
        time.sleep(0.01)
    port = sock.getsockname()[1]

    def end():
        web.should_exit = True
        thread.join()

    return SimpleNamespace(address=f"http://127.0.0.1:{port}", port=port, end=end, server=server, web=web)


@pytest.fixture(scope="session")
def model(tiny):
    """A tiny random model on the engine."""
    runtime = start(RuntimeConfig(device="cpu", dtype="float32"))
    loaded = LoadedModels({"tiny": resolve(str(tiny("llama")))}, runtime)
    yield loaded.policies["tiny"]
    loaded.close()


@pytest.fixture(scope="session")
def site(model):
    """A server of all three."""
    models = {"echo": Echo(), "slow": Echo(seconds_per_token=0.05), "tiny": model}
    found = running(Server(models), hosts=("127.0.0.1", "localhost"))
    yield found
    found.end()


@pytest.fixture(scope="session")
def client(site):
    """The official client."""
    return openai.OpenAI(base_url=f"{site.address}/v1", api_key="none", max_retries=0)
