"""What a user sees who gives something wrong: message, fix and exit code, through the installed command."""

import json
import os
import shutil
import subprocess

import pytest

from fairlead.artifacts.identity import check_identity
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import Manifest, write_manifest
from fairlead.cli.main import run
from fairlead.cli.preflight import check_journey
from fairlead.config.journey import JourneyConfig
from fairlead.config.parse import load
from fairlead.errors import ExitCode, UserError
from installed import COMMAND, failure, fairlead
from tiny import tiny_model, write_conversations, write_preferences

USAGE, BAD_DATA, MISSING, IO, RETRY = (
    ExitCode.USAGE, ExitCode.BAD_DATA, ExitCode.MISSING_INPUT, ExitCode.IO, ExitCode.RETRY
)  # fmt: skip
ALONE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
TORCH_MISSING = {"PYTHONPATH": "no-torch"}  # a folder with a torch that cannot be imported: the answer comes before it

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="fairlead is not installed beside this Python")


@pytest.fixture
def here(tmp_path):
    """A folder with good rows, and a torch that fails on import for those who ask for it."""
    write_conversations(tmp_path / "rows.jsonl", 8)
    write_preferences(tmp_path / "pairs.jsonl", 8)
    (tmp_path / "no-torch").mkdir()
    (tmp_path / "no-torch" / "torch.py").write_text("raise SystemExit('torch was imported')")
    return tmp_path


@pytest.fixture
def early(here):
    """Run a command that must be refused before torch is imported."""

    def refused(code, *words, **environment):
        return failure(fairlead(*words, cwd=here, **ALONE, **environment, **TORCH_MISSING), code)

    return refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model; copied before it is damaged."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


# --- rows


@pytest.mark.parametrize(
    ("name", "content", "code", "says", "fix"),
    [
        ("empty.jsonl", "", MISSING, "empty.jsonl: the file is empty", "name a file with rows"),
        ("blank.jsonl", "\ufeff \n\n", MISSING, "blank.jsonl: the file is empty", "name a file with rows"),
        ("a.docx", "x", USAGE, "a.docx: this kind of file is not known; got .docx; want .json", "convert it"),
        ("u.jsonl", '{"foo": 1}\n', BAD_DATA, "got the keys 'foo'; want one of: ", "rename the columns"),
        ("p.jsonl", b"version https://git-lfs.github.com/spec/v1\n", BAD_DATA, "Git-LFS pointer", "git lfs pull"),
        ("z.json", '[{"prompt": "a", "completion": "b"},\n{"prompt"', BAD_DATA, "z.json:2: this is not JSON", "mend"),
        ("cn.jsonl", '{"prompt": "你好", "completion": "再见"}'.encode("gb18030"), BAD_DATA, "", ""),
        ("bomb.jsonl.gz", None, BAD_DATA, "unpacks to far more than it should", "unpack it yourself"),
        ("b.parquet", b"PAR1 not parquet", BAD_DATA, "b.parquet", "fetch it again"),
    ],
)
def test_files_of_rows(here, early, name, content, code, says, fix):
    if content is None:
        import gzip

        content = gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 1_000_000)
    (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    lines = early(code, "sft", "--data", name)
    assert says in lines[0]
    assert fix in lines[-1]


def test_a_broken_line_is_named_and_kept(here, early):
    with (here / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "cut off\n')
    lines = early(BAD_DATA, "sft", "--data", "rows.jsonl", "--output", "run")
    assert lines[0].startswith("error: rows.jsonl:9: 1 of 9 rows cannot be used; got 1 × ")
    assert "want at most 1.00% unusable rows" in lines[0]
    rejects = here / "run" / "01-sft" / "rejects.jsonl"
    assert lines[-1] == f"fix: mend the rows listed in {rejects.relative_to(here)}, or raise data.max_reject_rate"
    assert json.loads(rejects.read_text())["line"] == 9


def test_rows_of_another_kind(early):
    lines = early(USAGE, "sft", "--data", "pairs.jsonl")
    assert lines[0].startswith("error: pairs.jsonl: this file holds preferences; got layout ")
    assert "fairlead reward" in lines[-1]
    assert "give them to `fairlead sft`" in early(USAGE, "dpo", "--data", "rows.jsonl")[-1]


def test_rows_that_are_not_there(early):
    assert "data.train: no rows are named" in early(USAGE, "reward")[0]
    assert early(MISSING, "sft", "--data", "none.jsonl")[0].startswith("error: none.jsonl: there is no such file")


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "q", "output": "a", "history": 5},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": [1]}]},
    ],
)
def test_a_value_of_another_type_is_an_unusable_row(here, early, row):
    (here / "odd.jsonl").write_text(json.dumps(row))
    assert "odd.jsonl:1: 1 of 1 rows cannot be used" in early(BAD_DATA, "sft", "--data", "odd.jsonl")[0]


