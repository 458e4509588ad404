"""Every route of the OpenAPI document, tried by everybody. Who may do what is said here once more, by hand."""

import itertools

import pytest

from fairlead.feedback.accounts import add_key, open_session
from fairlead.feedback.comparisons import Answer, add_comparison
from fairlead.feedback.store import open_store
from fairlead.records import Message

from .conftest import PASSWORD, Person, site_over
from .test_site import a_chat, answered

EVERYBODY = {"nobody", "revoked", "viewer", "annotator", "other", "admin", "key"}
KNOWN = EVERYBODY - {"nobody", "revoked"}
LABELLERS = KNOWN - {"viewer"}
READERS = {"viewer", "admin"}
MAY = {
    ("POST", "/v1/chat/completions"): EVERYBODY,
    ("POST", "/v1/completions"): EVERYBODY,
    ("POST", "/v1/score"): EVERYBODY,
    ("GET", "/v1/models"): EVERYBODY,
    ("GET", "/v1/models/{name}"): EVERYBODY,
    ("GET", "/health"): EVERYBODY,
    ("GET", "/metrics"): EVERYBODY,
    ("GET", "/openapi.json"): EVERYBODY,
    ("POST", "/api/login"): EVERYBODY,
    ("POST", "/api/open"): EVERYBODY,
    ("POST", "/api/logout"): KNOWN,
    ("GET", "/api/me"): KNOWN,
    ("POST", "/api/password"): KNOWN - {"key"},
    ("GET", "/api/users"): {"admin"},
    ("POST", "/api/users"): {"admin"},
    ("DELETE", "/api/users/{number}"): {"admin"},
    ("GET", "/api/audit"): {"admin"},
    ("GET", "/api/keys"): KNOWN - {"key"},
    ("POST", "/api/keys"): KNOWN - {"key"},
    ("DELETE", "/api/keys/{number}"): KNOWN - {"key"},
    ("GET", "/api/chats"): KNOWN,
    ("POST", "/api/chats"): KNOWN,
    ("GET", "/api/chats/{number}"): KNOWN,
    ("PATCH", "/api/chats/{number}"): KNOWN,
    ("DELETE", "/api/chats/{number}"): KNOWN,
    ("POST", "/api/chats/{number}/messages"): KNOWN,
    ("POST", "/api/chats/{number}/answers"): KNOWN,
    ("POST", "/api/messages/{number}/opinions"): LABELLERS,
    ("POST", "/api/messages/{number}/edits"): LABELLERS,
    ("GET", "/api/tasks/next"): LABELLERS,
    ("POST", "/api/comparisons"): LABELLERS,
    ("GET", "/api/comparisons/{number}"): LABELLERS,
    ("POST", "/api/comparisons/{number}/rankings"): LABELLERS,
    ("GET", "/api/rankings"): LABELLERS,
    ("GET", "/api/progress"): LABELLERS,
    ("GET", "/api/agreement"): READERS,
    ("GET", "/api/arena"): READERS,
}
COMES_OF_IT = {
    "/v1/score": {400},  # an echo judges nothing
    "/api/open": {401, 429},  # a wrong link, and one too many
    "/api/password": {401, 429},  # a wrong password
    "/api/login": {200, 429},  # the wrong links before count against this address
}
OF_THE_ANNOTATOR = "/api/chats/{number} /api/messages/{number} /api/comparisons/{number}"  # others do not find them
ALSO_THEIRS = {"annotator", "key"}  # the key is the annotator's
WITH_A_KEY_OF_THE_SERVER = {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{name}", "/metrics",
                            "/openapi.json"}  # fmt: skip
_keys = (f"key-{number:05}" for number in itertools.count())


def body(method, path, things):
    """What this route takes."""
    said = [{"role": "user", "content": "hi"}]
    bodies = {
        "/v1/chat/completions": {"model": "echo", "messages": said},
        "/v1/completions": {"model": "echo", "prompt": "hi"},
        "/v1/score": {"model": "echo", "messages": [[*said, {"role": "assistant", "content": "ho"}]]},
        "/api/login": {"name": "annotator", "password": PASSWORD},
        "/api/open": {"token": "none"},
        "/api/logout": {},
        "/api/password": {"password": "wrong", "new_password": "another password"},
        "/api/users": {"name": next(_keys), "role": "viewer"},
        "/api/keys": {"name": "k", "scopes": ["generate"]},
        "/api/chats": {"title": "t"},
        "/api/chats/{number}": {"title": "t"},
        "/api/chats/{number}/messages": {"role": "user", "content": "hi"},
        "/api/chats/{number}/answers": {"parent": things["question"], "model": "echo"},
        "/api/messages/{number}/opinions": {"thumb": 1, "key": next(_keys)},
        "/api/messages/{number}/edits": {"content": "c", "key": next(_keys)},
        "/api/comparisons": {"prompt": said, "models": ["echo", "echo"], "key": next(_keys)},
        "/api/comparisons/{number}/rankings": {"outcome": "skipped", "key": next(_keys)},
    }
    return bodies[path] if method in {"POST", "PATCH"} else None


