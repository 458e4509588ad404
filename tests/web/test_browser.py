"""The pages in a browser (Debian's chromium), against a real server over a fresh store with models that echo."""

import re
from pathlib import Path

import pytest

from fairlead.feedback.accounts import add_user
from fairlead.feedback.comparisons import Answer, add_comparison
from fairlead.feedback.store import open_store
from fairlead.records import Message
from fairlead.web.entrance import COOKIE

from .conftest import PASSWORD, site_over

sync_api = pytest.importorskip("playwright.sync_api")
ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium"),
    pytest.mark.skipif(
        not (ROOT / "src/fairlead/web/bundle/index.html").exists(), reason="the pages are not built: make pages"
    ),
]
SHOWN = {"rank": "Answer 2", "results": "Agreement", "people": "Audit log", "account": "Change password"}
PAYLOAD = (
    "<img src=x onerror=alert(1)><script>alert(2)</script><svg onload=alert(3)>"
    "[a](javascript:alert(4)) ![b](https://elsewhere.test/i.png) $\\href{javascript:alert(5)}{x}$ "
    "<a href=\"javascript:alert(6)\">c</a> <form action=/api/logout><button>d</button></form> **bold**"
)  # fmt: skip


@pytest.fixture
def address(tmp_path):
    """SQLite alone: pages do not know the difference."""
    return str(tmp_path / "feedback.db")


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def place(tmp_path):
    """A site on SQLite alone: a browser sees no difference."""
    store = open_store(str(tmp_path / "feedback.db"), create=True)
    yield from site_over(store)
    store.close()


@pytest.fixture
def tab(place, chromium):
    """Opens tabs, a browser profile each; complains of errors and requests to elsewhere when the test ends."""
    contexts, complaints = [], []

    def opened(**options):
        context = chromium.new_context(base_url=place.address, **{"locale": "en-GB"} | options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda said: said.type == "error" and complaints.append(f"console: {said.text}"))
        page.on("request", lambda asked: asked.url.startswith(place.address) or complaints.append(asked.url))
        return page

    yield opened
    for context in contexts:
        context.close()
    expected = r"console: Failed to load resource: (the server responded|net::ERR_(FAILED|INTERNET_DISCONNECTED))"
    assert [said for said in complaints if not re.match(expected, said)] == []


def log_in(page, place, name="annotator", hash_="#/chat"):
    """A page of somebody who has logged in before."""
    page.context.add_cookies([{"name": COOKIE, "value": place.people[name].token, "url": place.address}])
    page.goto("about:blank")
    page.goto(f"/{hash_}")
    page.get_by_role("navigation", name="Pages").wait_for()
    return page


def said_by(page, who):
    return page.get_by_role("article", name=who, exact=True)


def ask(page, text, model="echo"):
    page.get_by_label("Model").select_option(model)
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def compared(place, *contents, prompt="What is it?", wanted=1):
    given = [Answer(f"m{at}", content, {}) for at, content in enumerate(contents)]
    return add_comparison(place.store, place.users["admin"], [Message("user", prompt)], given, wanted=wanted)


def shown_order(page):
    return [page.get_by_role("region", name=f"Answer {at}").inner_text() for at in (1, 2, 3, 4)]


# --- coming in


def test_a_first_password_is_changed_before_anything_else(place, tab):
    add_user(place.store, "new", "annotator", "shown-only-once", must_change=True)
    page = tab()
    page.goto("/")
    page.get_by_label("Name").fill("new")
    page.get_by_label("Password").fill("shown-only-once")
    page.keyboard.press("Enter")
    page.get_by_text("for the first time only").wait_for()
    page.get_by_label("New password (10").fill("my own long password")
    page.get_by_label("New password, again").fill("my own long passworD")
    page.keyboard.press("Enter")
    page.get_by_text("not the same").wait_for()
    page.get_by_label("New password, again").fill("my own long password")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Rank").wait_for()
    page.reload()
    page.get_by_role("link", name="Rank").wait_for()
    assert page.get_by_role("link", name="People").count() == 0


