"""On a CUDA device: the numbers of a CPU in float32, for every family and stage, on the kernels that only a GPU runs.

`make test-gpu` runs them; without a device they are skipped.
"""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairlead.config.common import ModelConfig, RuntimeConfig, SamplingConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.generate.engine import Engine
from fairlead.generate.requests import Response
from fairlead.models.build import add_frozen, add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.sources import resolve
from fairlead.runtime.progress import Progress
from fairlead.runtime.recording import Recording
from fairlead.runtime.start import Runtime, start
from model_setting import rows_of
from tiny import PACKABLE, WINDOW
from tiny_stages import TRAINERS, TinyWorld
from tiny_stages import rows_of as metrics_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

Tiny = Callable[[str], Path]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # float32 on both, other orders of sums
PROMPTS = rows_of([1, 5, 2 * WINDOW + 1, 3, 9, 30, 1, 12] * 3)
END_TOKENS = tuple(range(2, 320, 16))


def runtime_on(device: str, dtype: str = "float32", *, fast: bool = True) -> Runtime:
    return start(RuntimeConfig(device=device, dtype=dtype, num_threads=1, fast=fast))


def policy_on(device: str, folder: Path, dtype: str = "float32") -> tuple[Roles, Runtime]:
    roles, runtime, model = Roles(), runtime_on(device, dtype), ModelConfig(tuning="full")
    add_trainable(roles, "policy", resolve(str(folder)), "logprobs", model, runtime, dropout=0.0)
    return ready(roles, model, runtime), runtime


def some_examples() -> list[Example]:
    """Sequences of different lengths, three of them with one prompt in front."""
    prompt, *others = rows_of([7, 3, 12, 40, 1, 90, 2 * WINDOW])
    texts = [(*prompt, *other) for other in others[:3]]
    shared = [Example(text, (False,) * len(prompt) + (True,) * (len(text) - len(prompt))) for text in texts]
    return [*shared, *(Example(text, (True,) * len(text)) for text in others[2:])]


def logprobs_and_gradients(device: str, folder: Path, dtype: str) -> tuple[Tensor, dict[str, Tensor]]:
    roles, runtime = policy_on(device, folder, dtype)
    found = roles(collate(some_examples(), share_prompts=True).to(runtime.device), "policy", with_entropy=True)
    (found.logprobs * torch.linspace(-1, 1, len(found.logprobs), device=runtime.device)).sum().backward()
    gradients = {name: p.grad.cpu().float() for name, p in roles.trainable("policy").items() if p.grad is not None}
    return torch.stack([found.logprobs.detach(), found.entropy]).cpu(), gradients


