"""Each fault put into a real run: the right verdict comes, once; rolling back leaves a loadable model."""

import math
import signal
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from fairlead.artifacts.manifest import read_manifest
from fairlead.artifacts.stages import list_runs
from fairlead.cli.runs import next_command
from fairlead.errors import ExitCode, UserError
from fairlead.generate.engine import Engine
from fairlead.models.sources import resolve
from fairlead.train import grpo, health, ppo
from fairlead.train.health import FAULTS, verdicts
from fairlead.train.optimizer import Optimizer
from tiny_stages import TinyWorld, fingerprints, rows_of
from train.test_resume import signal_at

ITERATIONS = 4
SHORT = {
    "ppo": ("num_iterations=4", "prompts_per_iteration=6", "mini_batch_size=6", "num_epochs=1", "optim.lr=1e-4"),
    "grpo": ("num_iterations=4", "prompts_per_iteration=3", "num_responses_per_prompt=4", "mini_batch_size=12",
             "optim.lr=1e-4"),
}  # fmt: skip
ALIKE = ("negative_kl", "ratio_explosion", "identical_rewards", "entropy_collapse", "length_hack", "repetition_hack",
         "probe_divergence", "non_finite")  # fmt: skip
ONLINE = dict.fromkeys(ALIKE, ("ppo", "grpo")) | {"value_blow_up": ("ppo",), "zero_variance_groups": ("grpo",)}
_FAULT = SimpleNamespace(undo=None, sharper=20)  # how to take the fault of the day out again; how sure it makes
QUICK = [("ppo", "ratio_explosion"), ("ppo", "non_finite"), ("grpo", "identical_rewards")]
CASES = [(trainer, fault) for fault, trainers in ONLINE.items() for trainer in trainers]