def test_the_terminals_link_opens_the_pages_once(place, tab):
    page, late = tab(), tab()
    page.goto(f"/#/open/{place.link}")
    page.get_by_role("link", name="People").wait_for()
    assert place.link not in page.url
    page.go_back()
    assert place.link not in page.url
    late.goto(f"/#/open/{place.link}")
    late.get_by_text("was used already").wait_for()
    late.get_by_role("button", name="Log in").click()
    late.get_by_label("Name").wait_for()


def test_a_password_is_changed_and_ends_the_session(place, tab):
    page = log_in(tab(), place, hash_="#/account")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("New password (10").fill("another long one")
    page.get_by_label("New password, again").fill("another long one")
    page.get_by_role("button", name="Change password").click()
    page.get_by_text("Log in with the new password").wait_for()
    page.get_by_label("Name").fill("annotator")
    page.get_by_label("Password").fill("another long one")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Chat").wait_for()


def test_a_wrong_password_is_not_an_ended_session(place, tab):
    page = log_in(tab(), place, hash_="#/account")
    page.get_by_label("Password", exact=True).fill("not the right one")
    page.get_by_label("New password (10").fill("another long one")
    page.get_by_label("New password, again").fill("another long one")
    page.get_by_role("button", name="Change password").click()
    page.get_by_text("do not fit").wait_for()
    page.context.clear_cookies()
    page.get_by_role("button", name="Change password").click()
    page.get_by_role("button", name="Log in").wait_for()
    assert page.get_by_text("do not fit").count() == 0


def test_a_draft_is_shown_to_its_writer_alone(place, tab):
    page = log_in(tab(), place)
    page.get_by_label("Message", exact=True).fill("mine alone")
    log_in(page, place, "other")
    assert page.get_by_label("Message", exact=True).input_value() == ""
    log_in(page, place)
    assert page.get_by_label("Message", exact=True).input_value() == "mine alone"


# --- chat


def test_a_chat_streams_and_grows_branches(place, tab):
    page = log_in(tab(), place)
    ask(page, "first **question**", "slow")
    live = said_by(page, "slow")
    live.get_by_text("first").wait_for()
    page.get_by_role("button", name="Stop").wait_for()
    live.get_by_text("question").wait_for()
    assert live.locator("strong").inner_text() == "question"
    live.get_by_role("button", name="Another answer").click()
    live.get_by_role("img", name="Version 2 of 2").wait_for()
    live.get_by_role("button", name="Version before").click()
    live.get_by_role("img", name="Version 1 of 2").wait_for()

    page.get_by_role("button", name="Edit and ask again").click()
    page.get_by_role("textbox", name="Edit and ask again").fill("second question")
    page.get_by_role("button", name="Send").first.click()
    said_by(page, "slow").get_by_text("second question").wait_for()
    mine = said_by(page, "You")
    mine.get_by_role("img", name="Version 2 of 2").wait_for()
    mine.get_by_role("button", name="Version before").click()
    mine.get_by_text("first **question**").wait_for()
    ask(page, "and then?")
    said_by(page, "echo").get_by_text("and then?").wait_for()
    messages = place.people["annotator"].get(f"/api/chats/{page.url.split('/')[-1]}")["messages"]
    assert [(one["role"], one["content"]) for one in messages] == [
        ("user", "first **question**"), ("assistant", "first **question**"), ("assistant", "first **question**"),
        ("user", "second question"), ("assistant", "second question"),
        ("user", "and then?"), ("assistant", "and then?"),
    ]  # fmt: skip
    by_id = {one["id"]: one for one in messages}
    assert by_id[messages[5]["parent_id"]]["content"] == "first **question**"
    assert messages[3]["parent_id"] is None


def test_a_stopped_answer_stays_and_is_marked(place, tab):
    page = log_in(tab(), place)
    ask(page, "word " * 100, "slow")
    said_by(page, "slow").get_by_text("word word").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Stopped").wait_for()
    text = said_by(page, "slow").locator(".prose").inner_text()
    assert 9 <= len(text) < 300


