"""The first steps of fairlead and TRL on the same rows, from the same weights: losses and gradient norms side by side.

    python bench/trl_first_steps.py sft reward dpo     # in an environment that has TRL too: conformance/README.md

Full fine-tuning of SmolLM2-135M-Instruct in float32 without dropout; AdamW at a constant rate, gradients clipped to
norm 1; 5 steps of 8 conversations or 2 pairs. Writes bench/results/2026-11-24-trl-first-steps.json; exit code 1 where a
number differs by more than 1e-4 of itself.

The two run as they are, so a step is cut in different ways: fairlead packs its rows into one micro-batch without
padding and uses its own attention; TRL pads, takes half of the rows at a time, accumulates twice, and uses torch's.

What is made equal by hand, because each library has its own default:
- Tokens and trained positions are fairlead's. TRL takes them as they are for sft (`input_ids`, `labels`) and reward
  (`chosen_ids`, `rejected_ids`); for dpo it insists on text, so its `_prepare_dataset` is replaced by one that returns
  the tokens. `own_tokens` counts the sequences that TRL would have tokenised otherwise.
- The order of rows is fairlead's; TRL reads one after the other.
- The new score head is the one that fairlead draws. TRL pads reward batches with a token that never ends a response:
  transformers reads the score at the last token that is no padding, and this model's own padding token ends responses.
- TRL's bfloat16, fused AdamW, gradient checkpointing and linear schedule are switched off. No weight decay: where there
  is one, transformers exempts norms and biases, fairlead does not.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fairlead.config.common import BatchConfig, DataConfig, ModelConfig, OptimConfig, RuntimeConfig
from fairlead.config.stages import DpoConfig, RewardConfig, SftConfig
from fairlead.data.examples import Example, PairExample
from fairlead.data.load import read_conversations, read_preferences
from fairlead.data.sampler import step_rows
from fairlead.data.starter import resolve_paths
from fairlead.models.build import add_trainable
from fairlead.models.roles import Roles
from fairlead.records import Message
from fairlead.runtime.environment import cache_folder
from fairlead.runtime.start import start
from fairlead.train.dpo import train_dpo
from fairlead.train.reward import train_reward
from fairlead.train.rows import (
    encoder_of,
    load_conversations,
    load_preferences,
    padding_token,
    policy_source,
)
from fairlead.train.sft import train_sft

RESULT = Path(__file__).parent / "results" / "2026-11-24-trl-first-steps.json"
STAGES = {"sft": (SftConfig, train_sft), "reward": (RewardConfig, train_reward), "dpo": (DpoConfig, train_dpo)}
ROWS = {"sft": "alpaca_en_demo", "reward": "dpo_en_demo", "dpo": "dpo_en_demo"}
NUM_STEPS = 5
ROWS_PER_STEP = {"sft": 8, "reward": 2, "dpo": 2}
LONGEST = {"sft": 96, "reward": 160, "dpo": 160}  # tokens of a sequence; no row is cut
OPTIMIZER = OptimConfig(lr=1e-5, schedule="constant")
TOLERANCE = 1e-4
Rows = Sequence[Example] | Sequence[PairExample]


def main() -> int:
    """Returns 1 when the two disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES)
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {"stages": {}}
    result |= {"environment": environment(), "settings": settings()}
    for stage in parser.parse_args().stages:
        with tempfile.TemporaryDirectory() as folder:
            result["stages"][stage] = compare(stage, Path(folder))
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any(stage["largest_difference"] > TOLERANCE for stage in result["stages"].values()) else 0


def compare(stage: str, folder: Path, model: str = ModelConfig().name) -> dict[str, Any]:
    """Run both, print the table, return it."""
    config = config_of(stage, short_rows(stage, folder, model), folder, model)
    rows = encoded(stage, config)
    order = [
        i for step in range(NUM_STEPS) for i in step_rows(len(rows), ROWS_PER_STEP[stage], 1, config.runtime.seed, step)
    ]  # fmt: skip
    ours = fairlead_steps(stage, config)
    theirs = trl_steps(stage, [rows[i] for i in order], config, folder)
    table, largest = [], 0.0
    print(f"{stage}: {len(rows)} rows of {ROWS[stage]}\nstep  {'number':9}  {'fairlead':>12}  {'TRL':>12}  relative")
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True), 1):
        for name in ("loss", "grad_norm"):
            difference = abs(mine[name] - other[name]) / abs(other[name])
            largest = max(largest, difference)
            print(f"{step:4}  {name:9}  {mine[name]:12.7f}  {other[name]:12.7f}  {difference:.1e}")
        table.append({"fairlead": mine, "trl": other})
    return {
        "rows": ROWS[stage],
        "num_rows": len(rows),
        "tokens": sum(_num_tokens(row) for row in rows),
        "sequences_as_trl_tokenises_them": own_tokens(stage, rows, config),
        "steps": table,
        "largest_difference": largest,
    }


