"""New prompts and rows as a stage: by an endpoint and by a tiny model, killed and gone on with, skipped, refused."""

import os
import subprocess
import sys

import orjson
import pytest

from fairlead.artifacts.journal import Journal
from fairlead.artifacts.manifest import digest, read_manifest, verify
from fairlead.cli.main import run as command
from fairlead.config.document import options
from fairlead.config.grow import GrowConfig
from fairlead.config.parse import load
from fairlead.data.language import is_chinese
from fairlead.data.load import read_conversations, read_prompts
from fairlead.errors import ExitCode, UserError
from fairlead.pipeline import grow as module
from fairlead.pipeline.grow import grow
from fairlead.synthesize.self_instruct import question
from fake_author import fake_author, words
from tiny_stages import rows_of, write_rows

from .test_run import dies

THINGS = ("house", "shoe", "ship", "road", "cake", "book", "wheel", "coat", "lamp", "chair")
SEEDS = [{"instruction": f"Tell me what a {thing} is made of.", "output": "Of wood."} for thing in THINGS]
SEEDS += [
    {"instruction": f"请说明{thing}是用什么做成的。", "output": "木头。"} for thing in ("房子", "鞋子", "船", "路")
]
PROMPTS = ["What is 12 times 34?", "Greet {name} with `hi`", "十二乘以 34 是多少？", "How far is it to the moon?"]
CHATS = [
    ["Tell me about the rivers of Asia", "There are many.", "And now how bread is baked"],
    ["Please write to me@home.org or to 10.0.0.1 soon", "Done."], ["Go on", "With what?"],
    ["Tell me about the RIVERS of Asia!", "Again?"], ["Tell me about the rivers of Asia and of Europe", "Many."],
]  # fmt: skip
SMALL = ("self_instruct.num_instructions=12", "self_instruct.max_requests=10", "self_instruct.requests_per_round=2")
MACHINE = ("runtime.device=cpu", "runtime.dtype=float32", "runtime.num_threads=1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_rows(tmp_path / "seeds.jsonl", SEEDS)
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": text} for text in PROMPTS])
    write_rows(tmp_path / "chats.jsonl", [{"messages": turns(texts)} for texts in CHATS])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def turns(texts):
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


DATA = {"self_instruct": "seeds.jsonl", "translate": "prompts.jsonl", "chats": "chats.jsonl"}


def make(method, *given, url="", run="run"):
    """Grow in a run of this test; returns the stage's folder."""
    base = [f"method={method}", f"output={run}", f"data={DATA[method]}", "author.num_retries=0", *MACHINE]
    base = base if url else [word for word in base if not word.startswith("author.")]
    base += [f"author.url={url}", "author.model=wise"] if url else []
    names = {word.partition("=")[0] for word in given}
    return grow(load(GrowConfig, None, [*(word for word in base if word.partition("=")[0] not in names), *given]))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


def prompts_of(folder):
    return [row["prompt"][-1]["content"] for row in rows_of(folder / "train.jsonl")]


# --- the three methods


def test_instructions_are_invented_and_accounted_for(here):
    with fake_author() as author:
        folder = make("self_instruct", *SMALL, url=author.url)
    made = prompts_of(folder)
    assert len(made) == len(set(made)) == 12
    assert {is_chinese(text) for text in made} == {False, True}
    assert [record.messages[0].content for record in read_prompts([folder / "train.jsonl"]).records] == made
    assert all(row["source"].startswith("request ") for row in rows_of(folder / "train.jsonl"))
    manifest = verify(folder)
    assert (manifest.kind, manifest.stage, manifest.facts["sizes"], manifest.parents) == (
        "dataset",
        "grow",
        {"rows": 12},
        {},
    )
    dropped = rows_of(folder / "dropped.jsonl")
    assert sum(manifest.facts["refused"].values()) == len(dropped) > 0
    assert all({"step", "reason", "source", "text"} <= set(row) for row in dropped)
    assert not {row["text"] for row in dropped} & set(made)


def test_each_new_instruction_is_answered(here):
    with fake_author() as author:
        folder = make("self_instruct", *SMALL, "answer=true", "answer_sampling.max_new_tokens=7", url=author.url)
        prompts = make("self_instruct", *SMALL, url=author.url, run="prompts")
    records = read_conversations([folder / "train.jsonl"]).records
    assert [record.messages[0].content for record in records] == prompts_of(prompts)
    assert all(r.messages[1].content.endswith(r.messages[0].content[::-1]) for r in records)
    assert {body["max_tokens"] for body in author.bodies} == {7, 512}


def test_prompts_are_translated_and_bad_ones_refused(here):
    def answer(body):
        return "这是译文 12" if "times" in body["messages"][-1]["content"] else words(body)

    with fake_author(answer) as author:
        folder = make("translate", url=author.url)
    assert prompts_of(folder) == ["这是译文 {name} `hi`", "This is the translation 34", "这是译文"]
    assert [row["source"] for row in rows_of(folder / "train.jsonl")] == [f"prompts.jsonl:{n}" for n in (2, 3, 4)]
    assert [(row["reason"], row["source"]) for row in rows_of(folder / "dropped.jsonl")] == [
        ("lost a number", "prompts.jsonl:1")
    ]


def test_prompts_are_collected_from_chats_without_a_model(here):
    folder = make("chats")
    assert prompts_of(folder) == [CHATS[0][0], "Please write to [EMAIL] or to 10.0.0.1 soon", CHATS[4][0]]
    assert sorted(row["reason"] for row in rows_of(folder / "dropped.jsonl")) == [
        "fewer than 4 words", "like an earlier turn",
    ]  # fmt: skip
    assert not (folder / "answers.jsonl").exists()
    with fake_author() as author:
        answered = make("chats", "answer=true", "chats.turns=every", url=author.url, run="answered")
    asked = [[turn["content"] for turn in body["messages"]] for body in author.bodies]
    assert sorted(map(len, asked)) == [1, 1, 1, 3], "a later turn is asked with the dialogue before it"
    assert len(read_conversations([answered / "train.jsonl"]).records) == 4


# --- a model at hand


NEW = ("Say what the lazy dog is today", "Tell hello to the brown fox")


@pytest.fixture(scope="module")
def writer(world):
    """A model that knows by heart how to go on with the list of one seed, and the answers to what it invents."""
    asked = question(["What is the capital of France"])
    rows = [
        [asked, f"{NEW[0]}\n3. {NEW[1]}\n4. What is the capital of France?"],
        [NEW[0], "fine"],
        [NEW[1], "hello fox"],
    ]
    file = write_rows(world.root / "writer.jsonl", [{"messages": turns(row)} for row in rows * 4])
    wanted = ("num_epochs=40", "model.tuning=full", "data.held_out_rows=0", "optim.schedule=constant")
    return world.run("sft", world.root / "writer", f"data.train={file}", *wanted)


@pytest.fixture
def write(here, writer):
    """Invent and answer with the model at hand."""
    write_rows(here / "seeds.jsonl", [{"prompt": "What is the capital of France"}])

    def write(*given, run="run"):
        small = ("self_instruct.num_examples=1", "self_instruct.num_own=0", "self_instruct.max_requests=3")
        small += ("self_instruct.requests_per_round=1",)
        greedy = ("sampling.temperature=0", "answer_sampling.temperature=0", "sampling.max_new_tokens=120")
        return make("self_instruct", f"model={writer}", "answer=true", *small, *greedy, *given, run=run)

    return write


def test_a_tiny_model_invents_and_answers(write, writer):
    folder = write()
    rows = [[turn["content"] for turn in row["messages"]] for row in rows_of(folder / "train.jsonl")]
    assert rows == [[NEW[0], "fine"], [NEW[1], "hello fox"]]
    assert {row["reason"] for row in rows_of(folder / "dropped.jsonl")} == {"ROUGE-L not below 0.7"}
    manifest = read_manifest(folder)
    assert manifest.parents["model"].digest == digest(writer)


def test_a_prompt_without_room_in_the_context_is_refused(writer, here):
    long = "the quick brown fox " * 400
    write_rows(here / "chats.jsonl", [{"messages": turns([NEW[0], "x"])}, {"messages": turns([long, "x"])}])
    folder = make("chats", f"model={writer}", "answer=true", "answer_sampling.temperature=0")
    assert len(rows_of(folder / "train.jsonl")) == 1
    ((lost),) = rows_of(folder / "dropped.jsonl")
    assert lost["step"] == "answer"
    assert lost["reason"].endswith("tokens, more than 1536"), "512 of 2048 are for the answer"


def test_a_stop_string_ends_what_is_read_and_is_no_part_of_it(write):
    rows = rows_of(write('sampling.stop=["\\n"]', 'answer_sampling.stop=["ne"]') / "train.jsonl")
    assert [[turn["content"] for turn in row["messages"]] for row in rows] == [[NEW[0], "fi"]]


def test_a_killed_model_goes_on(write, here):
    assert dies(write, Journal, "append", 3)
    known = (here / "run/01-grow/answers.jsonl").read_bytes()
    assert known.count(b"\n") == 2
    folder = write()
    assert (folder / "answers.jsonl").read_bytes().startswith(known)
    assert digest(folder) == digest(write(run="straight"))


def test_a_reward_model_does_not_write(world, here):
    with pytest.raises(UserError, match="is a reward model; want a policy"):
        make("self_instruct", f"model={world.reward}")


# --- going on


@pytest.mark.parametrize("calls", [1, 4, 9])
def test_a_killed_stage_asks_nothing_twice(here, calls):
    with fake_author() as author:

        def grown():
            return make("self_instruct", *SMALL, "answer=true", "author.num_at_once=1", url=author.url)

        assert dies(grown, Journal, "append", calls)
        num_known = len(rows_of(here / "run/01-grow/answers.jsonl"))
        assert num_known == calls - 1
        known = [(body["seed"], body["messages"]) for body in author.bodies[:num_known]]
        author.requests.clear()
        folder = grown()
        asked = [(body["seed"], body["messages"]) for body in author.bodies]
    with fake_author() as other:
        straight = make("self_instruct", *SMALL, "answer=true", url=other.url, run="straight")
    assert files(folder) == files(straight)
    assert digest(folder) == digest(straight)
    everything = [(body["seed"], body["messages"]) for body in other.bodies]
    assert sorted(map(str, known + asked)) == sorted(map(str, everything))


def test_killed_before_the_manifest(here):
    with fake_author() as author:
        assert dies(lambda: make("translate", url=author.url), module, "write_manifest", 1)
        assert len(author.bodies) == 4
        folder = make("translate", url=author.url)
        assert len(author.bodies) == 4, "every answer was there"
    assert read_manifest(folder).kind == "dataset"


def test_an_endpoint_that_moves(here):
    """Some answers, then silence; at another address the same stage goes on."""
    with fake_author() as author:

        def three_times(body):
            if len(author.bodies) == 3:
                author.failures.extend([(500, {}, b"")] * 99)
            return words(body)

        author.answer = three_times
        with pytest.raises(UserError, match="the author cannot be reached"):
            make("translate", "author.num_at_once=1", url=author.url)
    with fake_author() as other:
        make("translate", url=other.url)
    assert len(author.bodies) == 3
    assert len(other.bodies) == 1


def test_the_same_again_and_another_seed(here):
    with fake_author() as author:
        first = files(make("self_instruct", *SMALL, url=author.url))
        assert files(make("self_instruct", *SMALL, "author.num_at_once=1", url=author.url, run="again")) == first
        assert files(make("self_instruct", *SMALL, "runtime.seed=7", url=author.url, run="other")) != first


def test_a_finished_stage_is_skipped_or_refused(here, capsys):
    with fake_author() as author:
        make("translate", url=author.url)
        num_asked = len(author.bodies)
        make("translate", "author.num_at_once=3", url=author.url)
        assert "is finished and unchanged, skipped" in capsys.readouterr().err
        with pytest.raises(UserError, match="begun with other options or inputs: max_rows 0 -> 2"):
            make("translate", "max_rows=2", url=author.url)
        with pytest.raises(UserError, match=r"author\.model wise -> dull"):
            make("translate", "author.model=dull", url=author.url)
        assert len(author.bodies) == num_asked


def test_no_row_came_of_it(here):
    with fake_author(lambda _: "No.") as author, pytest.raises(UserError, match="no new row came of it") as caught:
        make("self_instruct", *SMALL, url=author.url)
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert "10 × fewer than 4 words" in str(caught.value)
    assert len(rows_of(here / "run/01-grow/dropped.jsonl")) == 10


def test_the_key_is_in_no_file(here, monkeypatch):
    monkeypatch.setenv("AUTHOR_KEY", "sk-canary")
    with fake_author() as author:
        folder = make("translate", "author.api_key_variable=AUTHOR_KEY", url=author.url)
    assert {headers["Authorization"] for (_, headers), _ in author.requests} == {"Bearer sk-canary"}
    assert all(b"canary" not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


# --- the command


def test_the_command_says_where_the_rows_are(here, capsys):
    assert command(["data", "grow", "--method", "chats", "--data", "chats.jsonl", "--output", "runs/chats"]) == 0
    said = capsys.readouterr()
    assert "Rows: runs/chats/01-grow" in said.out
    assert "next:   fairlead data show runs/chats/01-grow/train.jsonl" in said.out
    assert "3 rows; 2 refused, see runs/chats/01-grow/dropped.jsonl" in said.err


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (["--data", "absent.jsonl"], 66, "absent.jsonl: there is no such file"),
        ([], 2, "data: no rows are named"),
        (["--data", "seeds.jsonl", "--method", "translate"], 2, "nobody is named who writes"),
        (["--data", "seeds.jsonl", "--method", "translate", "--model", "./absent"], 66, "there is no such model"),
        (["--data", "bad.jsonl"], 65, "1 of 2 rows cannot be used"),
    ],
)
def test_what_is_refused_before_anything_is_loaded(here, capsys, given, code, says):
    write_rows(here / "bad.jsonl", [{"prompt": "one"}, {"prompt": ""}])
    method = [] if "--method" in given else ["--method", "chats"]
    assert command(["data", "grow", *method, *given]) == code
    assert says in capsys.readouterr().err
    assert not (here / "runs/grown/01-grow/stage.json").exists()