def test_a_reload_in_mid_answer_loses_nothing(place, tab):
    page = log_in(tab(), place)
    ask(page, "word " * 100, "slow")
    said_by(page, "slow").get_by_text("word word").wait_for()
    page.get_by_label("Message", exact=True).fill("what I write meanwhile")
    page.reload()
    page.get_by_text("Stopped").wait_for()
    assert page.get_by_label("Message", exact=True).input_value() == "what I write meanwhile"
    assert said_by(page, "slow").locator(".prose").inner_text().startswith("word word")


def test_a_broken_stream_says_so_and_is_asked_again(place, tab):
    page = log_in(tab(), place)
    page.route("**/answers", lambda route: route.abort())
    ask(page, "are you there?")
    page.get_by_text("The answer broke off").wait_for()
    page.unroute("**/answers")
    page.get_by_role("button", name="Try again").click()
    said_by(page, "echo").get_by_text("are you there?").wait_for()
    assert page.get_by_text("broke off").count() == 0


def test_a_message_that_was_not_sent_stays_written(place, tab):
    page = log_in(tab(), place)
    page.context.set_offline(True)
    ask(page, "keep this")
    page.get_by_text("not reached").wait_for()
    assert page.get_by_label("Message", exact=True).input_value() == "keep this"
    page.context.set_offline(False)
    page.get_by_label("Message", exact=True).press("Enter")
    said_by(page, "echo").get_by_text("keep this").wait_for()


@pytest.mark.parametrize("is_new", [False, True])
def test_what_is_on_its_way_stays_in_its_conversation(place, tab, is_new):
    me = place.people["annotator"]
    first, second = (me.post("/api/chats", title=title)["id"] for title in ("first", "second"))
    me.post(f"/api/chats/{second}/messages", parent=None, role="user", content="asked before")
    page = log_in(tab(), place, hash_="#/chat" if is_new else f"#/chat/{first}")
    held = []
    page.route(re.compile("/api/chats(/[0-9]+/messages)?$"), lambda route: (
        held.append(route) if route.request.method == "POST" and not held else route.continue_()
    ))  # fmt: skip
    with page.expect_request(lambda asked: asked.method == "POST"):
        ask(page, "on its way")
    page.get_by_role("link", name="second").click()
    page.get_by_text("asked before").wait_for()
    page.get_by_label("Message", exact=True).fill("for the second")
    with page.expect_response("**/messages"):
        held[0].continue_()
    page.wait_for_timeout(500)
    assert page.url.endswith(f"/{second}")
    assert page.get_by_text("on its way").count() == 0 or is_new  # the new title is in the list
    assert page.get_by_label("Message", exact=True).input_value() == "for the second"
    assert [one["content"] for one in me.get(f"/api/chats/{second}")["messages"]] == ["asked before"]
    sent = next(
        chat for chat in me.get("/api/chats")["chats"] if chat["title"] == ("on its way" if is_new else "first")
    )
    assert [one["content"] for one in me.get(f"/api/chats/{sent['id']}")["messages"]] == ["on its way"]
    page.goto("/#/chat" if is_new else f"/#/chat/{first}")
    page.wait_for_function("() => document.querySelector('.message').value === ''")


def test_settings_and_a_system_prompt_reach_the_model(place, tab):
    page = log_in(tab(), place)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most tokens").fill("5")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("System prompt of new").fill("Be brief.")
    ask(page, "a long question")
    page.get_by_text("Cut at the token limit").wait_for()
    messages = place.people["annotator"].get(f"/api/chats/{page.url.split('/')[-1]}")["messages"]
    assert [one["content"] for one in messages] == ["Be brief.", "a long question", "a lon"]
    sampling = messages[2]["details"]["sampling"]
    assert sampling == {"max_tokens": 5, "temperature": 0.5, "seed": sampling["seed"]}


