"""A finished journey with invented numbers, written as the stages would write it."""

import math
import random
from pathlib import Path

from fairlead.artifacts.journal import Journal
from fairlead.artifacts.manifest import BaseWeights, Manifest, Parent, package_versions, write_manifest
from fairlead.evaluate.probes import measure
from fairlead.evaluate.summary import (
    CHINESE_REPLIES,
    ENGLISH_REPLIES,
    Answer,
    Evaluation,
    StageSummary,
    compare_rewards,
    likelihood,
    preference_accuracy,
    sequence_kl,
    write_evaluation,
)

PROMPTS = (
    "Give three tips for staying healthy.",
    "用一句话解释什么是光合作用。",
    "Write a haiku about the sea. <script>alert('prompt')</script>",
    "Translate to Chinese: The library opens at nine.",
    "列出三种可以在家做的运动。",
    "Why is the sky blue?",
)
BASE = (
    "1. Eat a balanced diet.\n2. Exercise.\n3. Sleep.\n\nI hope this helps! I hope this helps! I hope",
    "The photosynthesis is a process process process 的 process",
    "The sea is vast and blue,\n<script>alert('reply')</script>\nWaves & foam.",
    "",
    "1. Running 2. Running 3. Running 4. Running",
    "The sky is blue because of the way that sunlight interacts with the atmosphere of the Earth.",
)
TUNED = (
    "1. Eat plenty of fruit and vegetables.\n2. Move for half an hour each day.\n3. Sleep at least seven hours.",
    "光合作用是植物利用阳光把二氧化碳和水变成糖和氧气的过程。",
    "Grey waves fold and fall\nA gull writes on the evening\nSalt wind turns the page",
    "图书馆九点开门。",
    "1. 俯卧撑\n2. 深蹲\n3. 瑜伽",
    "Air scatters blue light more than red, so blue reaches your eyes from every direction.",
)


def write_journey(run: Path, *, ppo_gain: float = 0.6) -> list[Path]:
    """Folders 01-sft, 02-reward and 03-ppo under `run`."""
    draw = random.Random(7)
    return [_sft(run, draw), _reward(run, draw), _ppo(run, draw, ppo_gain)]


def _sft(run: Path, draw: random.Random) -> Path:
    evaluation = Evaluation(
        stage=StageSummary("sft", "policy", sizes={"rows": 330, "tokens": 81234, "steps": 42}),
        likelihoods=(likelihood(CHINESE_REPLIES, 2.21 * 6012, 6012), likelihood(ENGLISH_REPLIES, 1.52 * 8450, 8450)),
        parent_likelihoods=(
            likelihood(CHINESE_REPLIES, 2.93 * 6012, 6012),
            likelihood(ENGLISH_REPLIES, 1.61 * 8450, 8450),
        ),
        probes=_probes(draw, 40, 0.86),
        parent_probes=_probes(draw, 46, 0.61),
        answers=tuple(Answer(p, t, b) for p, t, b in zip(PROMPTS, TUNED, BASE, strict=True)),
    )
    rows = [
        {
            "step": i,
            "loss": 1.6 + 1.2 * math.exp(-i / 9) + draw.gauss(0, 0.05),
            "lr": 2e-4 * (1 - i / 42),
            "grad_norm": 1.0,
        }
        for i in range(1, 43)
    ]
    return _write(run / "01-sft", evaluation, rows, {}, 131.2)


def _reward(run: Path, draw: random.Random) -> Path:
    evaluation = Evaluation(
        stage=StageSummary("reward", "reward", sizes={"pairs": 130, "tokens": 22010}),
        preferences=(_accuracy(draw, "held-out pairs", 124, 1.1), _accuracy(draw, "dpo_en_demo", 176, 0.1)),
    )
    rows = [
        {"step": i, "loss": 0.69 * math.exp(-i / 40), "accuracy": min(1.0, 0.5 + i / 60), "margin": i / 20}
        for i in range(1, 34)
    ]
    return _write(run / "02-reward", evaluation, rows, {"policy": "01-sft"}, 118.7)


