"""The trainers on a tiny random Llama and invented rows, English and Chinese: a run takes less than a second."""

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.parse import load
from fairlead.config.stages import DpoConfig, KtoConfig, RewardConfig, SftConfig
from fairlead.train.dpo import train_dpo
from fairlead.train.grpo import train_grpo
from fairlead.train.kto import train_kto
from fairlead.train.ppo import train_ppo
from fairlead.train.reward import train_reward
from fairlead.train.sft import train_sft
from tiny import tiny_model

TRAINERS = {
    "sft": (SftConfig, train_sft),
    "reward": (RewardConfig, train_reward),
    "dpo": (DpoConfig, train_dpo),
    "kto": (KtoConfig, train_kto),
    "ppo": (PpoConfig, train_ppo),
    "grpo": (GrpoConfig, train_grpo),
}

ROWS_OF = {"reward": "preferences", "dpo": "preferences", "kto": "judgements"}  # the others: conversations

_ENGLISH = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "what",
    "is",
    "capital",
    "of",
    "France",
    "Paris",
    "hello",
    "today",
    "fine",
    "thank",
]
_CHINESE = ["今天", "天气", "很好", "北京", "是", "中国", "首都", "你好", "谢谢", "学习"]


def _words(rng, chinese, count):
    words = [rng.choice(_CHINESE if chinese else _ENGLISH) for _ in range(count)]
    return ("" if chinese else " ").join(words)


def conversations(count, seed=0):
    """Rows in messages layout; every third answer is Chinese; one in five has two turns."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        chinese = i % 3 == 0
        messages = []
        for turn in range(2 if i % 5 == 0 else 1):
            messages += [
                {"role": "user", "content": f"{_words(rng, chinese, 3 + i % 3)} {i} {turn}"},
                {"role": "assistant", "content": _words(rng, chinese, 2 + i % 5)},
            ]
        rows.append({"messages": messages})
    return rows


def preferences(count, seed=1):
    """Plain pairs of different lengths: the chosen answer begins with yes, the rejected one with no."""
    rng = random.Random(seed)
    return [
        {
            "prompt": f"{_words(rng, False, 3 + i % 4)} {i}",
            "chosen": "yes " + _words(rng, False, 1 + i % 4),
            "rejected": "no " + _words(rng, False, 1 + (i // 2) % 4),
        }
        for i in range(count)
    ]


def judgements(count, seed=2):
    """Answers with a label: a desirable one begins with yes, an undesirable one with no; two of three are desirable."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        desirable = i % 3 != 2
        answer = ("yes " if desirable else "no ") + _words(rng, False, 1 + i % 4)
        turns = [("user", f"{_words(rng, False, 3 + i % 4)} {i}"), ("assistant", answer)]
        rows.append({"messages": [{"role": role, "content": text} for role, text in turns], "label": desirable})
    return rows


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class TinyWorld:
    """A tiny model and its rows in one folder; `reward` is a finished reward stage for ppo."""

    root: Path

    def __post_init__(self):
        self.model = tiny_model(self.root / "model")
        self.conversations = write_rows(self.root / "conversations.jsonl", conversations(24))
        self.preferences = write_rows(self.root / "preferences.jsonl", preferences(20))
        self.judgements = write_rows(self.root / "judgements.jsonl", judgements(24))
        self.reward = self.run("reward", self.root / "reward-run", "num_epochs=2")

    def words(self, trainer, output, *overrides):
        """What would stand on the command line."""
        rows = getattr(self, ROWS_OF.get(trainer, "conversations"))
        words = [
            f"output={output}", f"model.name={self.model}", "model.lora.rank=4", f"data.train={rows}",
            "data.max_length=256", "runtime.device=cpu", "runtime.dtype=float32",
            "runtime.num_threads=1", "optim.lr=0.01", "batch.micro_batch_tokens=400",
        ]  # fmt: skip
        if trainer == "ppo":
            words += [
                f"reward_model={self.reward}", "num_iterations=3", "prompts_per_iteration=6", "mini_batch_size=3",
                "sampling.max_new_tokens=8",
            ]  # fmt: skip
        elif trainer == "grpo":
            words += [
                f"reward_model={self.reward}", "num_iterations=3", "prompts_per_iteration=2",
                "num_responses_per_prompt=6", "mini_batch_size=6", "sampling.max_new_tokens=8",
            ]  # fmt: skip
        else:
            words += ["batch.rows=6", "num_epochs=1", "data.held_out_rows=4"]
        given = {word.partition("=")[0] for word in overrides}  # a list given twice would be joined
        return [*(word for word in words if word.partition("=")[0] not in given), *overrides]

    def config(self, trainer, output, *overrides):
        return load(TRAINERS[trainer][0], None, self.words(trainer, output, *overrides))

    def run(self, trainer, output, *overrides):
        """Run or resume a stage in this process; returns its folder."""
        return TRAINERS[trainer][1](self.config(trainer, output, *overrides))


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fingerprints(stage):
    """sha256 of every file whose bytes seed and data decide; checkpoints by their tensors and numbers."""
    names = [
        path
        for pattern in ("model/*", "critic/*", "metrics.jsonl", "samples.jsonl", "checkpoints/*/state.*")
        for path in stage.glob(pattern)
    ]
    return {str(path.relative_to(stage)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(names)}