# --- options and recipes


@pytest.mark.parametrize(
    ("recipe", "says", "fix"),
    [
        ("sft:\n  optim:\n    learning_rte: 1e-5\n", "r.yaml:3: unknown option sft.optim.learning_rte", "optim.lr?"),
        ("sft:\n  batch: {rows: -1}\n", "r.yaml:2: sft.batch.rows cannot be used; got -1; want greater than 0", "16"),
        ("sft:\n  data: {train: [rows.jsonl}\n", "r.yaml:2:", ""),
        ("a: !!python/object/apply:os.system [ls]\n", "r.yaml:1", "tag"),
        ("sft:\n  model: {name: '@nope'}\n", "sft names @nope, which no earlier stage of this recipe makes", "none"),
        ("sft: {data: {train: ['@replies/train.jsonl']}}\nreplies: {}\n", "sft names @replies/train.jsonl", "none"),
    ],
)
def test_recipes(here, early, recipe, says, fix):
    (here / "r.yaml").write_text(recipe)
    lines = early(USAGE, "run", "r.yaml")
    assert says in lines[0]
    assert fix in lines[-1]


JOURNEY = """
split: {sources: [rows.jsonl], sft: 4, preference: 2, held_out: 2, tokenizer: ./tiny}
sft: {model: {name: ./tiny}, data: {train: "@split/sft.jsonl", held_out: rows.jsonl}}
replies: {data: {train: "@split/preference.jsonl"}}
reward: {model: {name: "@sft"}, data: {train: [pairs.jsonl, "@replies/train.jsonl"]}}
ppo: {model: {name: "@sft"}, reward_model: "@reward", data: {train: rows.jsonl}}
eval: {prompts: [rows.jsonl], reward_model: "@reward"}
"""


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        ("eval.prompts=none.jsonl", MISSING, "none.jsonl: there is no such file"),
        ("eval.preferences=rows.jsonl", USAGE, "rows.jsonl: this file holds conversations"),
        ("eval.reward_model=run/01-sft", USAGE, "run/01-sft is a policy; want a reward model for eval.reward_model"),
        ("eval.parent=./none", MISSING, "eval.parent: there is no such model"),
        ("eval={}", USAGE, "eval.prompts: no rows are named"),
        ("ppo.ptx_data=none.jsonl", MISSING, "none.jsonl: there is no such file"),
        ("ppo.ptx_data=pairs.jsonl", USAGE, "pairs.jsonl: this file holds preferences"),
        ("ppo.data.train=", USAGE, "ppo.data.train: no rows are named"),
        ("sft.data.train=pairs.jsonl", USAGE, "pairs.jsonl: this file holds preferences"),
        ("sft.data.held_out=pairs.jsonl", USAGE, "pairs.jsonl: this file holds preferences"),
        ("reward.data.train=rows.jsonl", USAGE, "rows.jsonl: this file holds conversations"),
        ("split.sources=", USAGE, "split.sources: no rows are named"),
        ("split.sources=pairs.jsonl", USAGE, "pairs.jsonl: this file holds preferences"),
        ("split.tokenizer=./none", MISSING, "split.tokenizer: there is no such model"),
        ("replies.data.train=none.jsonl", MISSING, "none.jsonl: there is no such file"),
        ("replies.model=./none", MISSING, "replies.model: there is no such model"),
        ("replies.method=best_of_n", USAGE, "replies.reward_model: no reward model is named"),
    ],
)
def test_every_stage_of_a_journey_is_checked_before_the_first(here, early, folder, word, code, says):
    shutil.copytree(folder, here / "tiny")
    artifact(here / "run" / "01-sft", "policy", "sft")
    (here / "r.yaml").write_text(JOURNEY)
    assert says in early(code, "run", "r.yaml", word)[0]