def test_conversations_are_found_renamed_and_deleted(place, tab):
    me = place.people["annotator"]
    for title in ("about whales", "about ships"):
        me.post("/api/chats", title=title)
    page = log_in(tab(), place)
    page.get_by_placeholder("Search titles").fill("WHALE")
    listed = page.get_by_role("navigation", name="Conversations")
    listed.get_by_role("link", name="about whales").wait_for()
    assert listed.get_by_role("listitem").count() == 1
    listed.get_by_role("link", name="about whales").click()
    listed.get_by_role("button", name="Rename “about whales”").click()
    listed.get_by_label("Title of").fill("whales and dolphins")
    page.keyboard.press("Enter")
    listed.get_by_role("link", name="whales and dolphins").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    listed.get_by_role("button", name="Delete “whales and dolphins”").click()
    listed.get_by_text("No title fits").wait_for()
    assert [chat["title"] for chat in me.get("/api/chats")["chats"]] == ["about ships"]


def test_thumbs_reasons_and_a_better_answer_become_labels(place, tab):
    page = log_in(tab(), place)
    ask(page, "2 + 2 = 5")
    answer = said_by(page, "echo")
    answer.get_by_role("button", name="Bad answer").click()
    answer.get_by_label("wrong", exact=True).check()
    answer.get_by_label("Comment").fill("it is 4")
    answer.get_by_role("button", name="Save").click()
    answer.get_by_text("Saved.").wait_for()
    answer.get_by_role("button", name="Write it better").click()
    answer.get_by_label("Write it better").fill("2 + 2 = 4")
    page.reload()
    assert answer.get_by_label("Write it better").input_value() == "2 + 2 = 4"
    answer.get_by_role("button", name="Save").click()
    answer.get_by_text("Written better by you").wait_for()
    said = place.people["annotator"].get(f"/api/chats/{page.url.split('/')[-1]}")["messages"][1]
    assert said["opinion"] == {"thumb": -1, "reasons": ["wrong"], "comment": "it is 4"}
    assert said["edit"] == "2 + 2 = 4"
    answer.get_by_role("button", name="Bad answer").click()
    page.wait_for_function("() => document.querySelector('[aria-label=\"Bad answer\"]').ariaPressed === 'false'")


def test_labels_that_waited_arrive_in_their_order(place, tab):
    page = log_in(tab(), place)
    ask(page, "a question")
    answer = said_by(page, "echo")
    page.route("**/opinions", lambda route: route.abort())
    for name in ("Good", "Bad", "Good", "Bad", "Good"):
        answer.get_by_role("button", name=f"{name} answer").click()
    other = page.context.new_page()
    page.close()
    thumbs = []
    other.on("request", lambda asked: asked.url.endswith("/opinions") and thumbs.append(asked.post_data_json["thumb"]))
    with other.expect_response(lambda _: len(thumbs) == 5):
        other.goto("/#/chat")
    assert thumbs == [1, -1, 1, -1, 1]


def test_every_label_that_is_refused_is_told(place, tab):
    page = log_in(tab(), place)
    ask(page, "a question")
    answer = said_by(page, "echo")
    refusal = {"error": {"message": "no such reason", "code": "invalid_value"}}
    page.route("**/opinions", lambda route: route.fulfill(status=400, json=refusal))
    told = page.get_by_text("This was not saved: no such reason")
    for count in (1, 2):
        answer.get_by_role("button", name="Good answer").click()
        told.nth(count - 1).wait_for()
    assert answer.get_by_text("Saved.").count() == 0
    assert answer.get_by_role("button", name="Good answer").get_attribute("aria-pressed") == "false"
    page.get_by_role("button", name="Close").first.click()
    assert told.count() == 1


def test_who_may_not_label_is_not_asked_to(place, tab):
    page = log_in(tab(), place, "viewer")
    ask(page, "a question")
    answer = said_by(page, "echo")
    answer.get_by_role("button", name="Another answer").wait_for()
    assert answer.get_by_role("button").all_inner_texts() == ["Copy", "Another answer"]


# --- ranking


