"""TRL's last PPOTrainer on the prompts, the model and the reward model of fairlead's side; a round is one iteration.

It needs nothing of fairlead but the folder bench/.cache/online. TRL removed PPO after the version of trl-ppo.txt.

- Equal on both sides: prompts, responses of the longest length, temperature 1; LoRA of the same rank on all linear
  layers, for policy and critic, in bfloat16; the reference is the policy without its adapter; log-probabilities of
  policy and reference and values before the first step; KL (k1) in the reward, whitened advantages; 2 epochs, in each
  one optimizer step on all responses; AdamW at a constant rate without decay; no activation checkpointing (TRL has it
  on by default: it saves memory and is slower), no checkpoints on disk.
- Each library's own: sampling (so texts differ), attention, padding or packing, micro-batches, logs. TRL's critic and
  reward model have base weights of their own, the reward model's adapter merged into them, so it costs no more than
  plain weights; one loss and one optimizer hold policy and critic. TRL has adapters and moments in bfloat16; fairlead
  has float32 masters. TRL keeps the logits of generation and does not read the policy again before learning, which is
  less work; it pads the prompts of all rows to the longest.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from typing import Any

import datasets
import peft
import torch
import transformers
import trl
from online import conversations, models, parser
from side import DEVICE, Turn, facts
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

NUM_EPOCHS = 2  # as in bench/prompts.py
PADDING = "<repo_name>"  # TRL takes every padding token for padding, so it must be one that neither side says
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PHASES = {"batch_generation": "generate_seconds", "get_reward": "score_seconds"}


def main() -> None:
    """Train until told to stop."""
    options = parser()
    options.add_argument("--batch", type=int, required=True, help="per_device_train_batch_size: responses")
    asked = options.parse_args()
    turn = Turn()
    turn.imported()
    phases = timed_phases()
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(asked, folder)
        trainer.add_callback(Round(turn, trainer, phases, asked))
        trainer.train()


def timed_phases() -> dict[str, float]:
    """The seconds of generation, and of reward model and critic before learning, as they are counted."""
    phases: dict[str, float] = defaultdict(float)

    def timed(name: str) -> Any:
        function = getattr(ppo_trainer, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            phases[PHASES[name]] += time.perf_counter() - start
            return result

        return call

    for name in PHASES:
        setattr(ppo_trainer, name, timed(name))
    return phases


class Round(transformers.TrainerCallback):
    """Changes the turn between two iterations."""

    def __init__(self, turn: Turn, trainer: Any, phases: dict[str, float], asked: argparse.Namespace) -> None:
        self._turn, self._trainer, self._phases, self._asked = turn, trainer, phases, asked
        self._steps: list[int] = []
        take_step = trainer.optimizer.optimizer.step

        def take_and_count(*args: Any, **kwargs: Any) -> Any:
            self._steps.append(1)
            return take_step(*args, **kwargs)

        trainer.optimizer.optimizer.step = take_and_count

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """All is loaded."""
        model = self._trainer.model
        trained = [p for p in model.parameters() if p.requires_grad]
        more = {
            "options": vars(self._asked), "trained": sorted({str(p.dtype) for p in trained}),
            "num_trained": sum(p.numel() for p in trained),
        }  # fmt: skip
        self._turn.begin(**facts(model.policy, torch, transformers, trl, peft, **more))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """An iteration is done: TRL counts it as a step. Both roles take a step where TRL takes one."""
        kl = self._trainer.state.log_history[-1]["objective/kl"]
        units = self._asked.num_prompts * self._asked.max_new_tokens
        tokens = units + sum(map(len, self._trainer.train_dataset["input_ids"]))
        self._turn.end(units=units, tokens=tokens, steps=2 * len(self._steps), kl=kl, phases=dict(self._phases))
        self._steps.clear()
        self._phases.clear()


def trainer_of(asked: argparse.Namespace, folder: str) -> PPOTrainer:
    """The trainer, ready to start."""
    weights = models()["endless"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights, padding_side="left", pad_token=PADDING)
    prompts = [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        for messages in conversations(asked)
    ]
    policy = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(weights, dtype="bfloat16"),
        peft.LoraConfig(r=16, lora_alpha=32, target_modules=LAYERS, task_type="CAUSAL_LM"),
        autocast_adapter_dtype=False,
    )
    critic = scorer(weights)
    critic.requires_grad_(False)
    peft.inject_adapter_in_model(peft.LoraConfig(r=16, lora_alpha=32, target_modules=LAYERS), critic)
    critic.score.requires_grad_(True)
    reward = peft.PeftModel.from_pretrained(scorer(weights), models()["reward"]).merge_and_unload()
    options = PPOConfig(
        output_dir=folder, total_episodes=10**6, per_device_train_batch_size=asked.batch,
        gradient_accumulation_steps=asked.num_prompts // asked.batch, num_mini_batches=1, num_ppo_epochs=NUM_EPOCHS,
        local_rollout_forward_batch_size=asked.num_prompts, response_length=asked.max_new_tokens, temperature=1.0,
        kl_coef=0.05, learning_rate=1e-6, lr_scheduler_type="constant", weight_decay=0.0, bf16=True,
        use_cpu=DEVICE == "cpu", gradient_checkpointing=False,
        num_sample_generations=0, save_strategy="no", logging_steps=1, report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    table = datasets.Dataset.from_dict({"input_ids": prompts})
    return PPOTrainer(
        options, tokenizer, policy, None, reward, table, critic, eval_dataset=table.select(range(1))
    )  # fmt: skip


def scorer(folder: str) -> Any:
    """The base weights under a new score layer."""
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype="bfloat16")


if __name__ == "__main__":
    main()