def test_the_journey_itself_has_nothing_to_refuse(here, folder, monkeypatch):
    monkeypatch.chdir(here)
    shutil.copytree(folder, here / "tiny")
    (here / "r.yaml").write_text(JOURNEY)
    check_journey(load(JourneyConfig, here / "r.yaml", []))


@pytest.mark.parametrize("text", ["", "eval: {prompts: rows.jsonl}\n"])
def test_a_recipe_without_a_stage(here, early, text):
    (here / "r.yaml").write_text(text)
    lines = early(USAGE, "run", "r.yaml")
    assert lines[0] == "error: r.yaml: the recipe has no stage"
    assert "split, sft, replies, reward, dpo, kto, ppo" in lines[-1]


@pytest.mark.parametrize(
    ("words", "says", "fix"),
    [
        (["sft", "--optim.lr", "true"], "optim.lr cannot be used; got true; want number", "default 0.0002"),
        (["data", "show", "rows.jsonl", "--rows", "-38"], '"-38" for --rows. Must be >= 1', "help"),
        (["data", "show", "rows.jsonl", "--max-length", "0"], '"0" for --max-length. Must be >= 1', "help"),
        (["sft", "--optim.lr", "5"], "optim.lr cannot be used; got 5; want less than or equal to 1", "default 0.0002"),
        (["sft", "--learning-rate", "1e-5"], "unknown option learning_rate", "did you mean optim.lr?"),
        (["sft", "rows.jsonl"], "'rows.jsonl' is neither an option nor a value of one", "--data rows.jsonl"),
        (["ppo", "--data", "rows.jsonl"], "reward_model: no reward model is named", "fairlead reward"),
        (["ppo", "--mini-batch-size", "5"], "ppo.mini_batch_size=5 does not divide", "choose a divisor"),
        (["eval", "smollm2-135m-instruct", "--output", "x"], "", ""),
    ],
)
def test_options(early, tmp_path, words, says, fix):
    if words[0] == "eval":
        (tmp_path / "cache").mkdir()
        assert "fairlead fetch" in early(MISSING, *words, XDG_CACHE_HOME=str(tmp_path / "cache"))[-1]
        return
    lines = early(USAGE, *words)
    assert says in lines[0]
    assert fix in lines[-1]


# --- artifacts and models


def artifact(folder, kind, stage):
    (folder / "model").mkdir(parents=True)
    write_manifest(folder, Manifest(kind=kind, stage=stage))
    return folder


def test_wrong_kind_of_artifact(here, early):
    artifact(here / "run" / "01-sft", "policy", "sft")
    artifact(here / "run" / "02-reward", "reward", "reward")
    lines = early(USAGE, "ppo", "--data", "rows.jsonl", "--reward-model", "run/01-sft")
    assert lines[0] == "error: run/01-sft is a policy; want a reward model for reward_model"
    assert lines[-1] == "fix: pass a folder made by `fairlead reward`"
    for words in (["sft", "--data", "rows.jsonl", "--model", "run/02-reward"], ["chat", "run/02-reward"]):
        assert "run/02-reward is a reward model; want a policy" in early(USAGE, *words)[0]
    assert "run/02-reward is a reward model; want a policy" in early(USAGE, "export", "run/02-reward", "x")[0]


BEST_OF_N = ("replies", "--model", "tiny", "--data", "rows.jsonl", "--method", "best_of_n")
JUDGED = (*BEST_OF_N, "--rewards", "judge", "--judge.model", "wise", "--judge.num-retries", "0", "--judge.url")