def test_a_pair_is_judged_blind_by_keys_and_corrected(place, tab):
    numbers = [compared(place, "alpha", "beta", prompt=f"prompt {at}") for at in (1, 2, 3)]
    page = log_in(tab(), place, hash_="#/rank")
    page.get_by_text("prompt 1").wait_for()
    assert "m0" not in page.locator("body").inner_text()
    first = page.get_by_role("region", name="Answer 1").locator(".content").inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("prompt 2").wait_for()
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    page.get_by_text("prompt 3").wait_for()
    page.keyboard.press("s")
    page.get_by_text("Nothing is left").wait_for()
    page.keyboard.press("z")
    page.get_by_text("prompt 3").wait_for()
    page.keyboard.press("z")
    page.get_by_text("prompt 2").wait_for()
    page.get_by_text("You correct").wait_for()
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is left").wait_for()
    labels = {row["comparison"]: row["outcome"] for row in place.people["annotator"].get("/api/rankings")["rankings"]}
    assert labels == {numbers[0]: "ranked", numbers[1]: "ranked", numbers[2]: "skipped"}
    with_store = place.people["annotator"].get(f"/api/comparisons/{numbers[0]}")["task"]
    best = min(with_store["verdict"]["ranks"], key=with_store["verdict"]["ranks"].get)
    assert {str(one["id"]): one["content"] for one in with_store["answers"]}[best] == first
    second = place.people["annotator"].get(f"/api/comparisons/{numbers[1]}")["task"]
    assert [second["verdict"]["ranks"][str(one["id"])] for one in second["answers"]] == [2, 1]