@pytest.mark.parametrize("family", PACKABLE)
def test_log_probabilities_and_gradients_are_those_of_a_cpu(tiny: Tiny, family: str) -> None:
    (ours, gradients), (expected, wanted) = (
        logprobs_and_gradients(device, tiny(family), "float32") for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(ours, expected, **TOLERANCE)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            gradients[name], gradient, rtol=1e-3, atol=1e-4 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_bfloat16_is_as_near_to_float32_as_a_cpus_is(tiny: Tiny) -> None:
    exact, wanted = logprobs_and_gradients("cpu", tiny("llama"), "float32")
    away = {}
    for device in ("cuda", "cpu"):
        found, gradients = logprobs_and_gradients(device, tiny("llama"), "bfloat16")
        squares = sum(float((gradients[name] - gradient).square().sum()) for name, gradient in wanted.items())
        away[device] = float((found - exact).norm()), squares**0.5
    for gpu, cpu in zip(away["cuda"], away["cpu"], strict=True):
        assert gpu < 1.5 * cpu


def drawn(device: str, folder: Path, sampling: SamplingConfig, *, fast: bool = True) -> list[Response]:
    roles, runtime = Roles(), runtime_on(device, fast=fast)
    add_frozen(roles, "policy", resolve(str(folder)), "logprobs", runtime)
    engine = Engine(roles, "policy", END_TOKENS, runtime, rows_at_once=10)
    return engine.generate(PROMPTS, sampling, seeds=range(len(PROMPTS)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", PACKABLE)
def test_a_gpu_draws_what_a_cpu_draws(tiny: Tiny, family: str, temperature: float) -> None:
    sampling = SamplingConfig(temperature=temperature, max_new_tokens=3 * WINDOW, repetition_penalty=1.1)
    ours, expected = (drawn(device, tiny(family), sampling) for device in ("cuda", "cpu"))
    assert [r.tokens for r in ours] == [r.tokens for r in expected]
    for one, other in zip(ours, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_steps_are_recorded_and_played(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that come and go, and a cache that grows twice, need few recordings; every other step is one call."""
    recorded, played = [], []
    real = Recording.play

    def play(recording: Recording) -> Tensor:
        assert recording.works
        recorded.append(id(recording))
        played.append(recording)
        return real(recording)

    monkeypatch.setattr(Recording, "play", play)
    monkeypatch.setattr("fairlead.models.kv_cache.CUDA_BLOCK", 32)
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=40)
    ours = drawn("cuda", tiny("llama"), sampling)
    assert [r.tokens for r in ours] == [r.tokens for r in drawn("cpu", tiny("llama"), sampling)]
    assert len(played) > 3 * len(set(recorded)) > 3


def test_the_reference_twin_draws_the_same(tiny: Tiny) -> None:
    sampling = SamplingConfig(temperature=1.0, max_new_tokens=8)
    ours, twin = (drawn("cuda", tiny("llama"), sampling, fast=fast) for fast in (True, False))
    assert [r.tokens for r in ours] == [r.tokens for r in twin]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return TinyWorld(tmp_path_factory.mktemp("world"))


BEFORE_LEARNING = ("score_mean", "kl_mean", "response_length", "sampler_gap")
COMPARED = ("loss", *BEFORE_LEARNING)


CASES = [(trainer, "lora") for trainer in TRAINERS]
CASES += [(trainer, "full") for trainer in TRAINERS if trainer != "ppo"]  # its critic starts from the reward's adapter


@pytest.mark.parametrize(("trainer", "tuning"), CASES)
def test_a_stage_takes_the_steps_of_a_cpu(world: TinyWorld, tmp_path: Path, trainer: str, tuning: str) -> None:
    """The same losses, and an artifact that a CPU reads.

    Of ppo and grpo only what an iteration begins with: Adam divides gradients by their size, so one that should be zero
    makes a step of its rounding, and the next iteration draws other tokens.
    """
    words = [f"model.tuning={tuning}", "optim.lr=0.001"]
    ours, twin, expected = (
        world.run(trainer, tmp_path / name, f"runtime.device={device}", f"runtime.fast={fast}", *words)
        for name, device, fast in (("ours", "cuda", "true"), ("twin", "cuda", "false"), ("expected", "cpu", "true"))
    )
    rows = metrics_of(expected / "metrics.jsonl")
    for stage in (ours, twin):
        found = metrics_of(stage / "metrics.jsonl")
        for number in range(1 if trainer in ("ppo", "grpo") else len(rows)):
            for key in set(COMPARED) & rows[number].keys():
                assert found[number][key] == pytest.approx(rows[number][key], rel=1e-2, abs=2e-4), (key, number)
    assert json.loads((ours / "manifest.json").read_text())["kind"]
    if trainer != "reward":
        add_frozen(Roles(), "policy", resolve(str(ours)), "logprobs", runtime_on("cpu"))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_stage_that_was_stopped_goes_on(
    world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    """From its checkpoint on a GPU, to the metrics of a stage that was not stopped."""
    words = ["runtime.device=cuda", "optim.lr=0.001"]
    whole = world.run(trainer, tmp_path / "whole", *words)
    real = Progress.advance

    def advance(progress: Progress, at: int, *more: object) -> object:
        if at == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(progress, at, *more)

    monkeypatch.setattr(Progress, "advance", advance)
    with pytest.raises(SystemExit):
        world.run(trainer, tmp_path / "stopped", *words)
    monkeypatch.undo()
    stopped = world.run(trainer, tmp_path / "stopped", *words)
    rows = metrics_of(whole / "metrics.jsonl")
    for found, wanted in zip(metrics_of(stopped / "metrics.jsonl"), rows, strict=True):
        for key in set(COMPARED) & wanted.keys():
            assert found[key] == pytest.approx(wanted[key], rel=1e-3, abs=1e-5), (key, wanted["step"])