@pytest.mark.parametrize(
    ("words", "code", "says", "fix"),
    [
        (("replies", "--data", "rows.jsonl"), USAGE, "model is missing", "--model RUN/01-sft"),
        ((*BEST_OF_N[:-1], "worst_of_n"), USAGE, "method cannot be used; got worst_of_n", "own_rejected"),
        ((*BEST_OF_N, "--num-responses-per-prompt", "1"), USAGE, "the best of one is also the worst", "2 or more"),
        ((*BEST_OF_N, "--min-score", "1"), USAGE, "replies.min_score has no meaning for", "leave it out"),
        (BEST_OF_N, USAGE, "reward_model: no reward model is named", "fairlead reward"),
        ((*BEST_OF_N, "--reward-model", "run/01-sft"), USAGE, "run/01-sft is a policy; want a reward model", "reward`"),
        ((*BEST_OF_N[:3], "--data", "pairs.jsonl"), USAGE, "pairs.jsonl: this file holds preferences", "reward"),
        ((*JUDGED, "localhost"), USAGE, "judge.url=localhost is no address of an endpoint", "http://HOST:PORT/v1"),
        (
            (*JUDGED, "http://x/v1", "--judge.prompt-file", "none"),
            MISSING,
            "none: the question to the judge",
            "prompt_",
        ),
        (
            (*JUDGED, "http://x/v1", "--judge.api-key-variable", "NO_KEY"),
            USAGE,
            "NO_KEY: this environment var",
            "export",
        ),
    ],
)
def test_replies_that_cannot_be_made(here, early, folder, words, code, says, fix):
    shutil.copytree(folder, here / "tiny")
    artifact(here / "run" / "01-sft", "policy", "sft")
    lines = early(code, *words)
    assert says in lines[0]
    assert fix in lines[-1]


def test_a_judge_out_of_reach(here, folder):
    shutil.copytree(folder, here / "tiny")
    few = ("--ended-only", "false", "--sampling.max-new-tokens", "2", "--num-responses-per-prompt", "8")
    lines = failure(fairlead(*JUDGED, "http://127.0.0.1:1/v1", *few, cwd=here, **ALONE), MISSING)
    assert lines[0].startswith("error: http://127.0.0.1:1/v1/chat/completions: the judge cannot be reached; got ")
    assert "judge.url" in lines[-1]


def test_a_reward_model_is_measured_on_preferences(here, early):
    artifact(here / "a b" / "02-reward", "reward", "reward")
    for rows in (["--prompts", "rows.jsonl"], ["--preferences", "pairs.jsonl", "--conversations", "rows.jsonl"], []):
        lines = early(USAGE, "eval", "a b/02-reward", *rows)
        assert "a b/02-reward is a reward model, which is measured on preferences alone" in lines[0]
        assert lines[-1] == "fix: fairlead eval 'a b/02-reward' --preferences HELD_OUT_PAIRS.jsonl"


def test_rows_beside_the_prompts_of_ppo(here, early):
    artifact(here / "run" / "02-reward", "reward", "reward")
    words = ["ppo", "--data", "rows.jsonl", "--reward-model", "run/02-reward", "--ptx-data"]
    assert "none.jsonl: there is no such file" in early(MISSING, *words, "none.jsonl")[0]
    assert "pairs.jsonl: this file holds preferences" in early(USAGE, *words, "pairs.jsonl")[0]


def test_a_stage_or_run_that_is_not_finished(here, early):
    begun = here / "run" / "01-sft"
    begun.mkdir(parents=True)
    check_identity(begun, {"config": {}})
    for words in (["chat", "run/01-sft"], ["export", "run/01-sft", "x"], ["sft", "--model", "run/01-sft"]):
        lines = early(MISSING, *words)
        assert lines[0] == "error: run/01-sft is not finished; want manifest.json"
        assert "give the command that made it once more" in lines[-1]
    artifact(here / "run" / "02-reward", "reward", "reward")
    for words in (["chat", "run"], ["export", "run", "x"], ["eval", "run", "--prompts", "rows.jsonl"]):
        lines = early(MISSING, *words)
        assert "run: this run has no finished policy; got 01-sft (unfinished), 02-reward" in lines[0]
        assert lines[-1] == "fix: `fairlead runs run` says how to go on"


