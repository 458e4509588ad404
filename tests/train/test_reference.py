"""Log-probabilities of the reference: computed once, as a reference beside the policy would, kept and checked."""

import math
import os
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fairlead.data.collate import collate_pairs
from fairlead.data.sampler import step_rows
from fairlead.models.build import add_frozen, ready
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.runtime.start import start
from fairlead.train import dpo as dpo_module
from fairlead.train import reference as reference_module
from fairlead.train.policy import response_logprobs
from fairlead.train.rows import encoder_of, load_preferences
from fairlead.train.stage import Stage
from tiny_stages import fingerprints, rows_of

NOTHING_FITTED = "model.activation_checkpointing=false"  # so no pass looks at what it leaves
ROWS = ("num_epochs=2", "batch.rows=6")


def pairs_of(world, tmp_path, *words):
    config = world.config("dpo", tmp_path, *ROWS, *words)
    encoder = encoder_of(resolve(config.model.name))
    return config, load_preferences(config.data, encoder, end_token=True, rejects=None, seed=config.runtime.seed)


def kept(stage):
    return load_file(stage / "reference.safetensors")["pairs"]


def made_from(stage):
    with safe_open(stage / "reference.safetensors", "pt") as file:
        return file.metadata()[reference_module.DIGESTS].partition(" ")[0]


@pytest.fixture(scope="module")
def stage(world, tmp_path_factory):
    return world.run("dpo", tmp_path_factory.mktemp("run"), *ROWS)


