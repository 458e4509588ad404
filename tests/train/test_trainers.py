"""Every trainer from its first line to its folder on disk: loss, files, skipping, refusing."""

import importlib
import json
import math

import pytest
from safetensors.torch import load_file

from fairlead.artifacts.identity import files_by_name
from fairlead.artifacts.journal import Journal
from fairlead.artifacts.lock import lock
from fairlead.artifacts.manifest import digest, read_manifest, verify
from fairlead.errors import ExitCode, UserError
from fairlead.evaluate.summary import read_evaluation
from tiny import tiny_model
from tiny_stages import ROWS_OF, TRAINERS, fingerprints, preferences, rows_of, write_rows

KINDS = {"sft": "policy", "reward": "reward", "dpo": "policy", "kto": "policy", "ppo": "policy", "grpo": "policy"}


@pytest.fixture(scope="module")
def stages(world, tmp_path_factory):
    """One finished stage per trainer, all in one run."""
    run = tmp_path_factory.mktemp("run")
    more = {"ppo": "num_iterations=3", "grpo": "num_iterations=3"}
    return {name: world.run(name, run, more.get(name, "num_epochs=3"), "checkpoint.every_steps=2") for name in TRAINERS}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_stage_leaves_what_the_architecture_names(stages, trainer):
    stage = stages[trainer]
    assert stage.name.endswith(trainer)
    manifest = verify(stage)  # every file has the digest that was written
    assert manifest.kind == KINDS[trainer]
    assert manifest.stage == trainer
    assert (manifest.num_threads, manifest.world_size, manifest.seed) == (1, 1, 42)
    assert manifest.wall_seconds > 0
    assert manifest.peak_memory_bytes > 10**7
    assert set(manifest.parents) == ({"model", "reward"} if trainer in ("ppo", "grpo") else {"model"})
    assert manifest.base.digest
    assert len(manifest.data_digests) == 1
    for name in ("README.md", "report.html", "evaluation.json", "stage.json", "rejects.jsonl"):
        assert (stage / name).is_file(), name
    assert (stage / "model" / "adapter_model.safetensors").is_file()
    assert (stage / "model" / "tokenizer.json").is_file()
    assert (stage / "critic" / "adapter_model.safetensors").is_file() == (trainer == "ppo")
    assert not (stage / "lock.json").exists()
    head = "base_model.model.score.weight"
    assert (head in load_file(stage / "model" / "adapter_model.safetensors")) == (trainer == "reward")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_one_line_per_step_in_metrics_and_timings(stages, trainer):
    metrics, timings = (rows_of(stages[trainer] / f"{name}.jsonl") for name in ("metrics", "timings"))
    steps = list(range(1, len(metrics) + 1))
    assert [row["step"] for row in metrics] == steps
    assert [row["step"] for row in timings] == steps
    assert len(steps) == {"sft": 12, "reward": 9, "dpo": 9, "kto": 12, "ppo": 3, "grpo": 3}[trainer]
    for row in metrics:
        assert row["tokens"] > 0
        assert row["flops"] > 0
        assert "seconds" not in row
    for row in timings:
        assert row["tokens_per_second"] == pytest.approx(metrics[row["step"] - 1]["tokens"] / row["seconds"])
        assert 0 < row["mfu"] < 1
        assert {"samples_per_second", "steps_per_second", "peak_memory_bytes"} <= row.keys()
    evaluation = read_evaluation(stages[trainer] / "evaluation.json")
    assert evaluation.stage.sizes["tokens"] == sum(row["tokens"] for row in metrics)


@pytest.mark.parametrize("trainer", ["ppo", "grpo"])
def test_the_phases_of_an_iteration_are_timed(stages, trainer):
    phases = {"generate", "score", "measure", "learn_policy"} | ({"learn_critic"} if trainer == "ppo" else set())
    rows = rows_of(stages[trainer] / "timings.jsonl")
    for row in rows:
        taken = {key.removesuffix("_seconds"): row[key] for key in row if key.endswith("_seconds")}
        assert taken.keys() - {"save"} == phases
        assert all(seconds > 0 for seconds in taken.values())
        assert sum(taken.values()) <= row["seconds"]
    assert ["save_seconds" in row for row in rows] == [False, True, True]  # of the iteration before, as in `seconds`