@pytest.fixture
def things(place):
    return made_things(place)


def made_things(place):
    """What the annotator has: a chat with an answer, a judged comparison, a key; and somebody to be locked out."""
    one = place.people["annotator"]
    chat, (question,) = a_chat(one, "hi")
    answer = answered(one, chat, question)[-1]["message"]
    given = [Answer("a", "one", {}), Answer("b", "two", {})]
    comparison = add_comparison(place.store, place.users["admin"], [Message("user", "q")], given, wanted=9)
    one.post(f"/api/comparisons/{comparison}/rankings", outcome="skipped", key=next(_keys))
    return {"question": question, "chats": chat, "messages": answer, "comparisons": comparison}


def attempt(place, who, method, path, things):
    """The status and, of an error, its code."""
    number = things.get(path.removeprefix("/api/").partition("/")[0])
    if path == "/api/keys/{number}":
        number = add_key(place.store, place.users["annotator"], "k", ("label",))[0]
    if path == "/api/users/{number}":
        number = place.people["admin"].post("/api/users", name=next(_keys), role="viewer")["id"]
    if "{number}" in path and "chats" in path and method == "DELETE":
        number = a_chat(place.people["annotator"], "hi")[0]
    at = path.format(number=number, name="echo")
    status, said, _ = place.people[who].ask(method, at, body(method, path, things))
    return status, said["error"]["code"] if status >= 400 else None


def test_every_route_is_open_to_whom_it_should_be_and_to_nobody_else(place, things):
    described = place.people["nobody"].get("/openapi.json")["paths"]
    assert {(method.upper(), path) for path, methods in described.items() for method in methods} == MAY.keys()
    for (method, path), who in itertools.product(MAY, sorted(EVERYBODY)):
        if path == "/api/logout" and place.people[who].token:
            continue  # below
        status, code = attempt(place, who, method, path, things)
        told = f"{who}: {method} {path}: {status} {code}"
        if who == "revoked" and not path.startswith("/api/") and path != "/health":
            assert (status, code) == (401, "invalid_api_key"), told
        elif who not in MAY[method, path]:
            wanted = (401, "not_logged_in") if who in {"nobody", "revoked"} else (403, "forbidden")
            assert (status, code) == wanted, told
        elif is_anothers(method, path, who):
            assert (status, code) == (404, "not_found"), told
        else:
            assert status in COMES_OF_IT.get(path, {200, 201}), told


def is_anothers(method, path, who):
    """Whether this person is to find nothing there."""
    if path == "/api/keys/{number}":
        return who not in ALSO_THEIRS | {"admin"}
    if path == "/api/comparisons/{number}/rankings":
        return False  # whoever labels may rank it
    return any(path.startswith(one) for one in OF_THE_ANNOTATOR.split()) and who not in ALSO_THEIRS


def test_a_key_does_no_more_than_its_scopes(place, things):
    for scope, path in itertools.product(
        ("generate", "label", "read", "admin"), ("/api/chats", "/api/rankings", "/api/users")
    ):
        number, key = add_key(place.store, place.users["admin"], scope, (scope,))
        program = Person(place.port, key=key)
        wanted = {"/api/chats": "generate", "/api/rankings": "label", "/api/users": "admin"}[path]
        assert program.ask("GET", path)[0] == (200 if scope == wanted else 403)
        assert place.people["admin"].ask("DELETE", f"/api/keys/{number}")[0] == 200


def test_a_locked_account_is_out_at_once(place):
    admin, one = place.people["admin"], place.people["other"]
    _, key = add_key(place.store, place.users["other"], "k", ("label",))
    assert admin.ask("DELETE", f"/api/users/{place.users['other'].id}")[0] == 200
    assert one.code("GET", "/api/me") == Person(place.port, key=key).code("GET", "/api/me") == (401, "not_logged_in")


def test_a_server_with_a_key_opens_its_models_by_it_or_by_a_persons(tmp_path):
    store = open_store(str(tmp_path / "f.db"), create=True)
    for place in site_over(store, keys=("of-the-server",)):
        things = made_things(place)
        place.people["server"] = Person(place.port, key="of-the-server")
        for path in WITH_A_KEY_OF_THE_SERVER:
            method = next(method for method, other in MAY if other == path)
            assert attempt(place, "server", method, path, things)[0] == 200
            assert attempt(place, "key", method, path, things)[0] == 200
            assert attempt(place, "nobody", method, path, things) in {(401, "invalid_api_key"), (429, "locked_out")}
        assert place.people["nobody"].ask("GET", "/health")[0] == 200
        assert place.people["nobody"].code("GET", "/api/me") == (401, "not_logged_in")
        assert Person(place.port, token=open_session(store, place.users["viewer"])).ask("GET", "/api/me")[0] == 200
    store.close()
