"""Every option of every trainer does something: it is changed, and something that a user can see differs.

`VISIBLE` names for each option the value it is changed to, what stands beside it in both runs, and what must differ.
An option that is missing here, or stands here and no longer exists, turns the last test red.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open

from fairlead.artifacts.manifest import read_manifest
from fairlead.artifacts.stages import is_finished
from fairlead.config.document import options
from fairlead.errors import UserError
from fairlead.models.roles import Roles
from fairlead.runtime.start import start
from fairlead.train.health import FAULTS
from tiny import tiny_model
from tiny_stages import TRAINERS, fingerprints, rows_of, write_rows

# option: (trainers, value, beside it, what differs)
METRICS, SAMPLES, MODEL, STEPS, FORWARDS, CHECKPOINTS = (
    "metrics",
    "samples",
    "model",
    "steps",
    "forwards",
    "checkpoints",
)
EPOCHS = ("sft", "reward", "dpo", "kto")
PREFERRING = ("reward", "dpo")
VISIBLE = {
    "model.tuning": (("sft",), "full", (), MODEL),
    "model.lora.rank": (("sft", "ppo", "grpo"), "2", (), MODEL),
    "model.lora.alpha": (("sft", "dpo"), "7", (), METRICS),
    "model.lora.dropout": (EPOCHS, "0.3", (), METRICS),
    "data.held_out_rows": (EPOCHS, "2", (), METRICS),
    "data.max_rows": (TRAINERS, "12", (), METRICS),
    "data.max_length": (EPOCHS, "100", ("data.max_reject_rate=1",), METRICS),
    "batch.rows": (EPOCHS, "3", (), STEPS),
    "batch.micro_batch_tokens": (TRAINERS, "60", (), FORWARDS),
    "batch.num_micro_batches": (TRAINERS, "3", ("batch.micro_batch_tokens=100000",), FORWARDS),
    "optim.lr": (TRAINERS, "0.02", (), METRICS),
    "optim.schedule": (TRAINERS, "constant", (), METRICS),
    "optim.warmup_steps": (("sft",), "2", (), METRICS),
    "optim.weight_decay": (("sft",), "0.5", (), MODEL),
    "optim.beta1": (("sft",), "0.5", (), MODEL),
    "optim.beta2": (("sft",), "0.5", (), MODEL),
    "optim.eps": (("sft",), "0.01", (), MODEL),
    "optim.eps_placement": (("sft",), "tensorflow", ("optim.eps=0.01",), MODEL),
    "optim.max_grad_norm": (("sft",), "0.1", (), MODEL),
    "checkpoint.every_steps": (TRAINERS, "2", (), CHECKPOINTS),
    "checkpoint.keep": (("sft",), "3", ("checkpoint.every_steps=1", "num_epochs=2"), CHECKPOINTS),
    "runtime.seed": (TRAINERS, "2147483647", (), METRICS),
    "runtime.dtype": (("sft", "ppo"), "bfloat16", (), METRICS),
    "runtime.fast": (("sft",), "false", (), FORWARDS),
    "num_epochs": ((*EPOCHS, "ppo", "grpo"), "3", (), METRICS),
    "max_steps": (EPOCHS, "2", (), STEPS),
    "eval_every_steps": (EPOCHS, "2", (), METRICS),
    "label_smoothing": (("sft", "dpo"), "0.2", (), METRICS),
    "neftune_alpha": (("sft",), "5.0", (), METRICS),
    "z_coef": (("sft",), "0.01", (), METRICS),
    "loss_per": (("sft",), "turn", (), METRICS),
    "score_at": (("reward",), "last_token", (), METRICS),
    "margin": (("reward",), "1.0", (), METRICS),
    "centring_coef": (("reward",), "1.0", (), METRICS),
    "normalise_head": (("reward",), "true", (), METRICS),
    "beta": (("dpo", "kto"), "0.5", (), METRICS),
    "add_end_token": (("dpo", "kto"), "false", (), METRICS),
    "desirable_weight": (("kto",), "2.0", (), METRICS),
    "undesirable_weight": (("kto",), "2.0", (), METRICS),
    "length_normalised": (("dpo",), "true", (), METRICS),
    "simpo_margin": (("dpo",), "0.2", ("loss=simpo",), METRICS),
    "sft_coef": (("dpo",), "0.5", (), METRICS),
    "num_iterations": (("ppo", "grpo"), "2", (), STEPS),
    "prompts_per_iteration": (("ppo", "grpo"), "3", (), METRICS),
    "mini_batch_size": (("ppo", "grpo"), "2", (), METRICS),
    "sampling.max_new_tokens": (("ppo", "grpo"), "4", (), METRICS),
    "sampling.temperature": (("ppo", "grpo"), "0.5", (), METRICS),
    "kl.coef": (("ppo", "grpo"), "2.0", (), METRICS),
    "kl.controller": (("ppo",), "adaptive", (), METRICS),
    "kl.target": (("ppo",), "0.0001", ("kl.controller=adaptive", "kl.horizon=20"), METRICS),
    "kl.horizon": (("ppo",), "20", ("kl.controller=adaptive",), METRICS),
    "gamma": (("ppo",), "0.5", (), METRICS),
    "lam": (("ppo",), "0.2", (), METRICS),
    "clip_eps_low": (("ppo", "grpo"), "0.01", ("num_epochs=3",), METRICS),
    "clip_eps_high": (("ppo", "grpo"), "0.01", ("num_epochs=3",), METRICS),
    "whiten_rewards": (("ppo",), "true", (), METRICS),
    "reward_baseline": (("ppo",), "0.5", (), METRICS),
    "value_clip": (("ppo",), "0.001", ("num_epochs=3",), METRICS),
    "whiten_advantages": (("ppo",), "false", (), METRICS),
    "score_clip": (("ppo",), "0.01", (), METRICS),
    "missing_end_token_penalty": (("ppo",), "1.0", (), METRICS),
    "ptx_coef": (("ppo",), "2.0", ("ptx_coef=0.5",), METRICS),
    "ptx_rows": (("ppo",), "2", ("ptx_coef=0.5",), METRICS),
    "normalise_scores": (("ppo",), "false", (), METRICS),
    "critic_head": (("ppo",), "reward_model", ("normalise_scores=false",), METRICS),
    "critic_lr": (("ppo",), "0.1", (), METRICS),
    "rewards": (("grpo",), "reward_model,0.5*length", (), METRICS),
    "num_responses_per_prompt": (("grpo",), "3", (), METRICS),
    "kl.estimator": (("ppo", "grpo"), "k3", ("kl.estimator=k2", "kl.where=loss", "kl.coef=1.0"), METRICS),
    "advantage": (("grpo",), "leave_one_out", (), METRICS),
    "divide_by_std": (("grpo",), "false", (), METRICS),
    "dual_clip": (("ppo", "grpo"), "1.001", ("num_epochs=3",), METRICS),
    "importance_cap": (("ppo", "grpo"), "0.9", (), METRICS),
    "overlong_soft_tokens": (("grpo",), "4", (), METRICS),
    "probes": (("ppo", "grpo"), "length", (), METRICS),
    "length_sampler_min_tokens": (("ppo", "grpo"), "1", (), METRICS),
    "reference": (("ppo", "grpo"), "ema", (), METRICS),
    "reference_decay": (("ppo", "grpo"), "0.5", ("reference=ema",), METRICS),
    "reference_every": (("ppo", "grpo"), "2", ("reference=refreshed",), METRICS),
    "policy_ema": (("ppo", "grpo"), "0.5", (), MODEL),
}
# Shown by a test of its own below, or by another file.
ELSEWHERE = {
    "output": "every test of test_trainers.py writes into one",
    "model.name": "test_another_model_gives_other_numbers",
    "model.revision": "test_a_revision_reaches_the_hub",
    "model.activation_checkpointing": "test_activation_checkpointing_changes_no_number",
    "data.train": "test_rows_come_from_the_files_that_are_named",
    "data.weights": "test_weights_change_what_a_trainer_sees in test_mixing.py",
    "data.held_out": "test_rows_come_from_the_files_that_are_named",
    "data.against": "test_30_an_evaluation_question_stops_every_trainer in test_refusals.py",
    "data.accept": "test_30_what_is_accepted_by_name_is_told in test_refusals.py",
    "data.columns": "test_columns_and_encoding_of_the_users_own in test_refusals.py",
    "data.encoding": "test_columns_and_encoding_of_the_users_own in test_refusals.py",
    "data.max_reject_rate": "test_rows_that_cannot_be_used_are_listed in test_trainers.py",
    "runtime.device": "test_a_device_that_is_not_there_is_told",
    "runtime.num_threads": "test_threads",
    "runtime.distributed": "only under torchrun: the tests of ranks",
    "metrics.sinks": "test_trackers",
    "metrics.every_steps": "test_trackers",
    "loss": "test_both_reward_losses, test_reward.py and test_dpo_losses.py",
    "margin_per_score": "test_a_step_equals_the_loop in test_reward.py",
    "data.long_prompts": "test_long_prompts_are_cut_where_a_line_ends",
    "dynamic_sampling_rounds": "test_silent_groups_give_way_to_others in test_grpo.py",
    **dict.fromkeys(("health.non_finite", "health.step_factor", "health.max_roll_backs"), "test_health.py"),
    **{f"health.{fault}": "test_health.py" for fault in FAULTS},
    "aggregation": "test_a_step_equals_the_loop in test_grpo.py",
    "kl.where": "test_a_step_equals_the_loop in test_grpo.py",
    "answer_pattern": "test_the_pattern_finds_the_answer in test_grpo.py",
    "reward_model": "test_the_reward_model_scores",
    "ptx_data": "test_ptx_rows_come_from_their_own_files",
    "sampling.top_k": "test_sampling_that_reshapes_is_refused",
    "sampling.top_p": "test_sampling_that_reshapes_is_refused",
    "sampling.min_p": "test_sampling_that_reshapes_is_refused",
    "sampling.repetition_penalty": "test_sampling_that_reshapes_is_refused",
    "sampling.stop": "test_sampling_that_reshapes_is_refused",
}


@pytest.fixture(autouse=True)
def _without_pages(monkeypatch):
    """Charts take longer than the training here."""
    monkeypatch.setattr("fairlead.train.stage.stage_report", lambda *_: None)
    monkeypatch.setattr("fairlead.train.stage.model_card", lambda *_: "")
    monkeypatch.setattr("fairlead.train.stage.matrix_rate", lambda *_: 1e12)


@pytest.fixture(scope="module")
def seen(world, tmp_path_factory):
    """Run a trainer with options (each combination once) and tell what a user could see."""
    known = {}

    def look(trainer, *given):
        if (trainer, given) not in known:
            extra = (f"ptx_data={world.conversations}",) if any(word.startswith("ptx_coef") for word in given) else ()
            with pytest.MonkeyPatch.context() as patch:
                forwards = []
                real = Roles.forward
                patch.setattr(Roles, "forward", lambda *args, **more: (forwards.append(1), real(*args, **more))[1])
                stage = world.run(trainer, tmp_path_factory.mktemp("run"), *extra, *given)
            files = fingerprints(stage)
            known[trainer, given] = {
                METRICS: files["metrics.jsonl"],
                SAMPLES: files["samples.jsonl"],
                MODEL: {name: digest for name, digest in files.items() if name.startswith("model/")},
                STEPS: len(rows_of(stage / "metrics.jsonl")),
                FORWARDS: len(forwards),
                CHECKPOINTS: sorted(path.name for path in stage.glob("checkpoints/*")),
            }
        return known[trainer, given]

    return look


@pytest.mark.parametrize(
    ("trainer", "option"), [(trainer, option) for option, (names, *_) in VISIBLE.items() for trainer in names]
)
def test_an_option_is_seen(seen, trainer, option):
    _, value, beside, what = VISIBLE[option]
    apart = tuple(word for word in beside if word.partition("=")[0] != option)
    before, after = seen(trainer, *beside), seen(trainer, *apart, f"{option}={value}")
    assert before[what] != after[what]


def test_every_option_is_in_the_table():
    for trainer, (model, _) in TRAINERS.items():
        for option in options(model):
            shown = option.path in VISIBLE or option.path in ELSEWHERE
            assert shown, f"{trainer} {option.path}: say how it is seen"
    known = {option.path for model, _ in TRAINERS.values() for option in options(model)}
    assert set(VISIBLE) | set(ELSEWHERE) <= known


def test_cutting_a_step_differently_changes_nothing_but_rounding(world, tmp_path):
    losses = []
    for name, words in (("a", ["batch.micro_batch_tokens=100000"]), ("b", ["batch.num_micro_batches=6"]),
                        ("c", ["runtime.fast=false"])):  # fmt: skip
        stage = world.run("sft", tmp_path / name, *words)
        losses.append([row[key] for row in rows_of(stage / "metrics.jsonl") for key in ("loss", "grad_norm")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_the_rank_is_the_adapters(world, tmp_path):
    stage = world.run("sft", tmp_path, "model.lora.rank=2")
    with safe_open(stage / "model" / "adapter_model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert all(2 in shape for shape in shapes.values())


def test_another_model_gives_other_numbers(world, tmp_path):
    other = tiny_model(tmp_path / "other", seed=1)
    stages = [world.run("sft", tmp_path / name, f"model.name={model}") for name, model in
              (("a", world.model), ("b", other))]  # fmt: skip
    assert read_manifest(stages[0]).base.digest != read_manifest(stages[1]).base.digest
    assert fingerprints(stages[0])["metrics.jsonl"] != fingerprints(stages[1])["metrics.jsonl"]


def test_a_revision_reaches_the_hub(world, tmp_path, monkeypatch):
    asked = []

    def download(name, *, revision, **_):
        asked.append((name, revision))
        return str(world.model)

    monkeypatch.setattr("fairlead.models.sources.snapshot_download", download)
    stage = world.run("sft", tmp_path, "model.name=someone/something", "model.revision=abc")
    assert ("someone/something", "abc") in asked
    base = read_manifest(stage).base
    assert base.name == "someone/something"
    assert base.revision


@pytest.mark.parametrize("trainer", TRAINERS)
def test_activation_checkpointing_changes_no_number(seen, trainer, monkeypatch):
    asked = []
    real = Roles.checkpoint_activations
    monkeypatch.setattr(Roles, "checkpoint_activations", lambda roles: (asked.append(1), real(roles))[1])
    plain = seen(trainer)
    assert not asked
    again = seen(trainer, "model.activation_checkpointing=true")
    assert asked
    assert again[METRICS] == plain[METRICS]
    assert again[MODEL] == plain[MODEL]


def test_rows_come_from_the_files_that_are_named(world, tmp_path):
    rows = rows_of(world.conversations)
    held = write_rows(tmp_path / "held.jsonl", rows[:5])
    train = write_rows(tmp_path / "train.jsonl", rows[5:11])
    stage = world.run("sft", tmp_path / "run", f"data.train={train}", f"data.held_out={held}")
    assert set(read_manifest(stage).data_digests) == {str(train), str(held)}
    assert len(rows_of(stage / "metrics.jsonl")) == 1, "six rows in all, and none was split off"


@pytest.mark.parametrize("trainer", ["ppo", "grpo"])
def test_long_prompts_are_cut_where_a_line_ends(world, tmp_path, trainer):
    lines = "a line of the question\n" * 40
    rows = [rows_of(world.conversations)[1], {"messages": [{"role": "user", "content": lines + "the end"}]}]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    words = (f"data.train={path}", "data.max_length=200", "data.max_reject_rate=1")
    for name, cut in (("reject", False), ("cut", True)):
        stage = world.run(trainer, tmp_path / name, *words, f"data.long_prompts={name}", "num_iterations=2")
        shown = [row["prompt"] for row in rows_of(stage / "samples.jsonl")]
        assert any("a line of the question" in prompt for prompt in shown) == cut
        assert not any("the end" in prompt for prompt in shown)
        assert len(rows_of(stage / "rejects.jsonl")) == (0 if cut else 1)


def test_a_device_that_is_not_there_is_told(world, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="no CUDA device is visible"):
        world.run("sft", tmp_path, "runtime.device=cuda")


def test_threads(world, tmp_path):
    """No training: two threads on tiny matrices mostly wait for each other."""
    config = world.config("sft", tmp_path, "runtime.num_threads=2").runtime
    try:
        assert start(config).num_threads == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


class FakeTracker(SimpleNamespace):
    """Stands in for a tracker's module."""

    def __init__(self):
        super().__init__(started=[], rows=[], finished=0, fail=False)

    def init(self, **options):
        self.started.append(options)

    def log(self, row):
        if self.fail:
            raise ConnectionError("no route")
        self.rows.append(row)

    def finish(self):
        self.finished += 1


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_trackers(world, tmp_path, monkeypatch, name):
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, name, tracker)
    stage = world.run("sft", tmp_path / "run", f"metrics.sinks={name}", "metrics.every_steps=2")
    written = rows_of(stage / "metrics.jsonl")
    assert [row["loss"] for row in tracker.rows] == [written[1]["loss"], written[3]["loss"]]
    assert tracker.started[0]["name"] == "run/01-sft"
    assert tracker.finished == 1


