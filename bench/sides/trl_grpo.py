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
import tempfile
import time
from collections import defaultdict
from typing import Any

import datasets
import torch
import transformers
import trl
from distinct import distinct_characters
from online import conversations, models, parser
from side import DEVICE, Turn, facts

NUM_STEPS = 2  # as in bench/prompts.py
PHASES = {
    "_generate_single_turn": "generate_seconds", "_calculate_rewards": "score_seconds",
    "_get_per_token_logps_and_entropies": "measure_seconds",
}  # fmt: skip


def main() -> None:
    """Train until told to stop."""
    options = parser()
    options.add_argument("--batch", type=int, required=True, help="per_device_train_batch_size: responses")
    options.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the weights")
    options.add_argument("--no-autocast", action="store_true", help="bf16=False: compute in the dtype of the weights")
    asked = options.parse_args()
    turn = Turn()
    turn.imported()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(asked, folder)
        trainer.add_callback(Round(turn, trainer, asked))
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

    def __init__(self, turn: Turn, trainer: Timed, asked: argparse.Namespace) -> None:
        self._turn, self._trainer, self._asked, self._tokens = turn, trainer, asked, 0

    def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        """All is loaded."""
        self._turn.begin(**facts(model, torch, transformers, trl, options=vars(self._asked)))

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """The optimizer steps on one generation are done."""
        if "completions/mean_length" not in logs:
            return
        tokens, self._tokens = logs["num_tokens"] - self._tokens, logs["num_tokens"]
        units = logs["completions/mean_length"] * self._asked.num_prompts * self._asked.group
        phases = dict(self._trainer.phases)
        self._turn.end(units=units, tokens=tokens, steps=NUM_STEPS, kl=logs["kl"], phases=phases)
        self._trainer.phases.clear()


def trainer_of(asked: argparse.Namespace, folder: str) -> Timed:
    """The trainer, ready to start."""
    num_responses = asked.num_prompts * asked.group
    options = trl.GRPOConfig(
        output_dir=folder, max_steps=10**6, per_device_train_batch_size=asked.batch,
        gradient_accumulation_steps=num_responses // NUM_STEPS // asked.batch, generation_batch_size=num_responses,
        num_generations=asked.group, max_completion_length=asked.max_new_tokens, temperature=1.0, beta=0.04,
        learning_rate=1e-6, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, use_cpu=DEVICE == "cpu",
        bf16=not asked.no_autocast, gradient_checkpointing=False, save_strategy="no", logging_steps=NUM_STEPS,
        report_to="none", disable_tqdm=True, model_init_kwargs={"dtype": asked.dtype},
    )  # fmt: skip
    table = datasets.Dataset.from_list([{"prompt": messages} for messages in conversations(asked)])
    return Timed(models()[asked.model], reward, options, train_dataset=table)


def reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
    """The rule, as TRL calls it."""
    return [distinct_characters("", completion[0]["content"], "") for completion in completions]


if __name__ == "__main__":
    main()
