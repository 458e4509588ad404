"""The doors over HTTP: logging in, chats and what is thought of them, ranking, keys, and the pages' files."""

import http.client
import json
import time

import pytest
from sqlalchemy import select

from fairlead.feedback import chats
from fairlead.feedback.accounts import first_admin
from fairlead.feedback.comparisons import Answer, add_comparison
from fairlead.feedback.rows import Choice, rows_of
from fairlead.feedback.schema import rankings
from fairlead.feedback.store import open_store
from fairlead.records import Message
from fairlead.serve.app import Server
from fairlead.web import entrance
from fairlead.web.bundle import POLICY, Bundle
from fairlead.web.entrance import COOKIE, csrf_of
from fairlead.web.site import Site

from .conftest import PASSWORD, Person


def events(text):
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]


def a_chat(person, *said, title="t"):
    """A chat with these turns of the user, each under the one before."""
    chat, parent, numbers = person.post("/api/chats", title=title)["id"], None, []
    for content in said:
        parent = person.post(f"/api/chats/{chat}/messages", parent=parent, role="user", content=content)["id"]
        numbers.append(parent)
    return chat, numbers


def answered(person, chat, parent, model="echo", **sampling):
    status, said, headers = person.ask(
        "POST", f"/api/chats/{chat}/answers", {"parent": parent, "model": model, "sampling": sampling}
    )
    assert (status, headers.get_content_type()) == (200, "text/event-stream")
    return events(said)


# --- logging in


def test_a_name_and_a_password_open_a_session_whose_cookie_no_script_can_read(place):
    status, said, headers = place.people["nobody"].ask(
        "POST", "/api/login", {"name": "annotator", "password": PASSWORD}
    )
    assert (status, said["name"], said["scopes"]) == (200, "annotator", ["generate", "label"])
    cookie = headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/", COOKIE))
    token = cookie.split("=")[1].split(";")[0]
    assert said["csrf"] == csrf_of(token)
    me = Person(place.port, token=token)
    assert me.get("/api/me")["models"] == ["echo", "slow"]
    me.post("/api/logout")
    assert me.code("GET", "/api/me") == (401, "not_logged_in")


def test_wrong_passwords_are_told_alike_and_then_locked_out(place):
    nobody = place.people["nobody"]
    wrong = [{"name": "annotator", "password": "x"}, {"name": "who", "password": PASSWORD}]
    told = [nobody.ask("POST", "/api/login", body)[:2] for body in wrong * 5]
    assert {status for status, _ in told} == {401}
    assert len({json.dumps(said) for _, said in told}) == 1
    status, _, headers = nobody.ask("POST", "/api/login", {"name": "annotator", "password": PASSWORD})
    assert (status, headers["Retry-After"]) == (429, "60")


def test_the_first_password_has_to_be_changed_at_once(tmp_path, start):
    store = open_store(str(tmp_path / "f.db"), create=True)
    _, password = first_admin(store)
    site = start(store)
    login = {"name": "admin", "password": password}
    assert site.code("POST", "/api/login", login) == (403, "password_change_needed")
    for new in (password, "short"):
        assert site.code("POST", "/api/login", login | {"new_password": new})[0] == 400
    assert site.ask("POST", "/api/login", login | {"new_password": PASSWORD})[0] == 200
    assert site.code("POST", "/api/login", login)[0] == 401
    assert site.ask("POST", "/api/login", login | {"password": PASSWORD})[0] == 200
    store.close()


def test_the_link_of_the_terminal_opens_once(place):
    nobody = place.people["nobody"]
    assert nobody.code("POST", "/api/open", {"token": "another"}) == (401, "link_used")
    status, said, _ = nobody.ask("POST", "/api/open", {"token": place.link})
    assert (status, said["role"]) == (200, "admin")
    assert nobody.code("POST", "/api/open", {"token": place.link}) == (401, "link_used")


def test_another_password_ends_every_session(place):
    one = place.people["annotator"]
    new = "another long password"
    assert one.code("POST", "/api/password", {"password": "wrong", "new_password": new})[0] == 401
    one.post("/api/password", password=PASSWORD, new_password=new)
    assert one.code("GET", "/api/me") == (401, "not_logged_in")
    assert one.ask("POST", "/api/login", {"name": "annotator", "password": new})[0] == 200