@contextmanager
def injected(fault, trainer, tmp_path):
    """The fault from its mechanism where that is quick, else in what the loop measures; yields options for the run."""
    module = {"ppo": ppo, "grpo": grpo}[trainer]
    with pytest.MonkeyPatch.context() as patch:
        _FAULT.undo = patch.undo
        yield {
            "negative_kl": _stale_sampler,
            "ratio_explosion": lambda *_: ("optim.lr=0.3", "optim.max_grad_norm=0", "num_epochs=2"),
            "identical_rewards": _scores(lambda _, count: torch.full((count,), 0.25)),
            "zero_variance_groups": _scores(lambda _, count: torch.arange(count) // 4 * 1.0),
            "entropy_collapse": _collapsed,
            "length_hack": _responses(lambda r, call: cut(r, 3 if call < 3 else 8)),
            "repetition_hack": _responses(lambda r, call: r if call < 3 else replace(r, tokens=(7,) * len(r.tokens))),
            "probe_divergence": _against_probe,
            "value_blow_up": lambda *_: ("critic_lr=1.0", "optim.max_grad_norm=0"),
            "non_finite": _scores(lambda call, count: torch.linspace(0, math.nan if call == 3 else 1, count)),
        }[fault](patch, module, tmp_path)


def cut(response, limit):
    return replace(response, tokens=response.tokens[:limit], logprobs=response.logprobs[:limit], finished=False)


def _stale_sampler(patch, module, _):
    """The sampler never gets the new weights: it answers with those of the reference."""
    real = Engine.__init__
    patch.setattr(Engine, "__init__", lambda self, roles, role, *more: real(self, roles, "reference", *more))
    return ("optim.lr=0.02", "health.ratio_explosion=off", "kl.coef=0")


def _scores(of):
    def inject(patch, module, _):
        calls = []

        def score(roles, role, texts, *_):
            calls.append(1)
            return of(len(calls), len(texts))

        patch.setattr(module, "score_responses", score)
        return ()

    return inject


def _collapsed(patch, module, _):
    """From the third iteration on the policy is surer of every token."""
    real, steps = Optimizer.step, []

    def step(self, number):
        done = real(self, number)
        steps.append(number)
        if number == 1:
            patch.setattr("fairlead.models.roles.linear_logprobs", _sharpened())
        return done

    patch.setattr(Optimizer, "step", step)
    return ("health.ratio_explosion=off", "health.negative_kl=off")


def _sharpened():
    from fairlead.models import roles

    real = roles.linear_logprobs
    return lambda *args, temperature, **more: real(*args, temperature=temperature / _FAULT.sharper, **more)


def _responses(change):
    """What the sampler returns, by the number of the call from 1."""

    def inject(patch, module, _):
        calls = []
        real = module.draw_responses

        def sample(*args, **more):
            calls.append(1)
            return [change(response, len(calls)) for response in real(*args, **more)]

        patch.setattr(module, "draw_responses", sample)
        _scores(lambda call, count: call + torch.linspace(0, 1, count))(patch, module, None)
        return ("health.ratio_explosion=off", "health.negative_kl=off")

    return inject


def _against_probe(patch, module, tmp_path):
    file = tmp_path / "people.py"
    file.write_text("calls = []\ndef like(prompt, response, answer):\n    calls.append(1)\n    return -len(calls)\n")
    _scores(lambda call, count: call + torch.linspace(0, 1, count))(patch, module, None)
    return (f"probes={file}:like", "num_iterations=7")


class StarterWorld(TinyWorld):
    """The same rows, with real weights. A trained policy is surer to begin with: less sharpening collapses it."""

    def __init__(self, root):
        super().__init__(root)
        self.model = "smollm2-135m-instruct"
        self.reward = self.run("reward", self.root / "starter-reward", "max_steps=2", "optim.lr=1e-4")

    def words(self, trainer, output, *overrides):
        given = {word.partition("=")[0] for word in overrides}
        return super().words(trainer, output, *(w for w in ("runtime.dtype=auto",) if w not in given), *overrides)


@pytest.fixture(scope="module")
def starter_world(tmp_path_factory):
    return StarterWorld(tmp_path_factory.mktemp("starter"))


def run(world, trainer, output, *options):
    given = {word.partition("=")[0] for word in options}
    return world.run(trainer, output, *(w for w in SHORT[trainer] if w.partition("=")[0] not in given), *options)


@pytest.mark.parametrize(("trainer", "fault"), CASES)
def test_the_right_verdict_comes_once(world, tmp_path, capsys, trainer, fault):
    with injected(fault, trainer, tmp_path) as options:
        if fault == "non_finite":
            with pytest.raises(UserError, match="not finite") as stopped:
                run(world, trainer, tmp_path / "run", *options)
            assert stopped.value.exit_code == ExitCode.BAD_DATA
        else:
            run(world, trainer, tmp_path / "run", *options)
    (stage,) = (tmp_path / "run").glob("0*")
    told = rows_of(stage / "health.jsonl")
    assert [row["fault"] for row in told] == [fault]
    if fault != "non_finite":
        assert told[0]["action"] == "warn"
        assert capsys.readouterr().err.count(f"warning: step {told[0]['step']}: {told[0]['what']}") == 1


@pytest.mark.parametrize("trainer", ["ppo", "grpo"])
def test_a_healthy_run_hears_nothing(world, tmp_path, trainer):
    stage = run(world, trainer, tmp_path)
    assert not (stage / "health.jsonl").exists()


def _rolled_back(world, monkeypatch, tmp_path, trainer, fault):
    """A run whose first attempt has the fault; from the roll-back on it has it no more. Returns the stage's folder."""
    with injected(fault, trainer, tmp_path) as options:
        monkeypatch.setattr(health.gc, "collect", _FAULT.undo)
        more = (f"health.{fault}=roll_back", "health.step_factor=1e-4")
        return run(world, trainer, tmp_path / "run", *options, *more)


def _assert_rolled_back_once(stage, fault, base):
    (told,) = rows_of(stage / "health.jsonl")
    assert (told["fault"], told["action"]) == (fault, "roll_back")
    rows = rows_of(stage / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    before, after = [row["lr"] for row in rows if row["step"] < told["since"]], rows[-1]["lr"]
    assert not before or after < 1e-3 * before[0]
    assert read_manifest(stage).kind == "policy"
    model = AutoModelForCausalLM.from_pretrained(base)
    model.load_adapter(str(stage / "model"))
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("trainer", "fault"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow, id="-".join(case)) for case in CASES],
)
def test_rolling_back_leaves_a_model_that_loads(world, tmp_path, monkeypatch, trainer, fault):
    stage = _rolled_back(world, monkeypatch, tmp_path, trainer, fault)
    _assert_rolled_back_once(stage, fault, world.model)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(("trainer", "fault"), CASES)
def test_each_fault_on_the_starter_model(starter_world, tmp_path, monkeypatch, trainer, fault):
    monkeypatch.setattr(_FAULT, "sharper", 8)
    stage = _rolled_back(starter_world, monkeypatch, tmp_path, trainer, fault)
    _assert_rolled_back_once(stage, fault, resolve(starter_world.model).base.folder)


def test_a_stage_stops_when_it_is_asked_to_and_goes_on_when_allowed(world, tmp_path):
    with injected("identical_rewards", "ppo", tmp_path):
        with pytest.raises(UserError, match="the scores of all responses are the same") as stopped:
            run(world, "ppo", tmp_path / "run", "health.identical_rewards=stop")
        assert stopped.value.exit_code == ExitCode.BAD_DATA
        assert "--health.identical-rewards warn" in stopped.value.fix
        (made,) = list_runs(tmp_path / "run")
        assert "was stopped: the scores of all responses are the same" in next_command(made)
        stage = run(world, "ppo", tmp_path / "run", "health.identical_rewards=off")
    assert [row["action"] for row in rows_of(stage / "health.jsonl")] == ["stop"]


def test_roll_backs_end(world, tmp_path, capsys):
    with injected("identical_rewards", "grpo", tmp_path), pytest.raises(UserError, match="scores of all"):
        run(world, "grpo", tmp_path / "run", "health.identical_rewards=roll_back", "health.max_roll_backs=2")
    (stage,) = (tmp_path / "run").glob("0*")
    assert [row["action"] for row in rows_of(stage / "health.jsonl")] == ["roll_back", "roll_back", "stop"]
    told = capsys.readouterr().err
    assert "learning rates times 0.5 from here" in told
    assert "learning rates times 0.25 from here" in told
    assert "2 roll-backs did not help" in told