def test_rows_that_cannot_be_read_are_listed(here):
    write_rows(here / "chats.jsonl", [{"messages": turns(CHATS[0])}, {"messages": []}])
    folder = make("chats", "max_reject_rate=0.5")
    assert [row["line"] for row in rows_of(folder / "rejects.jsonl")] == [2]


def test_columns_and_encoding_of_the_users_own(here, capsys):
    plain = (make("chats") / "train.jsonl").read_text()
    rows = "".join(f"{orjson.dumps({'talk': turns(texts)}).decode()}\n" for texts in CHATS)
    (here / "chats.jsonl").write_text(rows, encoding="utf-16")
    folder = make("chats", "columns=[messages=talk]", "encoding=utf-16", run="other")
    assert (folder / "train.jsonl").read_text() == plain
    assert "read as UTF-16" in capsys.readouterr().err


# --- options


SEEN = {  # option: value, the method that sees it, what stands beside it in both runs
    "max_rows": ("2", "translate", ()),
    "answer": ("true", "translate", ()),
    "min_words": ("7", "self_instruct", ()),
    "self_instruct.num_instructions": ("5", "self_instruct", ()),
    "self_instruct.max_requests": ("1", "self_instruct", ()),
    "self_instruct.requests_per_round": ("1", "self_instruct", ()),
    "self_instruct.num_examples": ("4", "self_instruct", ()),
    "self_instruct.num_own": ("0", "self_instruct", ()),
    "self_instruct.max_similarity": ("0.4", "self_instruct", ()),
    "self_instruct.max_words": ("8", "self_instruct", ()),
    "self_instruct.excluded": ("[bread]", "self_instruct", ()),
    "self_instruct.num_answered": ("2", "self_instruct", ("answer=true",)),
    "chats.turns": ("every", "chats", ()),
    "chats.max_overlap": ("0", "chats", ()),
    "chats.pii.enabled": ("false", "chats", ()),
    "chats.pii.email": ("drop", "chats", ()),
    "chats.pii.private_ips": ("true", "chats", ()),
    "runtime.seed": ("7", "self_instruct", ()),
}
TOLD = {  # option: value, field of a request
    "sampling.max_new_tokens": ("9", "max_tokens", 9), "sampling.temperature": ("0.1", "temperature", 0.1),
    "answer_sampling.temperature": ("0.1", "temperature", 0.1), "author.model": ("dull", "model", "dull"),
}  # fmt: skip
ELSEWHERE = (
    "output", "method", "data", "max_reject_rate", "columns", "encoding", "model",  # above
    "author.",  # in tests/synthesize
    "sampling.", "answer_sampling.",  # what each does is the engine's; what is told of it, in test_author.py
    "chats.pii.",  # what each kind is, in tests/data/filters
    "runtime.",
)  # fmt: skip


