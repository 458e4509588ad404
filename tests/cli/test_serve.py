"""`fairlead serve` as a user meets it: names, keys, addresses, a real server and its end."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import openai
import pytest
from sqlalchemy import select

from fairlead.cli.main import run
from fairlead.cli.preflight import check_serve
from fairlead.config.serve import ServeConfig
from fairlead.errors import ExitCode, UserError
from fairlead.feedback.accounts import first_admin
from fairlead.feedback.schema import messages
from fairlead.feedback.store import open_store
from fairlead.serve import run as run_module
from fairlead.serve.app import Server
from tiny import tiny_model

JSON = {"content-type": "application/json"}
SHORT_END = """
import sys
from fairlead.cli.main import main
from fairlead.serve import models, run
run.END_SECONDS = 1
models.Echo.seconds_per_token = 0.01
models.Echo.__init__.__defaults__ = ("echo", 4096, 0.01, 0)
sys.exit(main())
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    tiny_model(folder / "tiny")
    return folder


def test_a_server_from_start_to_end(home):
    """Two names for one model, a key, a free port; Ctrl-C ends it in order."""
    command = [sys.executable, "-m", "fairlead", "serve", "tiny", "mine=tiny", "--port", "0", "--echo", "true"]
    key = {"FAIRLEAD_TEST_KEY": "s3cret", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [*command, "--api-key-variable", "FAIRLEAD_TEST_KEY"],
        cwd=home,
        stdout=subprocess.PIPE,
        text=True,
        env=key,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell may have it ignored
    )
    try:
        told = server.stdout.readline()
        address = re.search(r"at (http://127\.0\.0\.1:\d+)/v1", told)[1]
        assert told.startswith("tiny, mine, echo at ")
        link, made, kept = (server.stdout.readline().strip() for _ in range(3))
        token = re.search(rf"{address}/#/open/(\S+), a link that opens once", link)[1]
        assert re.fullmatch(r"the account admin was made; its password, shown only now: \S{20}", made)
        assert kept == "what is said there is kept in feedback.db"
        opening = urllib.request.Request(f"{address}/api/open", json.dumps({"token": token}).encode(), JSON)  # noqa: S310
        with urllib.request.urlopen(opening) as answer:  # noqa: S310
            assert json.load(answer)["models"] == ["tiny", "mine", "echo"]
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="s3cret", max_retries=0)
        assert [one.id for one in client.models.list()] == ["tiny", "mine", "echo"]
        options = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 8}
        said = [client.chat.completions.create(model=name, **options) for name in ("tiny", "mine")]
        assert said[0].choices[0].message.content == said[1].choices[0].message.content
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="other").models.list()
        with urllib.request.urlopen(f"{address}/health") as answer:  # noqa: S310
            assert answer.status == 200
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(timeout=60)
    assert code == ExitCode.INTERRUPTED


def test_a_server_that_is_told_to_end_keeps_what_was_being_said(home):
    """SIGTERM in the middle of an answer: what was said is in the store, which is closed in order."""
    words = ["--port", "0", "--models", "[]", "--echo", "true", "store=ended.db"]
    command = [sys.executable, "-c", SHORT_END, "serve", *words]
    server = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin"})
    try:
        address = re.search(r"(http://127\.0\.0\.1:\d+)/v1", server.stdout.readline())[1]
        token = re.search(r"#/open/(\S+),", server.stdout.readline())[1]
        headers = dict(JSON)

        def ask(path, body):
            asked = urllib.request.Request(f"{address}{path}", json.dumps(body).encode(), headers)  # noqa: S310
            return urllib.request.urlopen(asked)  # noqa: S310

        with ask("/api/open", {"token": token}) as answer:
            headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]
            headers["x-csrf-token"] = json.load(answer)["csrf"]
        chat = json.load(ask("/api/chats", {"title": "t"}))["id"]
        question = json.load(ask(f"/api/chats/{chat}/messages", {"role": "user", "content": "x" * 2000}))["id"]
        stream = ask(
            f"/api/chats/{chat}/answers", {"parent": question, "model": "echo", "sampling": {"max_tokens": 2000}}
        )
        stream.read(100)
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=60)
    finally:
        server.kill()
    assert code == ExitCode.TERMINATED
    assert not (home / "ended.db-open").exists()
    store = open_store(str(home / "ended.db"))
    with store.read() as connection:
        said = connection.execute(select(messages).where(messages.c.role == "assistant")).mappings().one()
    store.close()
    assert said["details"]["finish"] == "stopped"
    assert 0 < len(said["content"]) < 2000