def test_they_are_what_plain_transformers_says(world, tmp_path, stage):
    _, rows = pairs_of(world, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(world.model)
    for pair, found in zip(rows.train, kept(stage).tolist(), strict=True):
        for example, logprob in zip((pair.chosen, pair.rejected), found, strict=True):
            ids = torch.tensor([example.input_ids])
            with torch.no_grad():
                logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            assert logprob == pytest.approx(float(logprobs[torch.tensor(example.trained[1:])].sum()), rel=1e-5)


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("parent", ["base", "stage"])
def test_they_are_to_the_last_bit_those_of_a_reference_beside_the_policy(world, tmp_path, tuning, parent):
    """A frozen copy of the parent (bare base, adapter, whole weights), read in the micro-batches of the first epoch."""
    words = [f"model.tuning={tuning}", "model.lora.dropout=0.3", "batch.micro_batch_tokens=100"]
    if parent == "stage":
        words.append(f"model.name={world.run('sft', tmp_path / 'parent', f'model.tuning={tuning}', 'num_epochs=2')}")
    config, rows = pairs_of(world, tmp_path, *words)
    runtime = start(config.runtime)
    roles = Roles()
    add_frozen(roles, "reference", resolve(config.model.name), "logprobs", runtime)
    ready(roles, config.model, runtime)
    found = kept(world.run("dpo", tmp_path / "run", *ROWS, *words))
    assert not found.isnan().any()
    for step in range(3):
        picked = step_rows(rows.mixture, 6, 2, runtime.seed, step)
        pairs = [rows.train[i] for i in picked]
        sides = [pair.sides for pair in pairs]
        for share in dpo_module.micro_batches_by_prompt(sides, config.batch, runtime, share_prompts=True):
            with torch.no_grad():
                batch = collate_pairs([pairs[i] for i in share.rows], share_prompts=True).packed
                beside = response_logprobs(roles, "reference", batch).view(-1, 2)
            assert torch.equal(found[[picked[i] for i in share.rows]], beside)


def test_no_second_model_is_there_and_one_forward_serves_a_step(world, tmp_path, monkeypatch):
    asked, sizes = [], []
    real = Roles.forward

    def forward(roles, batch, role, **more):
        asked.append((role, torch.is_grad_enabled()))
        sizes.append(len(roles.backbones))
        return real(roles, batch, role, **more)

    monkeypatch.setattr(Roles, "forward", forward)
    words = ("model.tuning=full", "batch.micro_batch_tokens=100000", "data.held_out_rows=0", NOTHING_FITTED)
    world.run("dpo", tmp_path, "num_epochs=2", "batch.rows=5", *words)
    assert asked == [("policy", False)] * 4 + [("policy", True)] * 8  # 20 pairs, four steps in each of two epochs
    assert set(sizes) == {1}


@pytest.mark.parametrize("trainer", ["dpo", "kto"])
def test_the_reference_reads_what_the_first_epoch_reads(world, tmp_path, monkeypatch, trainer):
    """The same tokens side by side in every pass: what else is in a pass moves the last digits."""
    read = {True: [], False: []}
    real = Roles.forward

    def forward(roles, batch, role, **more):
        read[torch.is_grad_enabled()].append(batch.input_ids.tolist())
        return real(roles, batch, role, **more)

    monkeypatch.setattr(Roles, "forward", forward)
    words = ("batch.rows=6", "batch.micro_batch_tokens=300", "data.held_out_rows=0", NOTHING_FITTED)
    world.run(trainer, tmp_path, "num_epochs=1", *words)
    assert len(read[True]) > 6
    assert read[False][: len(read[True])] == read[True]


def test_only_pairs_that_a_step_sees_are_read(world, tmp_path):
    found = kept(world.run("dpo", tmp_path, *ROWS, "max_steps=1", "data.held_out_rows=0"))
    assert found.shape == (20, 2)
    assert (~found.isnan().any(1)).sum() == 6


@pytest.mark.parametrize("loss", ["simpo", "odds_ratio"])
def test_a_loss_without_reference_keeps_none(world, tmp_path, loss):
    stage = world.run("dpo", tmp_path, f"loss={loss}", "sft_coef=1", "max_steps=1")
    assert not (stage / "reference.safetensors").exists()


def interrupted(world, tmp_path, monkeypatch, *words):
    """A run that stopped after its second of six steps, saved."""
    with monkeypatch.context() as patch:
        real = Stage.record

        def record(stage, step, *args, **more):
            real(stage, step, *args, **more)
            if step == 3:
                raise KeyboardInterrupt

        patch.setattr(Stage, "record", record)
        with pytest.raises(KeyboardInterrupt):
            world.run("dpo", tmp_path, *ROWS, "checkpoint.every_steps=2", *words)
    (stage,) = tmp_path.glob("0*")
    return stage


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    return world.run("dpo", tmp_path_factory.mktemp("straight"), *ROWS, "checkpoint.every_steps=2")


def test_a_resumed_stage_reads_them_from_its_folder(world, tmp_path, monkeypatch, straight):
    stage = interrupted(world, tmp_path, monkeypatch)
    monkeypatch.setattr(reference_module, "step_logprobs", None)
    world.run("dpo", tmp_path, *ROWS, "checkpoint.every_steps=2")
    assert fingerprints(stage) == fingerprints(straight)


@pytest.mark.parametrize("trainer", ["dpo", "kto"])
def test_a_signal_while_the_reference_is_read_is_obeyed(world, tmp_path, monkeypatch, trainer):
    straight = world.run(trainer, tmp_path / "straight", *ROWS)
    asked = []
    real = reference_module.step_logprobs

    def step_logprobs(*args):
        asked.append(1)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(reference_module, "step_logprobs", step_logprobs)
        with pytest.raises(SystemExit) as stopped:
            world.run(trainer, tmp_path / "cut", *ROWS)
    assert (stopped.value.code, len(asked)) == (143, 2)
    assert fingerprints(world.run(trainer, tmp_path / "cut", *ROWS)) == fingerprints(straight)


@pytest.mark.parametrize("how", ["a bit", "cut", "another machine's", "gone"])
def test_what_cannot_be_used_is_computed_again_by_the_parent(world, tmp_path, monkeypatch, capsys, straight, how):
    """Not by the policy of the checkpoint: the end is that of the straight run."""
    stage = interrupted(world, tmp_path, monkeypatch)
    path = stage / "reference.safetensors"
    whole = path.read_bytes()
    match how:
        case "a bit":
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        case "cut":
            path.write_bytes(whole[:-4])
        case "another machine's":
            path.write_bytes(whole.replace(made_from(stage).encode(), b"0" * 64))
        case "gone":
            path.unlink()
    capsys.readouterr()
    world.run("dpo", tmp_path, *ROWS, "checkpoint.every_steps=2")
    told = {"another machine's": "was made in another precision", "gone": ""}.get(how, "is damaged")
    assert (f"warning: reference.safetensors {told}" in capsys.readouterr().err) == bool(told)
    assert path.read_bytes() == whole
    assert fingerprints(stage) == fingerprints(straight)


def test_other_weights_tokens_or_precision_are_another_reference(world, tmp_path, stage):
    words = {
        "weights": f"model.name={world.run('sft', tmp_path / 'sft')}", "tokens": "add_end_token=false",
        "precision": "runtime.dtype=bfloat16",
    }  # fmt: skip
    others = {made_from(world.run("dpo", tmp_path / name, *ROWS, word)) for name, word in words.items()}
    assert len(others | {made_from(stage)}) == 4


def test_the_first_loss_is_that_of_equal_models(stage):
    """Exactly: the policy reads what the reference read, in the same passes."""
    first = rows_of(stage / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-7)
    assert first["margin"] == first["accuracy"] == 0