def test_four_answers_are_ranked_by_keys_alone(place, tab):
    number = compared(place, "one", "two", "three", "four")
    compared(place, "x", "y", prompt="the next")
    page = log_in(tab(), place, hash_="#/rank")
    page.get_by_text("Put these 4 answers in order").wait_for()
    for key in ("4", "1", "=", "3", "Backspace", "2"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Confirm").is_disabled()
    page.reload()
    page.get_by_role("list", name="Order").get_by_text("4", exact=True).wait_for()
    page.keyboard.press("3")
    page.keyboard.press("r")
    page.keyboard.type("4 is clear; s and f are letters here")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.get_by_text("the next").wait_for()
    task = place.people["annotator"].get(f"/api/comparisons/{number}")["task"]
    assert [task["verdict"]["ranks"][str(one["id"])] for one in task["answers"]] == [1, 2, 3, 1]
    assert task["verdict"]["reason"] == "4 is clear; s and f are letters here"


def test_answers_are_graded_and_dragged_into_order(place, tab):
    number = compared(place, "one", "two", "three")
    page = log_in(tab(), place, hash_="#/rank")
    page.get_by_text("Put these 3 answers in order").wait_for()
    for key in ("1", "2", "3"):
        page.keyboard.press(key)
    order = page.get_by_role("list", name="Order")
    order.get_by_role("img", name="Answer 3").drag_to(order.locator(".gap").first)
    order.get_by_role("img", name="Answer 2").drag_to(order.get_by_role("img", name="Answer 1"))
    page.get_by_role("region", name="Answer 2").get_by_role("button", name="7").click()
    order.get_by_role("listitem", name="Place 2: Answer 1, Answer 2").wait_for()
    page.get_by_role("button", name="Take back").click()
    page.get_by_role("button", name="Put answer 2 next").click()
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is left").wait_for()
    task = place.people["annotator"].get(f"/api/comparisons/{number}")["task"]
    ids = [str(one["id"]) for one in task["answers"]]
    assert [task["verdict"]["ranks"][one] for one in ids] == [2, 3, 1]
    assert task["verdict"]["grades"] == {ids[1]: 7}


def test_a_verdict_that_fails_is_saved_later_once(place, tab):
    number = compared(place, "alpha", "beta")
    page = log_in(tab(), place, hash_="#/rank")
    keys = []

    def swallowed(route):
        keys.append(route.request.post_data_json["key"])
        if len(keys) == 1:
            route.abort()
        elif len(keys) == 2:
            route.fetch()  # it is saved, and nobody hears of it
            route.abort()
        else:
            route.continue_()

    page.route("**/rankings", lambda route: swallowed(route) if route.request.method == "POST" else route.continue_())
    page.get_by_text("Which answer is better?").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("Not saved yet").wait_for()
    page.get_by_text("Nothing is left").wait_for()
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert [one["comparison"] for one in place.people["annotator"].get("/api/rankings")["rankings"]] == [number]


def test_a_verdict_whose_receipt_broke_off_is_sent_again(place, tab):
    compared(place, "alpha", "beta")
    page = log_in(tab(), place, hash_="#/rank")
    keys = []

    def cut(route):
        keys.append(route.request.post_data_json["key"])
        if len(keys) == 1:
            route.fulfill(response=route.fetch(), body='{"id":')
        else:
            route.continue_()

    page.route("**/rankings", cut)
    page.get_by_text("Which answer is better?").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is left").wait_for()
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert len(place.people["annotator"].get("/api/rankings")["rankings"]) == 1


def test_a_full_browser_saves_verdicts(place, tab):
    for at in (1, 2):
        compared(place, "alpha", "beta", prompt=f"prompt {at}")
    page = tab()
    page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError') }")
    log_in(page, place, hash_="#/rank")
    for at in (1, 2):
        page.get_by_text(f"prompt {at}").wait_for()
        page.keyboard.press("1")
        page.keyboard.press("Enter")
    page.get_by_text("Nothing is left").wait_for()
    assert len(place.people["annotator"].get("/api/rankings")["rankings"]) == 2


def test_a_verdict_waits_over_a_closed_tab(place, tab):
    number = compared(place, "alpha", "beta")
    page = log_in(tab(), place, hash_="#/rank")
    page.route("**/rankings", lambda route: route.abort())
    page.get_by_text("Which answer is better?").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("Not saved yet").wait_for()
    other = page.context.new_page()
    page.close()
    with other.expect_response("**/rankings") as answer:
        other.goto("/#/chat")
    assert answer.value.status == 201
    assert [one["comparison"] for one in place.people["annotator"].get("/api/rankings")["rankings"]] == [number]


def test_models_are_compared_on_an_own_prompt(place, tab):
    page = log_in(tab(), place, hash_="#/rank")
    page.get_by_text("Compare models on your own prompt").click()
    page.get_by_label("Prompt", exact=True).fill("say this")
    page.get_by_label("slow").fill("2")
    page.get_by_role("button", name="Draw answers").click()
    page.get_by_text("Put these 3 answers in order").wait_for()
    assert page.get_by_role("region", name="Answer 3").locator(".content").inner_text() == "say this"


def test_a_changed_comparison_is_another_one(place, tab):
    page = log_in(tab(), place, hash_="#/rank")
    keys = []
    busy = {"error": {"message": "busy", "code": "busy"}}

    def drawn(route):
        keys.append(route.request.post_data_json["key"])
        if len(keys) < 3:
            route.fulfill(status=503, json=busy)
        else:
            route.continue_()

    page.route("**/comparisons", drawn)
    page.get_by_text("Compare models on your own prompt").click()
    for prompt in ("say this", "say this", "say that"):
        if page.get_by_label("Prompt", exact=True).input_value() != prompt:
            page.get_by_label("Prompt", exact=True).fill(prompt)
        with page.expect_response("**/comparisons"):
            page.get_by_role("button", name="Draw answers").click()
        page.get_by_role("button", name="Draw answers").and_(page.locator(":enabled")).or_(
            page.get_by_text("Which answer is better?")
        ).first.wait_for()
    page.get_by_text("Which answer is better?").wait_for()
    assert keys[0] == keys[1] != keys[2]


# --- results and people


def test_results_show_strengths_and_agreement(place, tab):
    for at in range(3):
        compared(place, "alpha", "beta", prompt=str(at), wanted=2)
    for name in ("annotator", "other"):
        judge = place.people[name]
        while task := judge.get("/api/tasks/next")["task"]:
            ranks = {str(one["id"]): 1 if one["content"] == "alpha" else 2 for one in task["answers"]}
            path = f"/api/comparisons/{task['comparison']}/rankings"
            judge.post(path, outcome="ranked", ranks=ranks, key=f"{name}-{task['comparison']}-key")
    page = log_in(tab(), place, "viewer", "#/results")
    arena = page.get_by_role("group", name="Arena")
    arena.wait_for()
    rows = arena.get_by_role("row").all_inner_texts()
    assert [row.split("\t")[0] for row in rows[1:]] == ["m0", "m1"]
    assert arena.get_by_role("img").count() == 2
    page.get_by_role("cell", name="annotator").first.wait_for()


def test_people_and_keys_are_made_and_ended(place, tab):
    page = log_in(tab(), place, "admin", "#/people")
    page.on("dialog", lambda dialog: dialog.accept())
    users = page.get_by_role("region", name="Users")
    assert users.get_by_label("Name").get_attribute("maxlength") == "64"
    users.get_by_label("Name").fill("dora")
    users.get_by_role("button", name="Add a user").click()
    password = users.locator("code.once").inner_text()
    other = tab()
    other.goto("/")
    other.get_by_label("Name").fill("dora")
    other.get_by_label("Password").fill(password)
    other.keyboard.press("Enter")
    other.get_by_text("for the first time only").wait_for()
    users.get_by_role("row", name="dora").get_by_role("button", name="Disable").click()
    users.get_by_role("row", name="dora").get_by_text("Disabled").wait_for()

    keys = page.get_by_role("region", name="API keys")
    assert keys.get_by_label("Name").get_attribute("maxlength") == "64"
    keys.get_by_label("Name").fill("program")
    keys.get_by_label("label", exact=True).check()
    keys.get_by_role("button", name="Add a key").click()
    key = keys.locator("code.once").inner_text()
    assert len(key) > 20
    keys.get_by_role("row", name="program admin").get_by_role("button", name="Revoke").click()
    keys.get_by_role("row", name="program admin").get_by_text("Revoked").wait_for()
    assert page.get_by_role("region", name="Audit log").get_by_role("row").count() > 3


# --- all pages


def test_the_pages_speak_chinese(place, tab):
    page = tab(locale="zh-CN")
    page.goto("/#/chat")
    page.get_by_label("名称").fill("annotator")
    page.get_by_label("密码").fill(PASSWORD)
    page.get_by_role("button", name="登录").click()
    page.get_by_role("link", name="排序").wait_for()
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    page.get_by_label("消息", exact=True).fill("你好")
    page.keyboard.press("Enter")
    said_by(page, "echo").get_by_text("你好").wait_for()
    page.locator("header summary").click()
    page.get_by_label("语言").select_option("en")
    page.reload()
    page.get_by_role("link", name="Rank").wait_for()
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_phone_scrolls_no_page_sideways(place, tab):
    compared(
        place, "x" * 300, "| a | b |\n|--|--|\n" + "| wide wide wide wide | " * 2, prompt="$$" + "x + " * 80 + "y$$"
    )
    page = log_in(tab(viewport={"width": 360, "height": 640}), place, "admin")
    ask(page, "`" + "code" * 100 + "`\n\n```\n" + "long " * 60 + "\n```")
    said_by(page, "echo").get_by_role("button", name="Copy").first.wait_for()
    for route, heading in SHOWN.items():
        page.goto(f"/#/{route}")
        page.get_by_role("heading", name=heading).wait_for()
        wide = page.evaluate(
            "[document.documentElement, document.querySelector('main')].map(e => e.scrollWidth - e.clientWidth)"
        )
        assert wide == [0, 0], route
    page.get_by_role("link", name="Chat").click()
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("navigation", name="Conversations").get_by_role("link").first.click()
    said_by(page, "echo").wait_for()


def test_nothing_that_is_said_runs(place, tab):
    me = place.people["admin"]
    chat = me.post("/api/chats", title=PAYLOAD[:200])["id"]
    me.post(f"/api/chats/{chat}/messages", parent=None, role="system", content=PAYLOAD)
    compared(place, PAYLOAD, "y", prompt=PAYLOAD)
    page = log_in(tab(), place, "admin", f"#/chat/{chat}")
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    ask(page, PAYLOAD)
    answer = said_by(page, "echo").locator(".prose")
    answer.locator("strong", has_text="bold").wait_for()
    assert answer.locator("img, script, svg, form, button, style, iframe").count() == 0
    links = answer.locator("a").evaluate_all("links => links.map(a => [a.getAttribute('href'), a.rel, a.target])")
    assert [link for link in links if link[0]] == [
        ["https://elsewhere.test/i.png", "noopener noreferrer nofollow", "_blank"]
    ]
    assert "<script>alert(2)</script>" in answer.inner_text()
    said_by(page, "echo").get_by_role("button", name="Bad answer").click()
    page.get_by_label("Comment").fill(PAYLOAD)
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved.").wait_for()
    page.goto("/#/rank")
    page.get_by_role("region", name="Answer 1").locator(".content").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("r")
    page.keyboard.type(PAYLOAD)
    page.keyboard.press("Control+Enter")
    page.get_by_text("Nothing is left").wait_for()
    page.keyboard.press("z")
    page.get_by_text("You correct").wait_for()
    page.goto("/#/people")
    page.get_by_role("region", name="Audit log").wait_for()
    page.wait_for_timeout(300)
    assert dialogs == []


def test_maths_and_code_are_shown(place, tab):
    page = log_in(tab(), place)
    ask(page, "$x^2$ costs $5 or $6\n\n$$\\color{red}\\frac{a}{b}$$\n\n\\[c\\]\n\n```py\nprint(1 < 2)\n```\n\n`$not$`")
    answer = said_by(page, "echo")
    answer.get_by_role("button", name="Copy").first.wait_for()
    assert answer.locator("math").count() == 3
    assert answer.locator("math[display=block]").count() == 2
    assert answer.locator("mfrac").count() == 1
    assert "costs $5 or $6" in answer.inner_text()
    assert answer.locator("pre").inner_text().strip() == "print(1 < 2)"
    assert answer.locator("p code").inner_text() == "$not$"


def test_what_nests_too_deeply_is_shown_as_it_was_written(place, tab):
    compared(place, "formula $" + "{" * 3900 + "$", "> " * 9000 + "quoted")
    page = log_in(tab(), place, hash_="#/rank")
    page.get_by_text("formula ${{").wait_for()
    page.get_by_text("quoted").wait_for()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: make pages")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_fault_of_access(place, tab, scheme):
    compared(place, "one", "two", "three", "four")
    page = tab(bypass_csp=True, color_scheme=scheme)
    page.goto("/")
    page.get_by_label("Name").wait_for()
    found = {"login": faults(page)}
    log_in(page, place, "admin")
    ask(page, "one `two`\n\n```\nthree\n```\n\n| a | b |\n|--|--|\n| 1 | [2](https://a.test) |")
    said_by(page, "echo").get_by_role("button", name="Bad answer").click()
    page.get_by_role("button", name="Settings").click()
    page.locator("header summary").click()
    found["chat"] = faults(page)
    for route, heading in SHOWN.items():
        page.goto(f"/#/{route}")
        page.get_by_role("heading", name=heading).wait_for()
        if route == "rank":
            page.keyboard.press("2")
            page.get_by_text("Compare models").click()
        found[route] = faults(page)
    page.goto("/#/rank")
    page.get_by_role("heading", name="Answer 2").wait_for()
    page.keyboard.press("?")
    found["keys"] = faults(page)
    assert found == {route: [] for route in found}


def faults(page):
    """What axe holds to be serious or critical."""
    page.evaluate("() => document.getAnimations().forEach(animation => animation.finish())")
    page.evaluate(AXE.read_text())
    said = page.evaluate("() => axe.run()")
    return [
        (fault["id"], [(node["html"][:120], node["failureSummary"][:200]) for node in fault["nodes"]][:4])
        for fault in said["violations"]
        if fault["impact"] in {"serious", "critical"}
    ]