@pytest.fixture
def listened(monkeypatch):
    """What the server would have been started with."""
    heard = {}
    monkeypatch.setattr(run_module, "serve", lambda app, **options: heard.update(options))
    made = []

    class Recorded(Server):
        def __init__(self, models, scorers, **options):
            super().__init__(models, scorers, **options)
            made.append((sorted(models), options))

    monkeypatch.setattr("fairlead.serve.app.Server", Recorded)

    def started(*words):
        assert run(["serve", *words]) == 0
        return {**heard, "models": made[-1][0], **made[-1][1]}

    return started


def test_an_option_is_seen(home, listened, monkeypatch):
    monkeypatch.chdir(home)
    plain = listened("tiny")
    assert (plain["host"], plain["port"], plain["keys"], plain["models"]) == ("127.0.0.1", 8000, [], ["tiny"])
    assert plain["pages"].owns("/api/me")
    assert (home / "feedback.db").exists()
    words = ["--port", "9000", "--host", "::1", "--allowed-hosts", "a.example", "--max-running", "3"]
    words += ["--max-waiting", "0"]
    other = listened("models=a=tiny", "--echo", "true", *words)
    assert (other["host"], other["port"], other["hosts"]) == ("::1", 9000, ("a.example",))
    assert (other["models"], other["max_running"], other["max_waiting"]) == (["a", "echo"], 3, 0)
    assert listened("models=", "store=labels.db")["models"] == []
    assert (home / "labels.db").exists()
    assert listened("tiny", "store=")["pages"] is None


def test_names(home, monkeypatch):
    monkeypatch.chdir(home)
    assert check_serve(ServeConfig(models=("tiny", "b=tiny"))) == {"tiny": "tiny", "b": "tiny"}
    for models, echo in ((("tiny", "tiny"), False), (("echo=tiny",), True)):
        with pytest.raises(UserError, match="one name"):
            check_serve(ServeConfig(models=models, echo=echo))


@pytest.mark.parametrize(("words", "code", "said"), [
    (["none"], ExitCode.MISSING_INPUT, "none"),
    (["tiny", "store=no/folder/f.db"], ExitCode.MISSING_INPUT, "no/folder/f.db: its folder is not there"),
    (["tiny", "--port", "99999"], ExitCode.USAGE, "port"),
    (["tiny", "--api-key-variable", "NOT_SET_AT_ALL"], ExitCode.USAGE, "NOT_SET_AT_ALL"),
    (["tiny", "--host", "::"], ExitCode.USAGE, "there is no key"),
    (["tiny", "--prot", "1"], ExitCode.USAGE, "did you mean port"),
])  # fmt: skip
def test_what_cannot_be_served_is_refused(home, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(home)
    assert run(["serve", *words]) == code
    assert said in capsys.readouterr().err


def test_an_address_that_is_taken(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    sock = run_module.bound("127.0.0.1", 0)
    sock.listen()
    assert run(["serve", "tiny", "--port", str(sock.getsockname()[1]), "store=never.db"]) == ExitCode.RETRY
    assert "cannot be taken" in capsys.readouterr().err
    sock.close()
    store = open_store("never.db", create=True)
    assert first_admin(store) is not None  # nobody's password was made and not shown
    store.close()
