"""What stands before the routes: keys, hosts, sizes, time; and the gate."""

import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fairlead.serve import guards, run
from fairlead.serve.app import Server
from fairlead.serve.models import Echo
from serve.conftest import running

BODY = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "hi"}]})
JSON = {"content-type": "application/json"}


@pytest.fixture
def start():
    """Starts servers of an echo, and ends them."""
    begun = []

    def started(models=None, *, server=None, **options):
        begun.append(running(server or Server(models or {"echo": Echo()}), **options))
        return begun[-1]

    yield started
    for site in begun:
        site.end()


def ask(site, method="POST", path="/v1/chat/completions", body=BODY, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request(method, path, body if method == "POST" else None, JSON | (headers or {}))
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return answer.status, json.loads(raw) if raw.startswith(b"{") else raw.decode(), answer.headers


def code(site, **options):
    status, said, _ = ask(site, **options)
    return status, said["error"]["code"]


def test_a_key_opens_and_another_does_not(start):
    site = start(keys=("s3cret",))
    assert ask(site, headers={"authorization": "Bearer s3cret"})[0] == 200
    for given in (
        {},
        {"authorization": "Bearer s3cre"},
        {"authorization": "Basic s3cret"},
        {"authorization": "Bearer "},
    ):
        status, said, headers = ask(site, headers=given)
        assert (status, said["error"]["code"], headers["WWW-Authenticate"]) == (401, "invalid_api_key", "Bearer")
    assert ask(site, "GET", "/health")[0] == 200
    assert ask(site, "GET", "/metrics")[0] == 401


def test_too_many_wrong_keys_are_locked_out(start):
    site = start(keys=("s3cret",))
    wrong = [{"authorization": f"Bearer {number}", "x-forwarded-for": f"10.0.0.{number}"} for number in range(12)]
    codes = [ask(site, headers=headers)[0] for headers in wrong]
    assert codes == [401] * 10 + [429] * 2
    status, _, headers = ask(site, headers={"authorization": "Bearer s3cret"})
    assert (status, headers["Retry-After"]) == (429, "60")


def test_other_names_and_other_sites_are_refused(start):
    site = start(hosts=("127.0.0.1", "localhost"))
    assert ask(site, headers={"host": "localhost:1"})[0] == 200
    assert ask(site, headers={"origin": f"http://127.0.0.1:{site.port}"})[0] == 200
    assert code(site, headers={"host": "evil.example"}) == (403, "wrong_host")
    assert code(site, headers={"origin": "http://evil.example"}) == (403, "wrong_origin")
    assert code(site, headers={"origin": "null"}) == (403, "wrong_origin")
    assert code(site, headers={"host": "[::1"}) == (403, "wrong_host")
    assert code(site, headers={"origin": "http://[x"}) == (403, "wrong_origin")


@pytest.mark.parametrize(("body", "headers", "expected"), [
    ("{", {}, (400, "invalid_json")), ("[]", {}, (400, "invalid_value")), ("", {}, (400, "invalid_json")),
    (b"\xff\xfe", {}, (400, "invalid_json")), ("[" * 5000, {}, (400, "invalid_value")),
    (BODY.replace('"hi"', "NaN"), {}, (400, "invalid_json")),
    (BODY[:-1] + ', "temperature": NaN}', {}, (400, "invalid_json")),
    (BODY, {"content-type": "text/plain"}, (415, "unsupported_media_type")),
    (BODY, {f"x-{number}": "1" for number in range(1000)}, (431, "headers_too_large")),
    (BODY, {"x": "y" * 40_000}, (431, "headers_too_large")),
    ("x" * (guards.MAX_BODY_BYTES + 1), {}, (413, "request_too_large")),
])  # fmt: skip
def test_what_is_no_request_is_refused(start, body, headers, expected):
    assert code(start(), body=body, headers=headers) == expected


def test_who_sends_too_much_sees_the_answer(start):
    """Ten megabytes, with their length in front or in pieces; the connection is not reset under them."""
    site = start()
    for _ in range(5):
        assert code(site, body="x" * 10_000_000) == (413, "request_too_large")
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        pieces = (b"x" * 100_000 for _ in range(100))
        connection.request("POST", "/v1/chat/completions", pieces, JSON, encode_chunked=True)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "request_too_large")
        connection.close()