def config_of(stage: str, rows: Path, folder: Path, model: str) -> SftConfig | RewardConfig | DpoConfig:
    """The run on fairlead's side; its defaults where nothing is said."""
    return STAGES[stage][0](
        output=str(folder / "run"), model=ModelConfig(name=model, tuning="full"),
        data=DataConfig(train=(str(rows),), held_out_rows=0, max_length=LONGEST[stage]),
        batch=BatchConfig(rows=ROWS_PER_STEP[stage]), optim=OPTIMIZER, num_epochs=1,
        runtime=RuntimeConfig(device="cpu", dtype="float32"),
    )  # fmt: skip


def short_rows(stage: str, folder: Path, model: str) -> Path:
    """A file of the first rows of the dataset that are short enough to stay whole, as they stand there."""
    (path,) = resolve_paths([ROWS[stage]], cache_folder())
    config = config_of(stage, path, folder, model)
    all_rows = config.data.model_copy(update={"max_length": 2048, "max_reject_rate": 1.0})
    whole = config.model_copy(update={"data": all_rows})
    sources = [_source(row) for row in encoded(stage, whole) if _longest(row) <= LONGEST[stage]]
    picked = [int(source.rpartition(":")[2]) - 1 for source in sources[: NUM_STEPS * ROWS_PER_STEP[stage]]]
    records = json.loads(path.read_text(encoding="utf-8"))
    short = folder / "rows.json"
    short.write_text(json.dumps([records[i] for i in picked]), encoding="utf-8")
    return short


def encoded(stage: str, config: Any) -> Rows:
    """The training rows as fairlead encodes them."""
    encoder = encoder_of(policy_source(config.model, config.data.max_length))
    if stage == "sft":
        return load_conversations(config.data, encoder, rejects=None, seed=config.runtime.seed).train
    return load_preferences(config.data, encoder, end_token=True, rejects=None, seed=config.runtime.seed).train


def fairlead_steps(stage: str, config: Any) -> list[dict[str, float]]:
    """Loss and gradient norm of every step."""
    lines = (STAGES[stage][1](config) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: json.loads(line)[name] for name in ("loss", "grad_norm")} for line in lines]