def test_a_name_with_an_equals_sign_is_a_model_when_it_is_there(here, early):
    artifact(here / "a=b", "reward", "reward")
    assert "a=b is a reward model; want a policy for model" in early(USAGE, "chat", "a=b")[0]


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("", MISSING, "model.name: the name of the model is empty"),
        ("./none", MISSING, "there is no such model; got ./none"),
        ("none", MISSING, "there is no such model; got none; want a folder, a hub id (owner/name)"),
        ("a/b/c", MISSING, "there is no such model"),
        ("rows.jsonl", USAGE, "rows.jsonl is a file; want a model folder"),
    ],
)
def test_model_that_is_not_there(early, name, code, says):
    assert says in early(code, "sft", "--data", "rows.jsonl", "--model", name)[0]


def test_model_folders_that_may_not_be_loaded(here, early, folder):
    def refused(name, change, code, says):
        copy = shutil.copytree(folder, here / name)
        change(copy)
        lines = early(code, "sft", "--data", "rows.jsonl", "--model", name)
        assert says in "\n".join(lines)

    def to_pickle(copy):
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")

    def to_pointer(copy):
        (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")

    def to_code(copy):
        (copy / "modeling.py").write_text("print('hello')")

    def to_stump(copy):
        path = copy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    refused("pickled", to_pickle, BAD_DATA, "pytorch_model.bin")
    refused("pointer", to_pointer, BAD_DATA, "model.safetensors is a Git-LFS pointer, not the file itself")
    refused("code", to_code, BAD_DATA, "modeling.py is code inside a model folder")
    refused("stump", to_stump, BAD_DATA, "model.safetensors is cut off or damaged")


def test_tokenizer_and_embedding_disagree(here, folder):
    copy = shutil.copytree(folder, here / "tall")
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 320, "content": "<pad>"})
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    lines = failure(fairlead("sft", "--data", "rows.jsonl", "--model", "tall", cwd=here, **ALONE), BAD_DATA)
    assert "tall: ids-beyond-embedding: No row has such an id, but the tokenizer knows ids up to 320" in lines[0]
    assert "got highest id 320; token id 320" in lines[0]
    assert "want ids below 320" in lines[0]


def test_hub_out_of_reach(here):
    words = ["chat", "--model", "nobody/nothing", "--prompt", "x"]
    lines = failure(fairlead(*words, cwd=here, **ALONE, HF_HOME=str(here)), MISSING)
    assert lines[0].startswith("error: nobody/nothing: there is no such folder, and as a hub id (owner/name) it could")
    assert "check the path" in lines[-1]
    assert "a folder on disk" in lines[-1]


def test_no_gpu(here, folder, monkeypatch, capsys):
    monkeypatch.chdir(here)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(["sft", "--data", "rows.jsonl", "--model", str(folder), "--runtime.device", "cuda"]) == USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: runtime.device: no CUDA device is visible; got cuda; want cpu or auto"
    assert second == "fix: runtime.device=cpu (or auto)"


def test_adapter_whose_base_changed(here, folder, monkeypatch, capsys):
    monkeypatch.chdir(here)
    base = shutil.copytree(folder, here / "base")
    assert run(["sft", "--data", "rows.jsonl", "--model", "base", "--max-steps", "1", "--output", "run"]) == 0
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    capsys.readouterr()
    assert run(["chat", "run/01-sft", "--prompt", "x"]) == BAD_DATA
    assert "the adapter was trained on other base weights; got base " in capsys.readouterr().err


# --- folders


def test_output_in_use(here, early):
    with lock(here / "run" / "01-sft"):
        lines = early(RETRY, "sft", "--data", "rows.jsonl", "--output", "run")
    assert lines[0].startswith(f"error: run/01-sft is in use by pid {os.getpid()} on host ")


def test_output_that_cannot_be_written(here, early):
    (here / "file").write_text("")
    lines = early(IO, "sft", "--data", "rows.jsonl", "--output", "file/run")
    assert "a file is in the way" in lines[0]
    assert "no permission to write" in early(IO, "sft", "--data", "rows.jsonl", "--output", "/proc/run")[0]


