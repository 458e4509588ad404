"""A site over a fresh store: an administrator, annotators, a viewer; echoes to talk to."""

import http.client
import json
from dataclasses import dataclass, field

import pytest

from fairlead.feedback.accounts import add_key, add_user, open_session, revoke_key
from fairlead.serve.app import Server
from fairlead.serve.models import Echo
from fairlead.web.accounts import Link
from fairlead.web.entrance import COOKIE, csrf_of
from fairlead.web.site import Site
from feedback.conftest import address, new_address, people, postgres, quick_hashes, store  # noqa: F401 - fixtures
from serve.conftest import running

PASSWORD = "correct horse battery"  # noqa: S105
ROLES = {"admin": "admin", "annotator": "annotator", "other": "annotator", "viewer": "viewer"}


@dataclass
class Person:
    """A client with somebody's session, or a key, or neither."""

    port: int
    token: str = ""
    key: str = ""
    extra: dict = field(default_factory=dict)

    def ask(self, method, path, body=None, **headers):
        """Status, JSON or text, headers."""
        headers = {"content-type": "application/json"} | self.extra | headers
        if self.token:
            headers = {"cookie": f"{COOKIE}={self.token}", "x-csrf-token": csrf_of(self.token)} | headers
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if isinstance(body, str) else None if body is None else json.dumps(body)
        if data is None and method not in {"GET", "HEAD"}:
            data = "{}"
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(raw) if is_json else raw.decode(), answer.headers

    def get(self, path):
        """What is there."""
        status, said, _ = self.ask("GET", path)
        assert status == 200, said
        return said

    def post(self, path, **body):
        """What was answered to it."""
        status, said, _ = self.ask("POST", path, body)
        assert status in {200, 201}, said
        return said

    def code(self, method, path, body=None, **headers):
        """Status and code of what is refused."""
        status, said, _ = self.ask(method, path, body, **headers)
        return status, said["error"]["code"]


@dataclass
class Place:
    """A running site with its people."""

    store: object
    port: int
    address: str
    link: str
    server: Server
    people: dict
    users: dict


@pytest.fixture
def place(store):  # noqa: F811
    """A site on SQLite, and one on PostgreSQL where that is installed."""
    yield from site_over(store)


def site_over(store, **guards):  # noqa: F811
    """A site over a store, running until the test is over."""
    users = {name: add_user(store, name, role, PASSWORD) for name, role in ROLES.items()}
    server, link = Server({"echo": Echo(), "slow": Echo(seconds_per_token=0.02)}), Link()
    site = Site(store, server, list(server.models), link=link, refused=server.metrics.refuse)
    found = running(server, pages=site, hosts=("127.0.0.1", "localhost"), **guards)
    clients = {name: Person(found.port, token=open_session(store, user)) for name, user in users.items()}
    number, key = add_key(store, users["annotator"], "program", ("generate", "label"))
    clients["key"] = Person(found.port, key=key)
    number, key = add_key(store, users["annotator"], "lost", ("generate", "label"))
    revoke_key(store, users["annotator"], number)
    clients |= {"revoked": Person(found.port, key=key), "nobody": Person(found.port)}
    yield Place(store, found.port, found.address, link.token, server, clients, users)
    found.end()
