"""Many clients at once, clients that go, and clients that dawdle; bench/serve.py has the larger numbers."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from fairlead.serve.app import Server
from fairlead.serve.models import Echo
from serve.conftest import running
from serve.test_client import wait_until

LOAD = Path(__file__).parents[2] / "bench" / "load.py"
WORDS = "a few words"


@pytest.fixture
def start():
    begun = []

    def started(**options):
        begun.append(running(Server({"echo": Echo()}, **options)))
        return begun[-1]

    yield started
    for site in begun:
        site.end()


def load(site, words=WORDS, **options):
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": words}]}
    asked = json.dumps({"port": site.port, "bodies": [body], **options})
    done = subprocess.run(
        [sys.executable, str(LOAD)], input=asked, capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def tasks_of(site):
    return len(asyncio.all_tasks(site.web.servers[0].get_loop()))


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_kib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_each_of_many_streams_is_whole_or_told_to_come_back(start):
    site = start(max_running=16, max_waiting=100)
    found = load(site, clients=300)
    assert set(found["statuses"]) <= {"200", "429"}
    assert sum(found["statuses"].values()) == 300
    assert len(found["answers"]) == found["statuses"]["200"] >= 100
    assert all(one["done"] and one["pieces"] == len(WORDS) for one in found["answers"])


def test_who_goes_in_mid_stream_leaves_nothing_behind(start):
    """Long before the answers would have ended: 64 of 200,000 tokens."""
    site = start()
    site.server.models["echo"].context_tokens = 1 << 20
    load(site, clients=4)
    files, tasks = open_files(), tasks_of(site)
    assert load(site, "x" * 200_000, clients=64, leave=True)["statuses"] == {"200": 64}
    wait_until(lambda: site.server.gate.running == 0 and site.server.models["echo"].running == 0)
    wait_until(lambda: tasks_of(site) <= tasks and open_files() <= files)


def test_memory_does_not_grow_with_requests(start):
    site = start()
    load(site, clients=20, requests=25)
    before = resident_kib()
    load(site, clients=20, requests=50)
    assert resident_kib() - before < 4096


def test_headers_that_come_byte_by_byte_hurt_nobody_else(start):
    """Alone and beside 100 such connections, in turns."""
    site = start()
    load(site, clients=2, requests=10)
    alone, beside = [], []
    for _ in range(3):
        for times, slow in ((alone, 0), (beside, 100)):
            times += [one["whole"] for one in load(site, clients=2, requests=10, slow=slow)["answers"]]
    assert len(beside) == 60
    assert median(beside) < 5 * median(alone)