def test_disk_without_room(here):
    (here / "small").mkdir()
    mount = f"mount -t tmpfs -o size=1m none {here / 'small'}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    inside = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" "$@"']
    result = fairlead("sft", "--data", "rows.jsonl", "--output", "small/run", cwd=here, before=inside, **TORCH_MISSING)
    lines = failure(result, IO)
    assert lines[0].startswith("error: disk full: needs ")
    assert "small/run" in lines[0]
    assert "fairlead clean" in lines[-1]


# --- what newcomers tried


def test_a_journey_in_the_folder_of_single_stages(here, early, folder):
    artifact(here / "run" / "01-sft", "policy", "sft")
    recipe = f"sft:\n  model: {{name: {folder}}}\n  data: {{train: [rows.jsonl]}}\n"
    (here / "j.yaml").write_text(f"output: run\n{recipe}")
    for flag in ([], ["--dry-run"]):
        lines = early(USAGE, "run", "j.yaml", *flag)
        assert lines[0].startswith("error: run: this folder holds stages that no recipe made")
        assert "output=" in lines[-1]
    assert sorted(path.name for path in (here / "run").iterdir()) == ["01-sft"]


@pytest.mark.parametrize(
    ("words", "code", "says", "fix"),
    [
        (("sft", "j.yaml"), USAGE, "unknown option sft", "fairlead run j.yaml"),
        (("run", "demo", "--quick"), USAGE, "belong to the demo", "fairlead demo --quick"),
        (("demo", "--fast", "--dry-run"), USAGE, "unknown option fast", ""),
        (("demo", "quick", "--dry-run"), USAGE, "neither an option", "--OPTION quick"),
        (("run", "nosuch.yaml"), MISSING, "this recipe does not exist", "check the path"),
        (("data", "show", "rows.jsonl", "rows=1"), USAGE, "rows=1", "`fairlead data show --help`"),
        (("doctor", "x"), USAGE, "x", "`fairlead doctor --help`"),
        (("runs", "nosuch"), MISSING, "nosuch: there is no such folder", "check the path"),
        (("clean", "nosuch"), MISSING, "nosuch: there is no such folder", "check the path"),
        (("chat", "several"), USAGE, "several: this folder holds runs; got a, b", "several/b"),
        (("chat", "rows.jsonl"), USAGE, "rows.jsonl is a file", "a folder with config.json"),
        (("eval", "smollm2-135m-instruct", "--preferences", "rows.jsonl"), USAGE, "holds conversations",
         "`fairlead eval` as --conversations"),
    ],
)  # fmt: skip
def test_mistakes_of_newcomers(here, early, words, code, says, fix):
    (here / "j.yaml").write_text("sft:\n  num_epochs: 1\n")
    for run_name in ("a", "b"):
        artifact(here / "several" / run_name / "01-sft", "policy", "sft")
    lines = failure(fairlead(*words, cwd=here, **ALONE), code) if words[0] == "demo" else early(code, *words)
    assert says in lines[0]
    assert fix in lines[-1]


def test_a_model_without_its_tokenizer(here, folder):
    shutil.copytree(folder, here / "broken", ignore=shutil.ignore_patterns("tokenizer*"))
    lines = failure(fairlead("chat", "broken", "--prompt", "hi", cwd=here, **ALONE), MISSING)
    assert lines[0].startswith("error: broken: the tokenizer of this model cannot be loaded; got ")
    assert "download the whole folder" in lines[-1]


def test_only_layouts_that_a_command_takes_are_offered(here, early):
    (here / "u.jsonl").write_text('{"foo": 1}\n')
    offered = early(BAD_DATA, "sft", "--data", "u.jsonl")[0]
    assert "alpaca" in offered
    assert "labelled" not in offered


def test_many_changed_options_are_counted(tmp_path):
    before = {"config": {f"option_{i}": 1 for i in range(9)}}
    check_identity(tmp_path, before)
    with pytest.raises(UserError, match=r"option_4 1 -> 2 \(and 4 more\)"):
        check_identity(tmp_path, {"config": dict.fromkeys(before["config"], 2)})