@pytest.fixture(scope="module")
def endpoint():
    """One for all that asks whatever it is asked: it talks longer where answers were shown before."""
    with fake_author(lambda body: words(body) + (" more" if len(body["messages"]) > 1 else "")) as author:
        yield author


@pytest.mark.parametrize("option", SEEN)
def test_an_option_is_seen(here, endpoint, option):
    value, method, beside = SEEN[option]
    small = SMALL if method == "self_instruct" else ()
    small = tuple(word for word in small if not word.startswith(option))
    url = "" if method == "chats" else endpoint.url
    before = make(method, *small, *beside, url=url)
    after = make(method, *small, *beside, f"{option}={value}", url=url, run="after")
    assert (before / "train.jsonl").read_bytes() != (after / "train.jsonl").read_bytes()


@pytest.mark.parametrize("option", TOLD)
def test_an_option_is_told(here, option):
    value, field, wanted = TOLD[option]
    with fake_author() as author:
        make("translate", "answer=true", f"{option}={value}", url=author.url)
    told = [body[field] for body in author.bodies]
    assert told[-1 if option.startswith("answer") else 0] == wanted
    assert (told[0] == wanted) == (not option.startswith("answer"))


def test_every_option_is_in_a_table():
    known = {option.path for option in options(GrowConfig)}
    assert {*SEEN, *TOLD} <= known
    assert not [path for path in known - {*SEEN, *TOLD} if not path.startswith(ELSEWHERE)]


# --- ranks


@pytest.mark.slow
def test_two_ranks_write_what_one_writes(write, here):
    alone = write()
    given = words_of_run(here)
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fairlead"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*line, "data", "grow", *given], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert files(here / "two/01-grow") == files(alone)
    assert read_manifest(here / "two/01-grow").world_size == 2


def words_of_run(here):
    """The options of the run in `here/run`, for a run called two."""
    config = read_manifest(here / "run/01-grow").config
    given = ["output=two", f"model={config['model']}", "data=seeds.jsonl", "answer=true", *MACHINE]
    given += [
        f"self_instruct.{name}={config['self_instruct'][name]}"
        for name in ("num_examples", "num_own", "max_requests", "requests_per_round")
    ]
    return [*given, "sampling.temperature=0", "answer_sampling.temperature=0", "sampling.max_new_tokens=120"]
