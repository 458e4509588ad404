"""Bugs of artifacts, saving, resuming and evaluation; see test_numbers.py for what the names and citations mean."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fairlead.artifacts.manifest import read_manifest
from fairlead.config.stages import SftConfig
from fairlead.errors import ExitCode, UserError
from fairlead.models import save
from fairlead.models.adapters import HEAD_KEY
from fairlead.models.save import role_tensors, write_role
from fairlead.models.sources import resolve
from fairlead.train.stage import Stage
from model_setting import in_training, packed, plain_logprobs, rows_of
from tiny_stages import TRAINERS, fingerprints


def test_a_trained_reward_model_cannot_be_loaded_into_rl(world, tmp_path):
    """MISSION 1.5 (56): it can, and a policy in its place is refused by name."""
    stage = world.run("ppo", tmp_path / "ppo", "num_iterations=1")
    assert read_manifest(stage).parents["reward"].digest == resolve(str(world.reward)).digest
    for trainer in ("ppo", "grpo"):
        with pytest.raises(UserError, match="is a policy; want a reward model"):
            world.run(trainer, tmp_path / trainer, f"reward_model={stage}")
    with pytest.raises(UserError, match="is a reward model; want a policy"):
        world.run("sft", tmp_path / "sft", f"model.name={world.reward}")


def test_all_rewards_are_identical(world, tmp_path, monkeypatch):
    """MISSION 1.5 (57): a reward model that says the same of everything fails with the likely cause."""
    pairs = [{"prompt": f"p {i}", "chosen": "yes", "rejected": "no"} for i in range(8)]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    monkeypatch.setattr("fairlead.models.roles.head_init_std", lambda _: 0.0)  # a head of zeros, and no step moves it
    with pytest.raises(UserError, match="has collapsed") as caught:
        world.run("reward", tmp_path / "run", f"data.train={rows}", "optim.lr=1e-30", "max_steps=1")
    assert caught.value.exit_code is ExitCode.BAD_DATA
    assert "lower optim.lr" in str(caught.value)


def test_nobody_says_which_head_was_dropped(world, tmp_path, capsys):
    """MISSION 1.5 (58): "some weights not used: lm_head" without a reason; here one sentence says it."""
    world.run("reward", tmp_path, "max_steps=1")
    assert "a new score layer, drawn at random, takes the place of the language-model head" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_model_that_cannot_be_saved_is_found_out_at_the_end(world, tmp_path, monkeypatch, trainer):
    """MISSION 1.5 (60): trained for hours, then NotImplementedError; here the save is rehearsed before a step."""

    def refuse(*_, **__):
        raise NotImplementedError("no gathering of these shards")

    monkeypatch.setattr(save.adapters, "write_adapter", refuse)
    with pytest.raises(NotImplementedError, match="no gathering"):
        world.run(trainer, tmp_path)
    (stage,) = tmp_path.glob("0*")
    assert not (stage / "metrics.jsonl").read_bytes()
    assert not list(stage.glob("model*"))


def test_a_wrong_path_fails_late(world, tmp_path, monkeypatch):
    """MISSION 1.5 (62): a reward model that is not there is told before any weight is loaded."""
    loaded = []
    for trainer in ("ppo", "grpo"):
        monkeypatch.setattr("fairlead.models.build.load_causal_lm", lambda *_, **__: loaded.append(1))
        with pytest.raises(UserError, match="nowhere"):
            world.run(trainer, tmp_path, f"reward_model={tmp_path / 'nowhere'}")
    assert not loaded


def test_the_random_value_head_is_frozen_under_lora(world, tmp_path):
    """MISSION 1.5 (65): LoRA put on after the head froze it; here it leaves its zeros in the first iteration."""
    stage = world.run("ppo", tmp_path, "num_iterations=1", "critic_head=zero")
    assert load_file(stage / "critic" / "adapter_model.safetensors")[HEAD_KEY].abs().max() > 1e-3
    reward = world.run("reward", tmp_path / "other", "max_steps=1", "optim.lr=1e-30")
    trained = world.run("reward", tmp_path / "trained", "max_steps=1")
    heads = [load_file(stage / "model" / "adapter_model.safetensors")[HEAD_KEY] for stage in (reward, trained)]
    assert not torch.equal(*heads)


def test_cuda_is_hard_coded(world, tmp_path, monkeypatch):
    """MISSION 1.5 (67): a run on the CPU asks CUDA for nothing, also where there is one."""

    def refuse(*_, **__):
        raise AssertionError("a tensor was sent to a GPU")

    monkeypatch.setattr(torch.Tensor, "cuda", refuse)
    monkeypatch.setattr(torch.nn.Module, "cuda", refuse)
    for trainer in ("ppo", "sft"):
        stage = world.run(trainer, tmp_path, *(("num_iterations=1",) if trainer == "ppo" else ("max_steps=1",)))
        assert read_manifest(stage).config["runtime"]["device"] == "cpu"


@pytest.mark.parametrize("tuning", ["lora", "full"])
@torch.no_grad()
def test_deepspeed_chat_loses_lora_and_tied_weights_in_its_save(tiny, tmp_path, tuning):
    """NUMERICS 5.0 (7), MISSION 1.5 (60): what is written says the same in plain transformers and PEFT."""
    roles = in_training(tiny("llama"), tuning=tuning)
    torch.manual_seed(3)
    for parameter in roles.trainable("policy").values():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    rows = rows_of([9, 4])
    want = roles(packed(rows), "policy").logprobs
    base = resolve(str(tiny("llama"))).base
    write_role(tmp_path, roles, "policy", role_tensors(roles, "policy"), base, pad_token_id=None)
    model = AutoModelForCausalLM.from_pretrained(tiny("llama") if tuning == "lora" else tmp_path)
    model = PeftModel.from_pretrained(model, str(tmp_path)) if tuning == "lora" else model
    torch.testing.assert_close(plain_logprobs(model.eval(), rows), want, rtol=1e-4, atol=1e-4)


def test_colossalchat_saves_only_after_the_epoch(world, tmp_path):
    """NUMERICS 5.0 (5): the check stood behind the loop; here steps within an epoch are saved."""
    stage = world.run("sft", tmp_path, "checkpoint.every_steps=1", "num_epochs=1", "batch.rows=4")
    saved = sorted(path.name for path in stage.glob("checkpoints/*"))
    assert saved == ["step-000003", "step-000004"], "20 rows, 5 steps, one epoch; two are kept"


def test_colossalchat_divides_by_a_save_interval_of_0():
    """NUMERICS 5.0 (5): the default was 0; here 0 is refused, and the default is a number of steps."""
    with pytest.raises(ValueError, match="every_steps"):
        SftConfig.model_validate({"checkpoint": {"every_steps": 0}})
    assert SftConfig().checkpoint.every_steps > 0


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_killed_job_starts_again_from_nothing(world, tmp_path, monkeypatch, trainer):
    """MISSION 1.5 (73): stopped in the middle without warning, the second session ends where one session ends."""
    words = ("checkpoint.every_steps=1", *(("num_epochs=2",) if trainer in ("sft", "reward", "dpo") else ()))
    straight = world.run(trainer, tmp_path / "straight", *words)
    real = Stage.record

    def record(stage, step, *args, **more):
        real(stage, step, *args, **more)
        if step == 2:  # told in the journals, not saved yet
            raise KeyboardInterrupt

    monkeypatch.setattr(Stage, "record", record)
    with pytest.raises(KeyboardInterrupt):
        world.run(trainer, tmp_path / "killed", *words)
    monkeypatch.undo()
    assert fingerprints(world.run(trainer, tmp_path / "killed", *words)) == fingerprints(straight)


def test_only_one_checkpoint_is_kept():
    """MISSION 1.5 (73): with `save_total_limit 1` a kill during the save leaves none."""
    with pytest.raises(ValueError, match="keep"):
        SftConfig.model_validate({"checkpoint": {"keep": 1}})


@pytest.mark.parametrize("trainer", ["sft", "dpo", "reward"])
def test_a_result_is_never_evaluated(world, tmp_path, trainer):
    """MISSION 1.5 (80): a stage ends with held-out figures and a page that compares it with its parent."""
    stage = world.run(trainer, tmp_path, "max_steps=1")
    evaluation = json.loads((stage / "evaluation.json").read_text())
    if trainer == "sft":
        assert evaluation["likelihoods"]
        assert evaluation["parent_likelihoods"]
    else:
        assert evaluation["preferences"]
    assert "report.html" in {path.name for path in stage.iterdir()}