def test_a_tracker_that_fails_is_switched_off(world, tmp_path, monkeypatch, capsys):
    tracker = FakeTracker()
    tracker.fail = True
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    stage = world.run("sft", tmp_path / "a", "metrics.sinks=trackio")
    assert capsys.readouterr().err.count("a tracker failed and is switched off (ConnectionError: no route)") == 1
    assert fingerprints(stage) == fingerprints(world.run("sft", tmp_path / "b"))


@pytest.mark.parametrize("broken", ["init", "finish"])
def test_a_tracker_that_cannot_begin_or_end_loses_nothing(world, tmp_path, monkeypatch, capsys, broken):
    def fail(**_):
        raise ConnectionError("no route")

    tracker = FakeTracker()
    setattr(tracker, broken, fail)
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    stage = world.run("sft", tmp_path / "a", "metrics.sinks=trackio")
    assert capsys.readouterr().err.count("a tracker failed and is switched off (ConnectionError: no route)") == 1
    assert is_finished(stage)


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard"])
def test_a_tracker_that_is_not_installed_is_told(world, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=rf"pip install 'fairlead\[{name}\]'"):
        world.run("sft", tmp_path, f"metrics.sinks={name}")


def test_both_reward_losses(seen, monkeypatch):
    """Equal in value, so the function that is called is what can be seen."""
    called = []
    for name in ("log_sig", "log_exp"):
        real = getattr(__import__("fairlead.train.reward", fromlist=["x"]), f"pairwise_{name}")
        monkeypatch.setattr(
            f"fairlead.train.reward.pairwise_{name}", lambda *s, _n=name, _r=real: (called.append(_n), _r(*s))[1]
        )
    seen("reward", "loss=log_sig")
    assert set(called) == {"log_sig"}
    called.clear()
    seen("reward", "loss=log_exp")
    assert set(called) == {"log_exp"}