@pytest.mark.parametrize("trainer", ["sft", "reward", "dpo", "kto"])
def test_the_loss_falls(stages, trainer):
    losses = [row["loss"] for row in rows_of(stages[trainer] / "metrics.jsonl")]
    third = len(losses) // 3
    assert sum(losses[-third:]) < 0.97 * sum(losses[:third])
    start = {"dpo": math.log(2), "kto": 0.5}  # the policy is its own reference at first
    if trainer in start:
        assert losses[0] == pytest.approx(start[trainer], abs=1e-6)


def test_held_out_rows_are_measured_before_and_after_sft(stages):
    evaluation = read_evaluation(stages["sft"] / "evaluation.json")
    assert {measured.name for measured in evaluation.likelihoods} <= {"English replies", "Chinese replies"}
    for after, before in zip(evaluation.likelihoods, evaluation.parent_likelihoods, strict=True):
        assert (after.name, after.num_tokens) == (before.name, before.num_tokens)
        assert after.loss < before.loss


@pytest.mark.parametrize("trainer", ["reward", "dpo"])
def test_held_out_pairs_are_measured(stages, trainer):
    (measured,) = read_evaluation(stages[trainer] / "evaluation.json").preferences
    assert measured.num_pairs == 4


def test_the_claims_of_a_reward_model_are_about_all_held_out_pairs(world, tmp_path):
    chinese = [{"prompt": f"北京 {i}", "chosen": "今天 天气 很好", "rejected": "你好"} for i in range(20)]
    pairs = write_rows(tmp_path / "pairs.jsonl", [*preferences(20), *chinese])
    stage = world.run("reward", tmp_path / "run", f"data.train={pairs}", "data.held_out_rows=8")
    whole, *groups = read_evaluation(stage / "evaluation.json").preferences
    assert (whole.name, len(groups)) == ("held-out pairs", 2)
    assert whole.num_pairs == sum(group.num_pairs for group in groups) == 8
    right = sum(group.accuracy * group.num_pairs for group in groups)
    assert whole.accuracy * 8 == pytest.approx(right)
    assert "(8 pairs)" in (stage / "README.md").read_text()


def test_a_collapsed_reward_model_is_no_result(world, tmp_path, monkeypatch):
    """It says the same of everything, so no stage may be trained on it; the checkpoints stay."""

    def flat(_roles, _role, responses, *_):
        return {response: 1.0 + 1e-5 * i for i, response in enumerate(responses)}

    monkeypatch.setattr("fairlead.evaluate.preference_accuracy.response_scores", flat)
    with pytest.raises(UserError, match="has collapsed") as caught:
        world.run("reward", tmp_path, "checkpoint.every_steps=1")
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert "standard deviation of" in str(caught.value)
    (stage,) = tmp_path.iterdir()
    assert not (stage / "manifest.json").exists()
    assert list(stage.glob("checkpoints/step-*"))