@pytest.mark.parametrize("step", [1, 3])
def test_interrupted_after_a_roll_back_equals_straight_through(world, tmp_path, monkeypatch, step):
    """lr=0.3 moves the policy too far in the first iteration; a ten-thousandth of it does not."""
    words = ("optim.lr=0.3", "num_epochs=2", "health.ratio_explosion=roll_back", "health.step_factor=1e-4")
    want = run(world, "ppo", tmp_path / "straight", *words)
    assert [row["action"] for row in rows_of(want / "health.jsonl")] == ["roll_back"]
    signal_at(monkeypatch, step, signal.SIGINT)
    with pytest.raises(SystemExit):
        run(world, "ppo", tmp_path / "run", *words)
    monkeypatch.undo()
    stage = run(world, "ppo", tmp_path / "run", *words)
    ours, theirs = ({n: v for n, v in fingerprints(s).items() if "step-" not in n} for s in (stage, want))
    assert ours == theirs
    assert (stage / "health.jsonl").read_bytes() == (want / "health.jsonl").read_bytes()


@pytest.mark.parametrize("trainer", ["sft", "reward", "dpo"])
def test_every_trainer_can_roll_back(world, tmp_path, monkeypatch, trainer):
    """A gradient that is not finite in the third step, once."""
    steps, real = [], Optimizer._reduced_norm

    def norm(self):
        steps.append(1)
        return math.nan if len(steps) == 3 else real(self)

    monkeypatch.setattr(Optimizer, "_reduced_norm", norm)
    stage = world.run(trainer, tmp_path / "run", "checkpoint.every_steps=1", "health.non_finite=roll_back")
    (told,) = rows_of(stage / "health.jsonl")
    assert (told["fault"], told["step"], told["action"]) == ("non_finite", 3, "roll_back")
    straight = world.run(trainer, tmp_path / "straight")
    ours, theirs = ([row["lr"] for row in rows_of(s / "metrics.jsonl")] for s in (stage, straight))
    assert ours == pytest.approx([*theirs[:2], *(rate / 2 for rate in theirs[2:])])


# --- the rules by themselves


def healthy(step, generator):
    """A row as a sound run writes it."""
    return {
        "step": step, "score_mean": generator.uniform(-1, 1), "score_std": generator.uniform(0.1, 2),
        "kl_mean": generator.uniform(-0.3, 10), "kl_old_new": generator.uniform(0, 0.05),
        "clip_fraction": generator.uniform(0, 0.4), "entropy": generator.uniform(1, 2),
        "response_length": generator.uniform(40, 50), "repetition": generator.uniform(0, 0.1),
        "value_loss": generator.uniform(0.5, 1), "explained_variance": generator.uniform(-1, 1),
        "zero_variance_groups": generator.uniform(0, 0.8),
    }  # fmt: skip


@given(st.randoms(use_true_random=False), st.integers(1, 12))
def test_sound_rows_give_no_verdict(generator, count):
    assert list(verdicts([healthy(step, generator) for step in range(1, count + 1)])) == []


SICK = {
    "negative_kl": {"kl_mean": -0.6}, "ratio_explosion": {"kl_old_new": 0.2}, "identical_rewards": {"score_std": 1e-4},
    "zero_variance_groups": {"zero_variance_groups": 0.95}, "entropy_collapse": {"entropy": 0.1},
    "length_hack": {"response_length": 90.0, "score_mean": 2.0}, "repetition_hack": {"repetition": 0.5},
    "value_blow_up": {"value_loss": 30.0, "explained_variance": -0.1},
}  # fmt: skip


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(SICK)), st.integers(3, 8))
def test_a_fault_counts_when_it_has_lasted(generator, fault, at):
    rows = [healthy(step, generator) for step in range(1, at)]
    for more in range(FAULTS[fault].patience):
        assert fault not in {verdict.fault for verdict in verdicts(rows)}
        rows.append(healthy(at + more, generator) | SICK[fault])
    (found,) = [verdict for verdict in verdicts(rows) if verdict.fault == fault]
    assert (found.step, found.since) == (at + FAULTS[fault].patience - 1, at - FAULTS[fault].earlier)
    rows.append(healthy(at + 20, generator))
    assert fault not in {verdict.fault for verdict in verdicts(rows)}


@given(st.randoms(use_true_random=False), st.booleans())
def test_a_probe_that_falls_while_the_score_rises(generator, falls):
    rows = [
        healthy(step, generator) | {"score_mean": step + generator.uniform(0, 0.1),
                                    "probe/gold": (-step if falls else step) + generator.uniform(0, 0.1)}
        for step in range(1, 9)
    ]  # fmt: skip
    assert [verdict.fault for verdict in verdicts(rows)] == (["probe_divergence"] if falls else [])