def _ppo(run: Path, draw: random.Random, gain: float) -> Path:
    parent_scores = [draw.gauss(0.2, 1.0) for _ in range(128)]
    scores = [score + draw.gauss(gain, 0.9) for score in parent_scores]
    answers = tuple(
        Answer(p, f"{t} {t[:20]}", t, 1.0 + i / 7, i / 9) for i, (p, t) in enumerate(zip(PROMPTS, TUNED, strict=True))
    )
    evaluation = Evaluation(
        stage=StageSummary("ppo", "policy", sizes={"episodes": 512, "response_tokens": 19044}),
        rewards=compare_rewards(parent_scores, scores, seed=1),
        scores=tuple(scores),
        parent_scores=tuple(parent_scores),
        probes=_probes(draw, 41, 0.85),
        parent_probes=_probes(draw, 40, 0.86),
        kl=sequence_kl([abs(draw.gauss(3.4, 1.5)) for _ in range(128)], seed=1),
        answers=answers,
    )
    rows = [
        {
            "iteration": i,
            "score_mean": 0.2 + gain * i / 16 + draw.gauss(0, 0.06),
            "kl_mean": 0.22 * i,
            "entropy": 2.1 - i / 40,
            "policy_loss": -0.02,
            "value_loss": 0.5 / i,
            "end_token_rate": 0.86 + draw.gauss(0, 0.02),
            "response_length": 40 + draw.gauss(0, 1),
            "kl_coef": 0.05,
            "clip_fraction": 0.06,
        }
        for i in range(1, 17)
    ]
    return _write(run / "03-ppo", evaluation, rows, {"policy": "01-sft", "reward": "02-reward"}, 392.0)


def _accuracy(draw: random.Random, name: str, pairs: int, margin: float):
    chosen = [draw.gauss(margin, 1) for _ in range(pairs)]
    rejected = [draw.gauss(0, 1) for _ in range(pairs)]
    lengths = [[draw.randint(20, 60) for _ in range(pairs)] for _ in range(2)]
    return preference_accuracy(name, chosen, rejected, *lengths)


def _probes(draw: random.Random, length: int, ends: float):
    rows = [tuple(draw.randrange(400) for _ in range(draw.randint(length - 9, length + 9))) for _ in range(128)]
    return measure(rows, [draw.random() < ends for _ in rows])


def _write(folder, evaluation, metrics, parents, wall_seconds) -> Path:
    folder.mkdir(parents=True)
    write_evaluation(evaluation, folder / "evaluation.json")
    with Journal(folder / "metrics.jsonl") as journal:
        for row in metrics:
            journal.append(row)
    with Journal(folder / "timings.jsonl") as journal:
        for row in metrics:
            journal.append({"step": row.get("step", row.get("iteration")), "tokens_per_second": 640.0})
    with Journal(folder / "samples.jsonl") as journal:
        for prompt, reply in zip(PROMPTS, TUNED, strict=True):
            journal.append({"step": len(metrics), "prompt": prompt, "response": reply, "score": 0.7})
    manifest = Manifest(
        kind=evaluation.stage.kind,
        stage=evaluation.stage.stage,
        created="2026-01-02T03:04:05+00:00",
        parents={role: Parent(path=f"runs/demo/{name}", digest="ab" * 32) for role, name in parents.items()},
        config={"model": {"name": "smollm2-135m-instruct"}, "optim": {"lr": 2e-4, "schedule": "cosine"}},
        data_digests={"splits/train.jsonl": "0f" * 32, "splits/held_out.jsonl": "1e" * 32},
        base=BaseWeights(name="smollm2-135m-instruct", digest="cd" * 32),
        versions=package_versions(),
        num_threads=2,
        seed=42,
        wall_seconds=wall_seconds,
        peak_memory_bytes=2_900_000_000,
        facts={
            "licences": {"smollm2-135m-instruct": "Apache-2.0", "alpaca_zh_demo": "Apache-2.0"},
            "split_digest": "5a" * 32,
        },
    )
    write_manifest(folder, manifest)
    return folder