@pytest.mark.parametrize("headers", [{"x-csrf-token": ""}, {"x-csrf-token": "0" * 64}, {"x-csrf-token": "é"}])
def test_a_session_without_the_pages_token_changes_nothing(place, headers):
    one = place.people["annotator"]
    assert one.code("POST", "/api/chats", {"title": "t"}, **headers) == (403, "wrong_csrf")
    assert one.get("/api/chats") == {"chats": []}


def test_too_many_requests_of_one_person_are_told_to_wait(place, monkeypatch):
    one, other = place.people["annotator"], place.people["other"]
    before = one.get("/api/me")
    for _ in range(entrance.REQUESTS - 1):
        place.people["annotator"].ask("GET", "/api/me")
    status, _, headers = one.ask("GET", "/api/me")
    assert (status, headers["Retry-After"]) == (429, "60")
    assert other.get("/api/me") != before


# --- chats


def test_a_chat_is_a_tree_whose_answers_stream_and_are_kept(place):
    one = place.people["annotator"]
    chat, (question,) = a_chat(one, "Hello wörld", title="Greetings")
    said = answered(one, chat, question, max_tokens=100)
    assert "".join(piece.get("text", "") for piece in said) == "Hello wörld"
    assert said[-1]["finish"] == "stop"
    again = answered(one, chat, question, max_tokens=5)[-1]
    messages = one.get(f"/api/chats/{chat}")["messages"]
    assert [(row["role"], row["content"], row["parent_id"], row["model"]) for row in messages] == [
        ("user", "Hello wörld", None, ""),
        ("assistant", "Hello wörld", question, "echo"),
        ("assistant", "Hello", question, "echo"),
    ]
    assert messages[2]["details"].pop("sampling")["seed"] >= 0
    assert messages[2] == messages[2] | {
        "id": again["message"],
        "details": {"finish": "length"},
    }
    assert one.get("/api/chats")["chats"][0]["title"] == "Greetings"
    assert one.ask("PATCH", f"/api/chats/{chat}", {"title": "新的"})[0] == 200
    assert one.get(f"/api/chats/{chat}")["title"] == "新的"
    assert one.ask("DELETE", f"/api/chats/{chat}")[0] == 200
    assert one.code("GET", f"/api/chats/{chat}") == (404, "not_found")


def test_a_model_reads_the_branch_and_nothing_else(place):
    one = place.people["annotator"]
    chat, (first, second) = a_chat(one, "first", "second")
    heard = []
    model = place.server.models["echo"]
    encode = model.encode_chat
    model.encode_chat = lambda messages: heard.append(messages) or encode(messages)
    beside = one.post(f"/api/chats/{chat}/messages", parent=first, role="user", content="beside")["id"]
    answered(one, chat, beside)
    assert heard == [[Message("user", "first"), Message("user", "beside")]]
    assert second != beside


