"""TRL's trainers on the tokens that fairlead trains on; a round is one optimizer step.

Reads bench/.cache/ROWS/steps.json and needs nothing of fairlead. TRL loads the model by itself, in the dtype of its
files (bfloat16: weights, gradients and moments; fairlead keeps float32 masters), and computes under its own bf16=True.

- Equal on both sides: rows of a step and their order, tokens, trained positions, the new score head, AdamW without
  decay at a constant rate so low that the models stay together, clipping at norm 1, no activation checkpointing (TRL's
  default is on: it saves memory and is slower), no checkpoints on disk.
- TRL's own: padding or packing, attention (torch's), fused AdamW, its collator, its data loader.
- By hand: for dpo TRL insists on text, so `_prepare_dataset` is replaced by one that returns the tokens; with packing,
  it packs every step's rows by themselves instead of all 1000 at once, so that a step has the same rows; reward batches
  are padded with a token that ends no response, since transformers reads the score at the last token before padding.
"""

import argparse
import functools
import json
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
import transformers
import trl
from side import DEVICE, Turn, facts
from trl.trainer import sft_trainer

CACHE = Path(__file__).parents[1] / ".cache"


def main() -> None:
    """Train until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=("sft", "reward", "dpo"))
    parser.add_argument("rows")
    parser.add_argument("--unit", choices=("rows", "tokens"), default="tokens")
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--batch", type=int, default=4, help="per_device_train_batch_size: rows, pairs, or packed rows")
    parser.add_argument("--dtype", choices=("auto", "float32"), default="auto", help="of the weights")
    parser.add_argument("--attention", help="attn_implementation")
    arguments = parser.parse_args()
    turn = Turn()
    turn.imported()
    about = json.loads((CACHE / arguments.rows / "steps.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(arguments, about, folder)
        trainer.add_callback(Round(turn, trainer, about["steps"], arguments))
        trainer.train()
    raise SystemExit(f"there are rows for {len(about['steps'])} rounds only")


class Round(transformers.TrainerCallback):
    """Changes the turn between two optimizer steps."""

    def __init__(self, turn: Turn, trainer: Any, steps: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
        self._turn, self._trainer, self._steps, self._arguments = turn, trainer, steps, arguments

    def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        """All is loaded."""
        self._turn.begin(**facts(model, torch, transformers, trl, options=vars(self._arguments)))

    def on_step_end(self, _arguments: Any, state: transformers.TrainerState, *_: Any, **__: Any) -> None:
        """A step is done."""
        loss = sum(self._trainer.losses)
        self._trainer.losses.clear()
        self._turn.end(units=self._steps[state.global_step - 1][self._arguments.unit], loss=loss)


def trainer_of(arguments: argparse.Namespace, about: dict[str, Any], folder: str) -> Any:
    """The trainer of a stage, ready to start."""
    steps = about["steps"]
    table = datasets.Dataset.from_list([row_of(arguments.stage, row) for step in steps for row in step["examples"]])
    tokenizer = transformers.AutoTokenizer.from_pretrained(about["model"])
    load = {"dtype": arguments.dtype} | ({"attn_implementation": arguments.attention} if arguments.attention else {})
    options = {
        "output_dir": folder, "num_train_epochs": 1, "per_device_train_batch_size": arguments.batch,
        "learning_rate": 1e-6, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "weight_decay": 0.0,
        "train_sampling_strategy": "sequential", "bf16": True, "gradient_checkpointing": False,
        "use_cpu": DEVICE == "cpu", "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "model_init_kwargs": load,
    }  # fmt: skip
    common = {"train_dataset": table, "processing_class": tokenizer}
    rows_per_step = len(steps[0]["examples"])
    match arguments.stage:
        case "sft":
            if arguments.packing:
                sft_trainer.pack_dataset = functools.partial(pack_each_step, rows_per_step, len(steps))
                rows_per_step = 4  # BINS of rows.py
            options |= {"gradient_accumulation_steps": rows_per_step // arguments.batch, "packing": arguments.packing}
            return summing(trl.SFTTrainer)(about["model"], trl.SFTConfig(**options), **common)
        case "reward":
            tokenizer.pad_token_id = about["padding_token"]
            options |= {"gradient_accumulation_steps": rows_per_step // arguments.batch, "max_length": None}
            trainer = summing(trl.RewardTrainer)(about["model"], trl.RewardConfig(**options), **common)
            with torch.no_grad():
                trainer.model.score.weight.copy_(torch.tensor(about["score_head"]))
            return trainer
        case _:
            options |= {"gradient_accumulation_steps": rows_per_step // arguments.batch, "max_length": None}
            made = summing(trl.DPOTrainer)
            made._prepare_dataset = lambda self, dataset, *_: dataset  # noqa: ARG005 - the tokens are there
            return made(about["model"], args=trl.DPOConfig(beta=0.1, **options), **common)


def summing(trainer: type) -> type:
    """The trainer, keeping the losses of a step's micro-batches."""

    class Summing(trainer):
        losses: ClassVar[list[float]] = []

        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().training_step(*args, **kwargs)
            self.losses.append(float(loss))
            return loss

    return Summing


def pack_each_step(rows_per_step: int, num_steps: int, dataset: Any, length: int, strategy: str, options: Any) -> Any:
    """TRL's packing, one step's rows at a time."""
    packed = trl.pack_dataset(dataset, length, strategy, options | {"batch_size": rows_per_step})
    assert len(packed) == 4 * num_steps, f"{len(packed)} packed rows"
    return packed


def row_of(stage: str, row: Any) -> dict[str, list[int]]:
    """A row as TRL's trainer of this stage takes it, tokenised."""
    if stage == "sft":
        labels = [token if trained else -100 for token, trained in zip(row["input_ids"], row["trained"], strict=True)]
        return {"input_ids": row["input_ids"], "labels": labels}
    chosen, rejected = (side["input_ids"] for side in row)
    if stage == "reward":
        return {"chosen_ids": chosen, "rejected_ids": rejected}
    prompt = row[0]["trained"].index(1)
    return {"prompt_ids": chosen[:prompt], "chosen_ids": chosen[prompt:], "rejected_ids": rejected[prompt:]}


if __name__ == "__main__":
    main()
