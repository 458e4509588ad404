"""TRL's GRPOTrainer on the prompts, the model and the reward of fairlead's side; a round is one iteration.

An iteration is one generation of all responses and as many optimizer steps as fairlead takes on them. It needs nothing
of fairlead but the folder bench/.cache/online.

- Equal on both sides: prompts and their tokens, group size, longest response, temperature 1 without filters, full
  fine-tuning in bfloat16, reward function, advantages divided by the group's deviation, a loss that is a mean over
  tokens, a frozen reference whose KL (k3) is in the loss, log-probabilities of the policy before the first step, clip,
  AdamW at a constant rate without decay, clipping at norm 1, no activation checkpointing (TRL's default is on: it saves
  memory and is slower), no checkpoints on disk.
- Each library's own: sampling (so texts differ), attention, padding or packing, micro-batches, logs. TRL holds weights
  and moments in bfloat16; fairlead has float32 masters, which is more work.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from distinct import distinct_characters
from side import Turn

CACHE = Path(__file__).parents[1] / ".cache" / "online"
NUM_PROMPTS, GROUP, NUM_STEPS = 8, 8, 2  # as in bench/prompts.py
PHASES = {
    "_generate_single_turn": "generate_seconds", "_calculate_rewards": "score_seconds",
    "_get_per_token_logps_and_entropies": "measure_seconds",
}  # fmt: skip


def main() -> None:
    """Train until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=("grpo",))
    parser.add_argument("--model", choices=("natural", "endless"), default="endless")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="per_device_train_batch_size: responses of a micro-batch")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the weights")
    parser.add_argument("--no-autocast", action="store_true", help="bf16=False: compute in the dtype of the weights")
    arguments = parser.parse_args()
    turn = Turn()
    turn.imported()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(arguments, folder)
        trainer.add_callback(Round(turn, trainer, arguments))
        trainer.train()


class Timed(trl.GRPOTrainer):
    """Notes the seconds of its phases; what is left of a round is learning."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.phases: dict[str, float] = defaultdict(float)
        super().__init__(*args, **kwargs)

    def _timed(self, name: str, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = getattr(super(), name)(*args, **kwargs)
        if name != "_get_per_token_logps_and_entropies" or not torch.is_grad_enabled():
            self.phases[PHASES[name]] += time.perf_counter() - start
        return result

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed("_generate_single_turn", *args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed("_calculate_rewards", *args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        return self._timed("_get_per_token_logps_and_entropies", *args, **kwargs)


class Round(transformers.TrainerCallback):
    """Changes the turn when TRL has logged an iteration."""

    def __init__(self, turn: Turn, trainer: Timed, arguments: argparse.Namespace) -> None:
        self._turn, self._trainer, self._arguments, self._tokens = turn, trainer, arguments, 0

    def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        """All is loaded."""
        packages = {package.__name__: package.__version__ for package in (torch, transformers, trl)}
        self._turn.begin(
            packages=packages, options=vars(self._arguments), weights=str(next(model.parameters()).dtype),
            attention=model.config._attn_implementation, threads=torch.get_num_threads(),
        )  # fmt: skip

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """The optimizer steps on one generation are done."""
        if "completions/mean_length" not in logs:
            return
        tokens, self._tokens = logs["num_tokens"] - self._tokens, logs["num_tokens"]
        self._turn.end(
            units=logs["completions/mean_length"] * NUM_PROMPTS * GROUP, tokens=tokens, steps=NUM_STEPS, kl=logs["kl"],
            phases=dict(self._trainer.phases),
        )  # fmt: skip
        self._trainer.phases.clear()


def trainer_of(arguments: argparse.Namespace, folder: str) -> Timed:
    """The trainer, ready to start."""
    records = json.loads((CACHE / "prompts.json").read_text())[:NUM_PROMPTS]
    table = datasets.Dataset.from_list([{"prompt": [{"role": "user", "content": r["instruction"]}]} for r in records])
    responses_per_step = NUM_PROMPTS * GROUP // NUM_STEPS
    options = trl.GRPOConfig(
        output_dir=folder, max_steps=10**6, per_device_train_batch_size=arguments.batch,
        gradient_accumulation_steps=responses_per_step // arguments.batch, generation_batch_size=NUM_PROMPTS * GROUP,
        num_generations=GROUP, max_completion_length=arguments.max_new_tokens, temperature=1.0, beta=0.04,
        learning_rate=1e-6, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, use_cpu=True,
        bf16=not arguments.no_autocast, gradient_checkpointing=False, save_strategy="no", logging_steps=NUM_STEPS,
        report_to="none", disable_tqdm=True, model_init_kwargs={"dtype": arguments.dtype},
    )  # fmt: skip
    model = json.loads((CACHE / "models.json").read_text())[arguments.model]
    return Timed(model, reward, options, train_dataset=table)


def reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    """The rule, as TRL calls it."""
    return [distinct_characters("", completion[0]["content"], "") for completion in completions]


if __name__ == "__main__":
    main()