def test_nothing_else_is_there(start):
    site = start()
    assert code(site, method="GET", path="/v1/chat/completions") == (405, "not_found")
    for path in ("/", "/docs", "/v1/files", "/v1/models/none", "/../etc/passwd"):
        assert ask(site, "GET", path)[0] == 404


def test_more_than_may_wait_are_told_to_come_back(start):
    server = Server({"echo": Echo(seconds_per_token=0.2)}, max_running=2, max_waiting=3)
    site = start(server=server)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: ask(site), range(12)))
    statuses = sorted(status for status, *_ in answers)
    assert statuses.count(200) >= 5
    assert set(statuses) == {200, 429}
    assert all(headers["Retry-After"] == "1" for status, _, headers in answers if status == 429)
    assert (server.gate.running, server.gate.waiting) == (0, 0)


def raw(site, data):
    sock = socket.create_connection(("127.0.0.1", site.port))
    sock.sendall(data)
    return sock


def closed_after(sock):
    began = time.monotonic()
    sock.settimeout(20)
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return time.monotonic() - began, data


def test_headers_that_do_not_come_are_not_waited_for(start, monkeypatch):
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.5)
    site = start()
    for begun in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"):
        seconds, data = closed_after(raw(site, begun))
        assert 0.3 < seconds < 5
        assert b" 408 " in data


def test_headers_without_end_are_cut_off(start):
    site = start()
    sock = raw(site, b"GET /health HTTP/1.1\r\n" + b"x: " + b"y" * 100_000)
    assert b" 431 " in closed_after(sock)[1]


def test_a_body_that_does_not_come_is_not_waited_for(start, monkeypatch):
    monkeypatch.setattr(guards, "IDLE_SECONDS", 0.5)
    site = start()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 100\r\n\r\n{"
    )
    seconds, data = closed_after(raw(site, head))
    assert 0.3 < seconds < 10
    assert b" 408 " in data


def test_a_length_and_chunks_are_not_believed_both(start):
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    _, data = closed_after(raw(start(), head))
    assert b" 400 " in data.split(b"\r\n")[0]


def test_figures(start):
    site = start()
    ask(site)
    ask(site, body="{")
    text = ask(site, "GET", "/metrics")[1]
    assert 'vllm:prompt_tokens_total{model_name="echo"} 2.0' in text
    assert 'vllm:generation_tokens_total{model_name="echo"} 3.0' in text
    assert 'vllm:request_success_total{finished_reason="stop",model_name="echo"} 1.0' in text
    assert 'fairlead:requests_refused_total{status="400"} 1.0' in text
    assert 'vllm:time_to_first_token_seconds_count{model_name="echo"} 1.0' in text
    assert "vllm:num_requests_running 0.0" in text


class Broken(Echo):
    async def generate(self, ask):
        yield await anext(super().generate(ask))
        raise OSError("/secret/path")


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_tells_nothing_of_us(start, stream, caplog):
    site = start({"echo": Broken()})
    status, said, _ = ask(site, body=BODY[:-1] + f', "stream": {str(stream).lower()}}}')
    assert status == (200 if stream else 500)
    assert "secret" not in str(said)
    assert "server_error" in str(said)
    assert "secret/path" in caplog.text
    assert ask(site, "GET", "/v1/models")[0] == 200


class Dead(Echo):
    async def generate(self, ask):
        raise RuntimeError("gone")
        yield


def test_health_says_a_token(start):
    assert ask(start(), "GET", "/health")[:2] == (200, {"status": "ok"})
    status, said, _ = ask(start({"echo": Echo(), "dead": Dead()}), "GET", "/health")
    assert (status, said["error"]["code"]) == (503, "unhealthy")


def test_the_document_names_every_route(start):
    site = start()
    document = ask(site, "GET", "/openapi.json")[1]
    assert set(document["paths"]) == {route.path.replace(":path", "") for route in site.server.app().routes}
    assert set(document["components"]["schemas"]["ChatRequest"]["properties"]) >= {"model", "messages", "seed", "top_k"}
    assert document["components"]["schemas"]["ChatRequest"]["additionalProperties"] is False


def test_health_looks_once_however_many_ask(start):
    echo, looked = Echo(), []
    encode = echo.encode_text
    echo.encode_text = lambda text: looked.append(text) or encode(text)
    site = start({"echo": echo})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(site, "GET", "/health")[0], range(8)))
    assert answers == [200] * 8
    assert len(looked) == 1