@pytest.mark.parametrize(("right", "told"), [(1.0, False), (-1.0, False), (0.0, True)])
def test_an_accuracy_that_may_be_chance_is_told(world, tmp_path, monkeypatch, capsys, right, told):
    """Eight pairs: all right or all wrong is no chance, half of them may be."""

    def judged(_roles, _role, responses, *_):
        """Chosen and rejected of eight pairs take turns."""
        signs = [right or (-1) ** i for i in range(8)]
        return {response: 0.0 if i % 2 else signs[i // 2] for i, response in enumerate(responses)}

    monkeypatch.setattr("fairlead.evaluate.preference_accuracy.response_scores", judged)
    pairs = write_rows(tmp_path / "pairs.jsonl", preferences(60))
    world.run("reward", tmp_path / "run", f"data.train={pairs}", "data.held_out_rows=8", "max_steps=1")
    assert ("which may be chance" in capsys.readouterr().err) == told


def test_samples_of_ppo_are_text_with_scores(stages):
    rows = rows_of(stages["ppo"] / "samples.jsonl")
    assert [row["step"] for row in rows] == [1, 1, 2, 2, 3, 3]
    assert all(row["prompt"] and isinstance(row["score"], float) and "response" in row for row in rows)
    assert all((stages[name] / "samples.jsonl").read_bytes() == b"" for name in ("sft", "reward", "dpo", "kto"))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_finished_and_unchanged_is_skipped(stages, world, trainer, capsys):
    stage = stages[trainer]
    before = {path: path.stat().st_mtime_ns for path in stage.rglob("*")}
    more = {"ppo": "num_iterations=3", "grpo": "num_iterations=3"}.get(trainer, "num_epochs=3")
    # Threads, checkpoints and trackers are no other stage
    again = world.run(trainer, stage.parent, more, "checkpoint.every_steps=1", "metrics.every_steps=7")
    assert again == stage
    assert {path: path.stat().st_mtime_ns for path in stage.rglob("*")} == before
    assert "finished and unchanged, skipped" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", TRAINERS)
def test_changed_options_are_refused_by_name_and_nothing_is_touched(stages, world, trainer, tmp_path):
    stage = stages[trainer]
    before = {path: path.stat().st_mtime_ns for path in stage.rglob("*")}
    more = {"ppo": "num_iterations=3", "grpo": "num_iterations=3"}.get(trainer, "num_epochs=3")
    with pytest.raises(UserError) as caught:
        world.run(trainer, stage.parent, more, "optim.lr=0.02", "data.max_length=255")
    assert caught.value.exit_code is ExitCode.USAGE
    assert "optim.lr 0.01 -> 0.02" in str(caught.value)
    assert "data.max_length 256 -> 255" in str(caught.value)
    assert str(stage) in str(caught.value)
    rows = rows_of(getattr(world, ROWS_OF.get(trainer, "conversations")))
    other = write_rows(tmp_path / "rows.jsonl", [*rows, {"nonsense": 1}])
    with pytest.raises(UserError, match="begun with other options or inputs"):
        world.run(trainer, stage.parent, more, f"data.train={other}", "data.max_reject_rate=1")
    assert {path: path.stat().st_mtime_ns for path in stage.rglob("*")} == before
    verify(stage)


def test_changed_rows_and_parents_are_refused(world, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", rows_of(world.conversations))
    world.run("sft", tmp_path / "run", f"data.train={rows}")
    write_rows(rows, rows_of(world.conversations)[:-1])
    with pytest.raises(UserError, match=r"data.*rows\.jsonl"):
        world.run("sft", tmp_path / "run", f"data.train={rows}")


def test_rows_that_moved_are_the_same_rows(world, tmp_path):
    """A cache elsewhere, or another spelling of the path, makes no other stage."""
    rows = write_rows(tmp_path / "rows.jsonl", rows_of(world.conversations))
    digests = {str(rows): "a" * 64, "/elsewhere/rows.jsonl": "b" * 64, "pairs.jsonl": "c" * 64}
    moved = {"/x/rows.jsonl": "b" * 64, "/y/rows.jsonl": "a" * 64, "/y/pairs.jsonl": "c" * 64}
    assert files_by_name(digests) == files_by_name(moved)
    assert files_by_name(digests) != files_by_name(moved | {"/y/pairs.jsonl": "d" * 64})


def test_a_folder_in_use_is_refused_and_left_alone(world, tmp_path):
    folder = tmp_path / "01-sft"
    with lock(folder), pytest.raises(UserError, match=r"in use by pid \d+") as caught:
        world.run("sft", tmp_path)
    assert caught.value.exit_code is ExitCode.RETRY
    assert not list(folder.glob("*.jsonl"))


def test_equal_runs_in_two_folders_are_equal_parents(world, tmp_path):
    first, second = (world.run("sft", tmp_path / name) for name in ("a", "some-other-name"))
    assert fingerprints(first) == fingerprints(second)
    assert digest(first) == digest(second)
    children = [world.run("dpo", tmp_path / "child", f"model.name={parent}") for parent in (first,)]
    children.append(world.run("dpo", tmp_path / "child-2", f"model.name={second}"))
    assert digest(children[0]) == digest(children[1])
    assert digest(children[0]) != digest(first)


def test_a_moved_run_is_still_the_same(world, tmp_path, capsys):
    run = tmp_path / "run"
    world.run("sft", run)
    world.run("reward", run, f"model.name={run}/01-sft")
    moved = run.rename(tmp_path / "moved")
    capsys.readouterr()
    world.run("reward", moved, f"model.name={moved}/01-sft")
    assert "finished and unchanged" in capsys.readouterr().err


def test_pages_lost_to_a_kill_are_written_again(world, tmp_path):
    stage = world.run("sft", tmp_path)
    (stage / "report.html").unlink()
    (stage / "README.md").unlink()
    world.run("sft", tmp_path)
    assert (stage / "report.html").stat().st_size > 1000
    assert (stage / "README.md").is_file()


def test_rows_that_cannot_be_used_are_listed(world, tmp_path):
    long = {"messages": [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "y"}]}
    rows = write_rows(tmp_path / "rows.jsonl", [*rows_of(world.conversations), {"nonsense": 1}, long])
    stage = world.run("sft", tmp_path / "run", f"data.train={rows}", "data.max_reject_rate=0.5", "data.held_out_rows=0")
    rejected = rows_of(stage / "rejects.jsonl")
    assert [row["line"] for row in rejected] == [25, 26]
    assert "no trained token is left" in rejected[1]["reason"]
    with pytest.raises(UserError, match=r"rejects\.jsonl") as caught:
        world.run("sft", tmp_path / "other", f"data.train={rows}", "data.held_out_rows=0")
    assert caught.value.exit_code is ExitCode.BAD_DATA
    assert rows_of(tmp_path / "other" / "01-sft" / "rejects.jsonl")


def test_no_rows_and_no_reward_model_are_told(world, tmp_path):
    with pytest.raises(UserError, match="no training rows were named"):
        world.run("sft", tmp_path, "data.train=[]")
    with pytest.raises(UserError, match="no reward model was named"):
        world.run("ppo", tmp_path, "reward_model=")
    policy = world.run("sft", tmp_path)
    with pytest.raises(UserError, match="is a policy; want a reward model for ppo's reward_model"):
        world.run("ppo", tmp_path, f"reward_model={policy}")


# What turns to nan in the third step, and after how many calls of it.
BROKEN = {
    "sft": ("sft_loss", 2, lambda out: out * math.nan),
    "reward": ("pairwise_log_sig", 2, lambda out: out * math.nan),
    "dpo": ("dpo_loss", 2, lambda out: (out[0] * math.nan, *out[1:])),
    "kto": ("kto_loss", 2, lambda out: (out[0] * math.nan, *out[1:])),
    "ppo": ("score_responses", 2, lambda out: out * math.nan),
    "grpo": ("shape_rewards", 2, lambda out: out * math.nan),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_loss_that_is_not_finite_stops_before_the_step(world, tmp_path, trainer, monkeypatch):
    module = importlib.import_module(f"fairlead.train.{trainer}")
    name, good_calls, spoil = BROKEN[trainer]
    real, calls = getattr(module, name), []

    def spoilt(*args, **options):
        calls.append(name)
        out = real(*args, **options)
        return spoil(out) if len(calls) > good_calls else out

    monkeypatch.setattr(module, name, spoilt)
    with pytest.raises(UserError, match="not finite") as caught:
        world.run(trainer, tmp_path, "checkpoint.every_steps=1", "batch.micro_batch_tokens=100000")
    assert caught.value.exit_code is ExitCode.BAD_DATA
    (stage,) = tmp_path.glob("0*")
    assert [row["step"] for row in rows_of(stage / "metrics.jsonl")] == [1, 2]
    assert sorted(path.name for path in stage.glob("checkpoints/*")) == ["step-000001", "step-000002"]
    assert not (stage / "manifest.json").exists()
    monkeypatch.undo()
    world.run(trainer, tmp_path, "checkpoint.every_steps=1", "batch.micro_batch_tokens=100000")
    straight = world.run(trainer, tmp_path / "straight", "checkpoint.every_steps=1", "batch.micro_batch_tokens=100000")
    assert fingerprints(stage) == fingerprints(straight), "the weights were untouched"


def test_ppo_counts_every_role_in_its_work(stages):
    """Per token: drawn (2 N), read by four roles (8 N), and forward and backward of policy and critic per epoch."""
    sft, ppo = (rows_of(stages[name] / "metrics.jsonl")[0] for name in ("sft", "ppo"))
    per_token = {name: row["flops"] / row["tokens"] for name, row in (("sft", sft), ("ppo", ppo))}
    forward = per_token["sft"] / 2.3  # 2 N (1 + 1 + trained share), a share of about a fourth
    epochs = 2
    assert per_token["ppo"] == pytest.approx(forward * (5 + epochs * 2 * 2.3), rel=0.1)


def test_a_journal_line_of_a_killed_session_counts_once_in_the_wall_time(world, tmp_path):
    stage = tmp_path / "01-sft"
    with Journal(stage / "timings.jsonl") as timings:
        for seconds in (1000.0, 30.0):
            timings.append({"step": 1, "seconds": seconds})
        timings.append({"step": 2, "seconds": 5000.0})
    world.run("sft", tmp_path)
    assert read_manifest(stage).wall_seconds < 60, "steps 1 and 2 were done again, and the last time counts"


def test_held_out_rows_that_cannot_be_used_are_listed_too(world, tmp_path):
    long = {"messages": [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "y"}]}
    held = write_rows(tmp_path / "held.jsonl", [long])
    with pytest.raises(UserError, match=r"1 of 25 rows cannot be used"):
        world.run("sft", tmp_path / "run", f"data.held_out={held}")
    (rejected,) = rows_of(tmp_path / "run" / "01-sft" / "rejects.jsonl")
    assert rejected["path"] == str(held)


def test_a_training_row_whose_prompt_is_held_out_is_left_out(world, tmp_path, capsys):
    rows = rows_of(world.conversations)
    held = write_rows(tmp_path / "held.jsonl", rows[:6])
    stage = world.run("sft", tmp_path / "run", f"data.held_out={held}")
    assert "6 training rows left out: their prompts are held out" in capsys.readouterr().err
    assert len(rows_of(stage / "metrics.jsonl")) == 3, "18 rows, six at a time"


def test_all_pairs_of_a_prompt_are_learnt_from(world, tmp_path, capsys):
    (first, *_) = rows_of(world.preferences)
    pairs = write_rows(tmp_path / "pairs.jsonl", [first | {"rejected": f"no {n}"} for n in (1, 2, 3, 3)])
    world.run("reward", tmp_path / "run", f"data.train={pairs}", "data.held_out_rows=0")
    told = capsys.readouterr().err
    assert "1 duplicate rows removed" in told
    assert "3 rows to train on" in told


def test_a_policy_is_wanted(world, tmp_path):
    for trainer in TRAINERS:
        with pytest.raises(UserError, match="is a reward model; want a policy"):
            world.run(trainer, tmp_path / trainer, f"model.name={world.reward}")


@pytest.mark.parametrize(
    ("trainer", "word"),
    [
        *((trainer, "data.max_length=2049") for trainer in ("sft", "reward", "dpo", "kto")),
        ("ppo", "sampling.max_new_tokens=2040"),
        ("grpo", "sampling.max_new_tokens=2040"),
    ],
)
def test_sequences_longer_than_the_context_are_refused(world, tmp_path, trainer, word):
    with pytest.raises(UserError, match="the model's context is too short; got sequences of up to 2") as caught:
        world.run(trainer, tmp_path, word)
    assert "want at most 2048" in str(caught.value)


def test_holding_out_every_training_row_is_refused(world, tmp_path):
    with pytest.raises(UserError, match="the prompt of every training row is held out"):
        world.run("sft", tmp_path, f"data.held_out={world.conversations}")


def test_another_adapters_rank_is_said(world, tmp_path, capsys):
    policy = world.run("sft", tmp_path)
    capsys.readouterr()
    world.run("dpo", tmp_path, f"model.name={policy}", "model.lora.rank=7")
    assert "policy goes on with the adapter" in (told := capsys.readouterr().err)
    assert "model.lora.rank=7" in told
    world.run("dpo", tmp_path / "same", f"model.name={policy}")
    assert "goes on with the adapter" not in capsys.readouterr().err


def test_a_reward_model_with_another_tokenizer_is_refused(world, tmp_path):
    other = tiny_model(tmp_path / "other", seed=1)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    judge = world.run("reward", tmp_path / "judge", f"model.name={other}")
    with pytest.raises(UserError, match="different tokenizers"):
        world.run("ppo", tmp_path / "run", f"reward_model={judge}")


def test_full_fine_tuning_from_a_lora_reward_model_says_what_to_do(world, tmp_path):
    with pytest.raises(UserError, match=r"train the reward model with model\.tuning=full"):
        world.run("ppo", tmp_path, "model.tuning=full")
