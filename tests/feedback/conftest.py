"""Every test of the store runs on a file of SQLite and, where PostgreSQL is installed, on a real server of it."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from fairlead.feedback import accounts
from fairlead.feedback.accounts import add_user, first_admin
from fairlead.feedback.store import open_store

NUMBERS = count()
PASSWORD = "correct horse battery"  # noqa: S105


def _unprivileged():
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return {}
    return {"user": next((name for name in ("postgres", "nobody") if _exists(name)), None), "group": None}


def _exists(name):
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


@pytest.fixture(scope="session")
def postgres():
    """A server's address; None where PostgreSQL is not installed."""
    if not all(map(shutil.which, ("initdb", "pg_ctl", "postgres"))):
        yield None
        return
    who = {name: value for name, value in _unprivileged().items() if value}
    folder = Path(tempfile.mkdtemp(prefix="fairlead-pg-"))
    if who:
        shutil.chown(folder, who["user"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, options = str(folder / "data"), f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}"

    def run(*words):
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)

    run("initdb", "-D", data, "-U", "fairlead", "-A", "trust", "-E", "UTF8", "--locale=C")
    run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://fairlead@127.0.0.1:{port}"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_address(request, tmp_path):
    """Makes addresses of stores that do not exist yet."""
    server = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    if request.param == "postgresql" and server is None:
        pytest.skip("PostgreSQL is not installed")

    def new():
        name = f"store{next(NUMBERS)}"
        if server is None:
            return str(tmp_path / f"{name}.db")
        import pg8000.dbapi

        address = server.rpartition("@")[2]
        host, _, port = address.partition(":")
        connection = pg8000.dbapi.connect("fairlead", host=host, port=int(port), database="postgres")
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"{server}/{name}"

    return new


@pytest.fixture
def address(new_address):
    return new_address()


@pytest.fixture
def store(address):
    opened = open_store(address, create=True)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch):
    """argon2id of little memory; its real cost is not what these tests are about."""
    monkeypatch.setattr(accounts, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def people(store):
    """An admin, two annotators and a viewer."""
    admin, _ = first_admin(store)
    roles = {"ann": "annotator", "bob": "annotator", "vera": "viewer"}
    return {"admin": admin} | {name: add_user(store, name, role, PASSWORD, by=admin) for name, role in roles.items()}