def test_the_reward_model_scores(world, tmp_path):
    other = world.run("reward", tmp_path / "judge", "runtime.seed=3")
    first, second = (
        rows_of(world.run("ppo", tmp_path / name, f"reward_model={judge}", "num_iterations=1") / "samples.jsonl")
        for name, judge in (("a", world.reward), ("b", other))
    )
    assert [row["response"] for row in first] == [row["response"] for row in second]
    assert [row["score"] for row in first] != [row["score"] for row in second]


def test_ptx_rows_come_from_their_own_files(world, tmp_path):
    ptx = write_rows(tmp_path / "ptx.jsonl", rows_of(world.conversations)[:3])
    stage = world.run("ppo", tmp_path / "run", f"ptx_data={ptx}", "ptx_coef=1.0", "num_iterations=6")
    assert str(ptx) in read_manifest(stage).data_digests
    losses = [row["ptx_loss"] for row in rows_of(stage / "metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.2, "its gradient moves the policy"
    bare = world.run("ppo", tmp_path / "bare", f"ptx_data={ptx}", "num_iterations=1")
    assert "ptx_loss" not in rows_of(bare / "metrics.jsonl")[0]


@pytest.mark.parametrize(
    "word", ["temperature=0", "top_k=5", "top_p=0.9", "min_p=0.1", "repetition_penalty=1.1", "stop=x"]
)
def test_sampling_that_reshapes_is_refused(world, tmp_path, word):
    with pytest.raises(UserError, match="may only set max_new_tokens and a temperature above 0"):
        world.config("ppo", tmp_path, f"sampling.{word}")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("mini_batch_size=4", "does not divide"), ("ptx_coef=1", "without ppo.ptx_data"),
        ("model.lora.dropout=0.1", "dropout must be 0"), ("critic_head=reward_model", "set normalise_scores=false"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused(world, tmp_path, word, message):
    with pytest.raises(UserError, match=message):
        world.config("ppo", tmp_path, word)