def trl_steps(stage: str, rows: Rows, config: Any, folder: Path) -> list[dict[str, float]]:
    """The same of TRL's trainer, on rows in the order of training."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, RewardTrainer, SFTConfig, SFTTrainer
    from trl import RewardConfig as TrlRewardConfig

    source = policy_source(config.model, config.data.max_length)
    weights, tokenizer = source.base.folder, AutoTokenizer.from_pretrained(source.base.folder)
    load = {"dtype": torch.float32, "local_files_only": True}
    options = {
        "output_dir": str(folder / "trl"), "max_steps": NUM_STEPS,
        "per_device_train_batch_size": ROWS_PER_STEP[stage] // 2, "gradient_accumulation_steps": 2,
        "learning_rate": OPTIMIZER.lr, "lr_scheduler_type": "constant", "optim": "adamw_torch",
        "weight_decay": OPTIMIZER.weight_decay, "adam_beta1": OPTIMIZER.beta1,
        "adam_beta2": OPTIMIZER.beta2, "adam_epsilon": OPTIMIZER.eps, "max_grad_norm": OPTIMIZER.max_grad_norm,
        "train_sampling_strategy": "sequential", "bf16": False, "use_cpu": True, "gradient_checkpointing": False,
        "max_length": None, "save_strategy": "no", "logging_steps": 1, "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    table = Dataset.from_list([_trl_row(stage, row) for row in rows])
    if stage == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=1, **load)
        model.score.weight.data.copy_(first_head(config))
        tokenizer.pad_token_id = padding_token(encoder_of(source).template)
        made = _recorded(RewardTrainer)
        trainer = made(model, TrlRewardConfig(**options), train_dataset=table, processing_class=tokenizer)
    elif stage == "dpo":
        model, reference = (AutoModelForCausalLM.from_pretrained(weights, **load) for _ in range(2))
        made, arguments = _recorded(DPOTrainer), DPOConfig(beta=config.beta, **options)
        made._prepare_dataset = lambda self, dataset, *_: dataset  # noqa: ARG005 - the tokens are there
        trainer = made(model, reference, arguments, train_dataset=table, processing_class=tokenizer)
    else:
        model = AutoModelForCausalLM.from_pretrained(weights, **load)
        made = _recorded(SFTTrainer)
        trainer = made(model, SFTConfig(**options), train_dataset=table, processing_class=tokenizer)
    trainer.train()
    return [{"loss": sum(trainer.losses[step]), "grad_norm": trainer.norms[step]} for step in range(NUM_STEPS)]


def _recorded(trainer: type) -> Any:
    """The trainer, keeping what it prints rounded: the losses of each step's micro-batches, and gradient norms."""

    class Recorded(trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().training_step(*args, **kwargs)
            if not hasattr(self, "losses"):
                self.losses, self.norms = defaultdict(list), []
            self.losses[self.state.global_step].append(float(loss))
            return loss

        def _get_grad_norm(self, *args: Any, **kwargs: Any) -> float:
            norm = super()._get_grad_norm(*args, **kwargs)
            self.norms.append(float(norm))
            return norm

    return Recorded


def first_head(config: RewardConfig) -> torch.Tensor:
    """The score head as `train_reward` draws it for this seed, before the first step."""
    runtime = start(config.runtime)
    source, roles = policy_source(config.model, config.data.max_length), Roles()
    add_trainable(roles, "reward", source, "scores", config.model, runtime, dropout=0.0)
    return roles.head("reward").weight.detach().clone()


def own_tokens(stage: str, rows: Rows, config: Any) -> dict[str, int]:
    """How many sequences are the same when the chat template is applied as TRL does it."""
    from transformers import AutoTokenizer

    source = policy_source(config.model, config.data.max_length)
    tokenizer = AutoTokenizer.from_pretrained(source.base.folder)
    (path,) = map(Path, config.data.train)
    if stage == "sft":
        dialogues = [record.messages for record in read_conversations([path]).records]
        ours = [row.input_ids for row in rows]
    else:
        dialogues = [
            (*record.prompt, Message("assistant", response))
            for record in read_preferences([path]).records
            for response in record.responses
        ]
        ours = [side.input_ids for row in rows for side in (row.chosen, row.rejected)]
    counts = {"equal": 0, "only a line break more after the end token": 0, "other": 0}
    for dialogue, ids in zip(dialogues, ours, strict=True):
        messages = [{"role": message.role, "content": message.content} for message in dialogue]
        theirs = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        longer = theirs[: len(ids)] == list(ids) and tokenizer.decode(theirs[len(ids) :]) == "\n"
        same = theirs == list(ids)
        counts["equal" if same else "only a line break more after the end token" if longer else "other"] += 1
    return counts


def _trl_row(stage: str, row: Any) -> dict[str, list[int]]:
    if stage == "sft":
        labels = [token if trained else -100 for token, trained in zip(row.input_ids, row.trained, strict=True)]
        return {"input_ids": list(row.input_ids), "labels": labels}
    chosen, rejected = list(row.chosen.input_ids), list(row.rejected.input_ids)
    if stage == "reward":
        return {"chosen_ids": chosen, "rejected_ids": rejected}
    prompt = row.chosen.trained.index(True)
    assert chosen[:prompt] == rejected[:prompt]
    return {
        "prompt_ids": chosen[:prompt], "chosen_ids": chosen[prompt:], "rejected_ids": rejected[prompt:],
    }  # fmt: skip


def _source(row: Example | PairExample) -> str:
    return row.source if isinstance(row, Example) else row.chosen.source


def _num_tokens(row: Example | PairExample) -> int:
    return len(row.input_ids) if isinstance(row, Example) else row.num_tokens


def _longest(row: Example | PairExample) -> int:
    if isinstance(row, Example):
        return len(row.input_ids)
    return max(len(row.chosen.input_ids), len(row.rejected.input_ids))


def settings() -> dict[str, Any]:
    """What both runs share."""
    return {
        "model": ModelConfig().name, "tuning": "full", "dtype": "float32", "optimizer": OPTIMIZER.model_dump(),
        "steps": NUM_STEPS, "rows_per_step": ROWS_PER_STEP, "longest_sequence_tokens": LONGEST,
        "tolerance": TOLERANCE,
    }  # fmt: skip


def environment() -> dict[str, Any]:
    """Packages and machine."""
    packages = ("torch", "transformers", "trl", "accelerate", "datasets")
    return {
        "packages": {package: version(package) for package in packages},
        "python": platform.python_version(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