def test_what_was_said_until_the_client_went_is_kept(place):
    one = place.people["annotator"]
    chat, (question,) = a_chat(one, "x" * 400)
    connection = http.client.HTTPConnection("127.0.0.1", place.port)
    body = json.dumps({"parent": question, "model": "slow"})
    headers = {
        "content-type": "application/json",
        "cookie": f"{COOKIE}={one.token}",
        "x-csrf-token": csrf_of(one.token),
    }
    connection.request("POST", f"/api/chats/{chat}/answers", body, headers)
    answer = connection.getresponse()
    heard = answer.read(120)
    answer.close()
    connection.close()
    deadline = time.monotonic() + 5
    while len(messages := one.get(f"/api/chats/{chat}")["messages"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert messages[1]["details"]["finish"] == "stopped"
    assert heard.count(b"text") <= len(messages[1]["content"]) < 400
    assert place.server.models["slow"].running == place.server.gate.running == 0


def test_an_answer_whose_client_goes_while_it_is_saved_is_saved_once(place, monkeypatch):
    one = place.people["annotator"]
    chat, (question,) = a_chat(one, "hi")
    save = chats.add_message
    monkeypatch.setattr(chats, "add_message", lambda *given, **named: time.sleep(0.3) or save(*given, **named))
    connection = http.client.HTTPConnection("127.0.0.1", place.port)
    headers = {
        "content-type": "application/json",
        "cookie": f"{COOKIE}={one.token}",
        "x-csrf-token": csrf_of(one.token),
    }
    body = json.dumps({"parent": question, "model": "echo"})
    connection.request("POST", f"/api/chats/{chat}/answers", body, headers)
    answer = connection.getresponse()
    answer.read(len(b'data: {"text":"h"}'))
    time.sleep(0.1)  # it is being saved
    answer.close()
    connection.close()
    time.sleep(0.8)
    said = [row["content"] for row in one.get(f"/api/chats/{chat}")["messages"] if row["role"] == "assistant"]
    assert said == ["hi"]


def test_thumbs_and_edits_are_shown_again_and_the_latest_counts(place):
    one = place.people["annotator"]
    chat, (question,) = a_chat(one, "q")
    answer = answered(one, chat, question)[-1]["message"]
    opinion = {"thumb": -1, "reasons": ["wrong"], "comment": "no", "key": "key-00001"}
    first = one.post(f"/api/messages/{answer}/opinions", **opinion)
    assert one.post(f"/api/messages/{answer}/opinions", **opinion) == first
    assert one.code("POST", f"/api/messages/{answer}/opinions", opinion | {"thumb": 1}) == (409, "key_taken")
    one.post(f"/api/messages/{answer}/opinions", thumb=1, key="key-00002")
    one.post(f"/api/messages/{answer}/edits", content="better", key="key-00003")
    shown = one.get(f"/api/chats/{chat}")["messages"]
    assert (shown[0]["opinion"], shown[0]["edit"]) == (None, None)
    assert (shown[1]["opinion"], shown[1]["edit"]) == ({"thumb": 1, "reasons": [], "comment": ""}, "better")
    assert one.code("POST", f"/api/messages/{question}/opinions", opinion | {"key": "key-00004"}) == (404, "not_found")


# --- ranking


def test_answers_are_drawn_shown_blind_ranked_and_become_rows(place):
    one, other = place.people["annotator"], place.people["other"]
    ask = {"prompt": [{"role": "user", "content": "Say"}], "models": ["echo", "slow", "echo"], "key": "key-00001",
           "sampling": {"seed": 1, "max_tokens": 2}, "wanted": 2}  # fmt: skip
    made = one.post("/api/comparisons", **ask)["comparison"]
    assert one.post("/api/comparisons", **ask)["comparison"] == made
    task = one.get("/api/tasks/next")["task"]
    assert (task["comparison"], task["prompt"], task["verdict"]) == (made, ask["prompt"], None)
    assert "echo" not in json.dumps(task)
    assert {answer["content"] for answer in task["answers"]} == {"Sa"}
    numbers = [str(answer["id"]) for answer in task["answers"]]
    verdict = {"outcome": "ranked", "ranks": dict(zip(numbers, (1, 1, 5), strict=True)), "grades": {numbers[0]: 7},
               "reason": "so", "seconds": 3}  # fmt: skip
    one.post(f"/api/comparisons/{made}/rankings", **verdict, key="key-00002")
    assert one.get("/api/tasks/next")["task"] is None
    again = one.get(f"/api/comparisons/{made}")["task"]
    assert again["verdict"] == verdict | {"ranks": dict(zip(numbers, (1, 1, 2), strict=True))}
    assert [answer["id"] for answer in again["answers"]] == [answer["id"] for answer in task["answers"]]
    assert other.code("GET", f"/api/comparisons/{made}") == (404, "not_found")
    other.post(f"/api/comparisons/{made}/rankings", outcome="skipped", key="key-00001")
    assert other.get("/api/rankings")["rankings"][0] | {"created_at": 0} == {
        "comparison": made, "outcome": "skipped", "created_at": 0,
    }  # fmt: skip
    (row,) = rows_of(place.store, "preferences", Choice())
    assert sorted(row["scores"]) == [-2, -1, -1]
    with place.store.read() as connection:
        ranked = connection.execute(select(rankings).where(rankings.c.outcome == "ranked")).mappings().one()
    assert [ranked["ranks"][str(number)] for number in ranked["shown"]] == [1, 1, 2]
    assert [ranked["grades"].get(str(number)) for number in ranked["shown"]] == [7, None, None]


def test_people_who_rank_at_the_same_time_share_the_work(place):
    given = [Answer("a", "one", {}), Answer("b", "two", {})]
    made = [
        add_comparison(place.store, place.users["admin"], [Message("user", str(n))], given, interest=n)
        for n in range(6)
    ]  # fmt: skip
    crowd = [place.people[name] for name in ("annotator", "other", "admin")]
    ranked = []
    for _ in range(2):
        tasks = [one.get("/api/tasks/next")["task"]["comparison"] for one in crowd]
        assert crowd[0].get("/api/tasks/next")["task"]["comparison"] == tasks[0]  # a reload shows the same
        for one, number in zip(crowd, tasks, strict=True):
            one.post(
                f"/api/comparisons/{number}/rankings", outcome="ranked", ranks={"1": 1, "2": 2}, key=f"key-{number:05}"
            )
        ranked += tasks
    assert ranked == made[::-1]
    assert [one.get("/api/tasks/next")["task"] for one in crowd] == [None] * 3


def test_results_are_the_tables_of_the_store(place):
    given = [Answer("a", "one", {}), Answer("b", "two", {})]
    number = add_comparison(place.store, place.users["admin"], [Message("user", "q")], given)
    one = place.people["annotator"]
    ids = [str(answer["id"]) for answer in sorted(one.get("/api/tasks/next")["task"]["answers"], key=lambda a: a["id"])]
    one.post(
        f"/api/comparisons/{number}/rankings", outcome="ranked", ranks=dict(zip(ids, (2, 1), strict=True)), key="k" * 8
    )
    assert one.get("/api/progress") | {"per_hour": 0, "median_seconds": 0} == {
        "mine": 1, "today": 1, "per_hour": 0, "median_seconds": 0, "open": 0, "total": 1, "finished": 1,
    }  # fmt: skip
    models = place.people["viewer"].get("/api/arena")["models"]
    assert [(row["name"], row["wins"], row["losses"], row["ties"]) for row in models] == [
        ("b", 1, 0, 0),
        ("a", 0, 1, 0),
    ]
    assert place.people["viewer"].get("/api/agreement")["annotators"] == [
        {"name": "annotator", "rankings": 1, "consensus": None, "reward_model": None}
    ]


@pytest.mark.parametrize(("body", "param"), [
    ({"outcome": "ranked", "ranks": {}}, None),
    ({"outcome": "ranked", "ranks": {"1": 1}}, None),
    ({"outcome": "ranked", "ranks": {"x": 1, "2": 2}}, "ranks"),
    ({"outcome": "ranked", "ranks": {"1": 0, "2": 1}}, "ranks[...]"),
    ({"outcome": "skipped", "ranks": {"1": 1, "2": 2}}, None),
    ({"outcome": "ranked", "ranks": {"1": 1, "2": 2}, "grades": {"9": 1}}, "ranks"),
    ({"outcome": "liked"}, "outcome"),
    ({"outcome": "skipped", "more": 1}, "more"),
    ({"outcome": "skipped", "reason": "a\0b"}, None),
])  # fmt: skip
def test_a_ranking_that_does_not_fit_is_refused_and_leaves_nothing(place, body, param):
    answers = [Answer("a", "one", {}), Answer("b", "two", {})]
    number = add_comparison(place.store, place.users["admin"], [Message("user", "q")], answers)
    one = place.people["annotator"]
    status, said, _ = one.ask("POST", f"/api/comparisons/{number}/rankings", body | {"key": "key-00001"})
    assert (status, said["error"]["param"]) == (400, param)
    assert one.get("/api/rankings")["rankings"] == []


def test_a_busy_store_says_that_nothing_was_saved(place):
    one = place.people["annotator"]
    with place.store.write():
        status, said, headers = one.ask("POST", "/api/chats", {"title": "t"})
    assert (status, said["error"]["code"], headers["Retry-After"]) == (503, "busy", "1")
    assert one.get("/api/chats")["chats"] == []
    one.post("/api/chats", title="t")


# --- people, keys, the log


def test_an_admin_makes_and_locks_accounts_and_reads_what_was_done(place):
    admin = place.people["admin"]
    made = admin.post("/api/users", name="new", role="viewer")
    nobody, login = place.people["nobody"], {"name": "new", "password": made["password"], "new_password": PASSWORD}
    assert admin.code("POST", "/api/users", {"name": "new", "role": "viewer"}) == (400, "invalid_value")
    assert nobody.ask("POST", "/api/login", login)[0] == 200
    assert admin.ask("DELETE", f"/api/users/{made['id']}")[0] == 200
    assert nobody.ask("POST", "/api/login", {"name": "new", "password": PASSWORD})[0] == 401
    assert admin.code("DELETE", f"/api/users/{made['id']}") == (404, "not_found")
    assert admin.code("DELETE", f"/api/users/{place.users['admin'].id}") == (400, "invalid_value")
    assert {user["name"]: bool(user["disabled_at"]) for user in admin.get("/api/users")["users"]}["new"]
    entries = admin.get("/api/audit")["entries"]
    assert [(line["user"], line["action"]) for line in entries[:2]] == [
        ("admin", "user.disable"),
        (None, "login.failed"),
    ]
    assert admin.get(f"/api/audit?before={entries[1]['id']}")["entries"][0] == entries[2]
    assert admin.code("GET", "/api/audit?before=x") == (400, "invalid_value")


def test_a_key_does_what_its_scopes_say_and_is_shown_once(place):
    one = place.people["annotator"]
    made = one.post("/api/keys", name="labels", scopes=["label"])
    program = Person(place.port, key=made["key"])
    assert program.get("/api/tasks/next") == {"task": None}
    assert program.code("GET", "/api/chats") == (403, "forbidden")
    assert program.code("GET", "/v1/models") == (401, "invalid_api_key")
    assert place.people["key"].get("/v1/models")["data"]
    assert one.code("POST", "/api/keys", {"name": "more", "scopes": ["admin"]}) == (400, "invalid_value")
    assert made["key"] not in json.dumps(one.get("/api/keys"))
    assert place.people["other"].code("DELETE", f"/api/keys/{made['id']}") == (404, "not_found")
    assert one.ask("DELETE", f"/api/keys/{made['id']}")[0] == 200
    assert program.code("GET", "/api/tasks/next") == (401, "not_logged_in")
    assert place.people["revoked"].code("GET", "/v1/models") == (401, "invalid_api_key")


def test_numbers_that_no_row_can_have_are_not_found(place):
    for number in ("0", "999", str(2**63), "9" * 60, "9" * 5000):
        assert place.people["annotator"].code("GET", f"/api/chats/{number}") == (404, "not_found")


# --- the pages' files


@pytest.fixture
def start():
    from serve.conftest import running

    begun = []

    def started(store, bundle=None):
        server = Server({})
        begun.append(running(server, pages=Site(store, server, [], bundle=bundle)))
        return Person(begun[-1].port)

    yield started
    for site in begun:
        site.end()


def test_files_are_a_fixed_set_under_a_strict_policy(tmp_path, start):
    (tmp_path / "bundle" / "assets").mkdir(parents=True)
    (tmp_path / "bundle" / "index.html").write_text("<!doctype html><title>pages</title>")
    (tmp_path / "bundle" / "assets" / "app-1.js").write_text("let a = 1" * 100)
    (tmp_path / "bundle" / "secret.txt").write_text("secret")
    site = start(open_store(str(tmp_path / "f.db"), create=True), Bundle(tmp_path / "bundle"))
    status, said, headers = site.ask("GET", "/")
    assert (status, "pages" in said, headers["content-security-policy"]) == (200, True, POLICY)
    status, said, headers = site.ask("GET", "/assets/app-1.js")
    assert (status, said[:9], headers.get_content_type()) == (200, "let a = 1", "text/javascript")
    assert "immutable" in headers["cache-control"]
    for path in ("/secret.txt", "/assets/../secret.txt", "/assets/%2e%2e/secret.txt", "/assets", "//etc/passwd"):
        assert site.ask("GET", path)[0] in {401, 404}


def test_pages_that_were_not_built_say_how(tmp_path, start):
    (tmp_path / "empty").mkdir()
    status, said, _ = start(open_store(str(tmp_path / "f.db"), create=True), Bundle(tmp_path / "empty")).ask("GET", "/")
    assert status == 503
    assert "make pages" in said
