"""The server is killed while people rank: what it has acknowledged is in the store, once, and nothing else twice."""

import http.client
import json
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from fairlead.feedback.accounts import add_key
from fairlead.feedback.comparisons import Answer, add_comparison
from fairlead.feedback.schema import rankings
from fairlead.records import Message

from .conftest import Person

SERVES = Path(__file__).parent / "serves.py"


class Annotator(threading.Thread):
    """Ranks one comparison again and again; a label that was not acknowledged is sent again under its key."""

    def __init__(self, port, key, name, comparison, over):
        super().__init__(daemon=True)
        self.person, self.name, self.comparison = Person(port, key=key), name, comparison
        self.over = over
        self.acknowledged, self.sent_again = {}, 0

    def run(self):
        step = 0
        while not self.over.is_set():
            label = f"{self.name}-{step:06}"
            ranks = dict(zip("12", random.sample((1, 2), 2), strict=True))
            body = {"outcome": "ranked", "ranks": ranks, "key": label}
            while True:
                try:
                    status, said, _ = self.person.ask("POST", f"/api/comparisons/{self.comparison}/rankings", body)
                except (OSError, http.client.HTTPException, json.JSONDecodeError):
                    self.sent_again += 1
                    time.sleep(0.02)
                    if self.over.is_set():
                        return
                    continue
                assert status in {201, 503}, said
                if status == 201:
                    break
            self.acknowledged[label] = ranks["1"]
            step += 1


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.timeout(1500)
def test_no_acknowledged_label_is_lost_or_doubled(address, store, people, kills):
    answers = [Answer("m", "one", {}), Answer("m", "two", {})]
    comparison = add_comparison(store, people["admin"], [Message("user", "q")], answers, wanted=9)
    port, over = free_port(), threading.Event()
    keys = [add_key(store, people[name], "k", ("label",))[1] for name in ("ann", "bob")]
    with store.read() as connection:
        before = connection.execute(select(func.count()).select_from(rankings)).scalar()
    crowd = [Annotator(port, key, f"writer-{n}", comparison, over) for n, key in enumerate(keys * 2)]
    chance = random.Random(7)
    for kill in range(kills):
        with subprocess.Popen([sys.executable, SERVES, address, str(port)], stdout=subprocess.PIPE) as server:
            server.stdout.readline()
            if not kill:
                for one in crowd:
                    one.start()
            time.sleep(chance.uniform(0.1, 0.6))
            server.kill()
    over.set()
    for one in crowd:
        one.join()
    with store.read() as connection:
        kept = list(
            connection.execute(select(rankings.c.key, rankings.c.ranks, rankings.c.shown).order_by(rankings.c.id))
        )
    said = {label: rank for one in crowd for label, rank in one.acknowledged.items()}
    found = {row.key: row.ranks[str(row.shown[0])] for row in kept}
    assert before == 0
    assert len(found) == len(kept)
    assert {label: found.get(label) for label in said} == said
    assert len(found) - len(said) <= len(crowd)  # at most the last of each, kept but not heard of
    assert len(said) > 5 * kills
    assert sum(one.sent_again for one in crowd) >= kills
