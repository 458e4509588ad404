"""POST /v1/score beside the evaluation's own scores and transformers' classifier; who may be asked for what."""

import threading
import time

import httpx2
import openai
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fairlead.cli.preflight import check_serve
from fairlead.config.common import ForwardConfig, ModelConfig, RuntimeConfig
from fairlead.config.serve import ServeConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.data.examples import ranked_examples
from fairlead.errors import UserError
from fairlead.evaluate.preference_accuracy import sequence_scores
from fairlead.models.build import add_frozen, ready
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.records import Message, Preference
from fairlead.runtime.start import start
from fairlead.serve import app
from fairlead.serve.app import Server
from fairlead.serve.load import LoadedModels
from fairlead.serve.models import Echo
from serve.conftest import running
from tiny import tiny_model
from tiny_stages import TinyWorld

PROMPT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the fox 你好"}]
ANSWERS = ["yes the lazy dog", "no", "yes fine 今天 thank <|im_end|>"]
DIALOGUES = [[*PROMPT, {"role": "assistant", "content": answer}] for answer in ANSWERS]
RUNTIME = RuntimeConfig(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return TinyWorld(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def stages(world):
    """A reward model of each place of the score, as an adapter and as whole weights."""
    return {
        "ends": world.reward,
        "last": world.run("reward", world.root / "last", "score_at=last_token"),
        "whole": world.run("reward", world.root / "whole", "model.tuning=full"),
    }


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder that transformers saved."""
    folder = tmp_path_factory.mktemp("classifier")
    base = tiny_model(folder / "base")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    model.save_pretrained(folder / "made")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "made")
    return folder / "made"


@pytest.fixture(scope="module")
def site(stages, classifier, world):
    folders = {**stages, "plain": classifier, "tiny": world.model}
    loaded = LoadedModels({name: resolve(str(folder)) for name, folder in folders.items()}, start(RUNTIME))
    found = running(Server({**loaded.policies, "echo": Echo()}, loaded.scorers))
    yield found
    found.end()
    loaded.close()


@pytest.fixture(scope="module")
def web(site):
    with httpx2.Client(base_url=site.address, timeout=60) as client:
        yield client


def scores_of(web, model, messages):
    answer = web.post("/v1/score", json={"model": model, "messages": messages})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["object"], said["model"]) == ("list", model)
    assert [(one["index"], one["object"]) for one in said["data"]] == [(i, "score") for i in range(len(said["data"]))]
    return [one["score"] for one in said["data"]], said["usage"]


def error_of(web, body, status=400):
    answer = web.post("/v1/score", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def tokens_read(web, name):
    mark = f'vllm:prompt_tokens_total{{model_name="{name}"}} '
    return sum(
        float(line.removeprefix(mark)) for line in web.get("/metrics").text.splitlines() if line.startswith(mark)
    )


@pytest.mark.parametrize("name", ["ends", "last", "whole"])
def test_the_scores_are_those_of_the_evaluation(web, stages, name):
    source = resolve(str(stages[name]))
    template = ChatTemplate(AutoTokenizer.from_pretrained(source.base.folder))
    record = Preference(tuple(Message(**one) for one in PROMPT), tuple(ANSWERS), source="x")
    (row,), _ = ranked_examples([record], template, 10_000, end_token=name != "last")
    roles, runtime = Roles(), start(RUNTIME)
    add_frozen(roles, "reward", source, "scores", runtime)
    ready(roles, ModelConfig(), runtime)
    expected = sequence_scores(roles, "reward", row.responses, ForwardConfig(), runtime)
    found, usage = scores_of(web, name, DIALOGUES)
    assert found == expected
    assert len(set(found)) == 3
    tokens = sum(len(one.input_ids) for one in row.responses)
    assert usage == {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}


def test_a_classifier_is_read_as_transformers_reads_it(web, classifier):
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = AutoModelForSequenceClassification.from_pretrained(classifier).eval()
    plain = [[*PROMPT, {"role": "assistant", "content": answer}] for answer in ("yes the lazy dog", "no", "fine")]
    with torch.no_grad():
        alone = [
            model(torch.tensor([tokenizer.apply_chat_template(one, return_dict=False)])).logits.item() for one in plain
        ]
    found, _ = scores_of(web, "plain", plain)
    assert found == pytest.approx(alone, rel=1e-4, abs=1e-6)
    assert len({round(one, 4) for one in found}) == 3


def test_one_dialogue_and_a_list_of_one(web):
    assert scores_of(web, "ends", DIALOGUES[1]) == scores_of(web, "ends", [DIALOGUES[1]])
    parts = [{"type": "text", "text": "n"}, {"type": "text", "text": "o"}]
    said = [*PROMPT, {"role": "assistant", "content": parts}]
    assert scores_of(web, "ends", said) == scores_of(web, "ends", DIALOGUES[1])


def test_as_many_as_may_be(web):
    found, _ = scores_of(web, "ends", [DIALOGUES[1], DIALOGUES[0]] * 32)
    assert len(found) == 64
    assert found == pytest.approx([found[0], found[1]] * 32, rel=1e-5)
    assert "65 dialogues" in error_of(web, {"model": "ends", "messages": [DIALOGUES[1]] * 65})["message"]


@pytest.mark.parametrize(("messages", "param"), [
    ([], "messages"), ([[]], "messages[0]"), (PROMPT, "messages"), ([DIALOGUES[0], PROMPT], "messages[1]"),
    ([DIALOGUES[0], *DIALOGUES[1]], "messages"), ("text", "messages"),
    ([{"role": "judge", "content": "x"}], "messages[0].role"),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused(web, messages, param):
    error = error_of(web, {"model": "ends", "messages": messages})
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


def test_a_closed_schema(web):
    assert error_of(web, {"model": "ends", "messages": DIALOGUES, "text": "x"})["param"] == "text"
    assert error_of(web, {"model": "none", "messages": DIALOGUES}, 404)["code"] == "model_not_found"
    long = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "dog " * 5000}]
    error = error_of(web, {"model": "ends", "messages": [DIALOGUES[0], long]})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages[1]")


def test_each_is_asked_for_what_it_does(site, web):
    for name in ("tiny", "echo"):
        error = error_of(web, {"model": name, "messages": DIALOGUES})
        assert (error["param"], error["code"], "is a policy" in error["message"]) == ("model", "wrong_model", True)
    client = openai.OpenAI(base_url=f"{site.address}/v1", api_key="none", max_retries=0)
    for ask in (
        lambda: client.chat.completions.create(model="ends", messages=PROMPT),
        lambda: client.completions.create(model="ends", prompt="x"),
    ):
        with pytest.raises(openai.BadRequestError, match="is a reward model") as caught:
            ask()
        assert caught.value.param == "model"


def test_models_health_figures_and_the_document_know_it(web):
    kinds = {one["id"]: one["kind"] for one in web.get("/v1/models").json()["data"]}
    assert kinds == {**dict.fromkeys(("tiny", "echo"), "policy"),
                     **dict.fromkeys(("ends", "last", "whole", "plain"), "reward")}  # fmt: skip
    assert web.get("/v1/models/ends").json()["kind"] == "reward"
    assert web.get("/health").status_code == 200
    before = tokens_read(web, "last")
    _, usage = scores_of(web, "last", DIALOGUES)
    assert tokens_read(web, "last") - before == usage["prompt_tokens"]
    document = web.get("/openapi.json").json()
    body = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ScoreRequest"}
    assert set(document["components"]["schemas"]["ScoreRequest"]["properties"]) == {"model", "messages"}


def test_a_reward_model_that_fails_is_told_and_unwell(site, web, monkeypatch):
    monkeypatch.setattr(app, "HEALTH_REST_SECONDS", 0.0)
    scorer = site.server.scorers["last"]
    monkeypatch.setattr(scorer, "_scored", lambda examples: [float("nan")] * len(examples))
    assert web.post("/v1/score", json={"model": "last", "messages": DIALOGUES}).status_code == 500

    def fail(examples):
        raise RuntimeError("broken")

    monkeypatch.setattr(scorer, "_scored", fail)
    assert web.post("/v1/score", json={"model": "last", "messages": DIALOGUES}).status_code == 500
    assert web.get("/health").status_code == 503
    monkeypatch.undo()
    assert web.get("/health").status_code == 200


def test_one_at_a_time_and_none_for_who_has_gone(site, web, monkeypatch):
    """Passes of one model never overlap; a client that goes takes its waiting passes along; the loop goes on."""
    scorer = site.server.scorers["ends"]
    began, go, running_now, most = threading.Event(), threading.Event(), [0], [0]
    scored = scorer._scored

    def slow(examples):
        running_now[0] += 1
        most[0] = max(most[0], running_now[0])
        began.set()
        go.wait(10)
        running_now[0] -= 1
        return scored(examples)

    monkeypatch.setattr(scorer, "_scored", slow)
    body = {"model": "ends", "messages": DIALOGUES}
    threads = [threading.Thread(target=lambda: web.post("/v1/score", json=body)) for _ in range(3)]
    threads[0].start()
    began.wait(10)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: len(scorer._waiting) == 2)
    with pytest.raises(httpx2.TimeoutException):
        web.post("/v1/score", json=body, timeout=0.3)
    wait_until(lambda: site.server.gate.running == 3)
    assert web.get("/v1/models").status_code == 200
    go.set()
    for thread in threads:
        thread.join()
    assert most == [1]
    wait_until(lambda: site.server.gate.running == 0 and not scorer._waiting)


def test_a_reward_stage_may_be_named(world):
    assert check_serve(ServeConfig(models=(f"judge={world.reward}",))) == {"judge": str(world.reward)}


def test_classifiers_of_several_labels_are_refused(tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model(tmp_path / "base"), num_labels=2)
    model.save_pretrained(tmp_path / "two")
    with pytest.raises(UserError, match="no reward model"):
        resolve(str(tmp_path / "two"))


def wait_until(holds, seconds=5.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it does not end"
        time.sleep(0.01)
