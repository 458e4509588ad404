"""What the works of online training start from: prompts, a model that never ends, and a reward model.

    python bench/prompts.py [--reward]     # writes bench/.cache/online/

- `short.json`: the first prompts of alpaca_en_demo, 35 to 65 tokens with the chat template. `mixed.json`: those of
  dpo_en_demo that have one turn, 40 to 256 tokens. Every iteration of a work answers the first few of them, all of them
  each time, so the order in which a library shuffles does not matter.
- `endless/`: the starter model with another end token, one that it never says. All responses then have the longest
  length, on both sides, and nothing of either library is changed for it.
- `reward/`: a reward model on that base, a LoRA adapter of one short fairlead stage: its scores matter to nobody here.
"""

import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from setting import MODEL, RUNTIME, source

from fairlead.artifacts.stages import stage_folder
from fairlead.config.common import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    SamplingConfig,
)
from fairlead.config.online import GrpoConfig, KlConfig, PpoConfig, PpoKlConfig, PromptsConfig
from fairlead.config.stages import RewardConfig
from fairlead.data.examples import task_examples
from fairlead.data.load import read_prompts
from fairlead.data.starter import resolve_paths
from fairlead.runtime.environment import cache_folder
from fairlead.train.reward import train_reward
from fairlead.train.rows import encoder_of, policy_source

CACHE = Path(__file__).parent / ".cache" / "online"
REWARD = stage_folder(CACHE / "reward", "reward")
REWARD_FUNCTION = Path(__file__).parent / "sides" / "distinct.py"
SETS = {"short": "alpaca_en_demo", "mixed": "dpo_en_demo"}
NUM_PROMPTS = 32  # of a set, more than any work takes
LONGEST = 256  # tokens of a prompt, so that a round of `mixed` ends within a minute or two
END, UNSAID = "<|im_end|>", "<|endoftext|>"
NEVER = 10**6  # iterations: the peer saves nothing either
COMMON = {
    "checkpoint": CheckpointConfig(every_steps=NEVER), "num_iterations": NEVER,
    "runtime": RUNTIME,
}  # fmt: skip


def grpo(output: str, asked: Namespace) -> GrpoConfig:
    """A group of responses to each prompt, 2 optimizer steps; the KL in the loss, as TRL has it."""
    return GrpoConfig(
        output=output, model=ModelConfig(name=_folder(asked.model), tuning="full"), data=data(asked),
        rewards=(f"{REWARD_FUNCTION}:distinct_characters",), prompts_per_iteration=asked.num_prompts,
        num_responses_per_prompt=asked.group, mini_batch_size=asked.num_prompts * asked.group // 2,
        sampling=SamplingConfig(max_new_tokens=asked.max_new_tokens), optim=OptimConfig(lr=1e-6, schedule="constant"),
        kl=KlConfig(coef=0.04, where="loss", estimator="k3"), **COMMON,
    )  # fmt: skip


def ppo(output: str, asked: Namespace) -> PpoConfig:
    """A response to each prompt, 2 epochs of one optimizer step each; LoRA."""
    return PpoConfig(
        output=output, model=ModelConfig(name=_folder(asked.model)), data=data(asked), reward_model=str(REWARD),
        prompts_per_iteration=asked.num_prompts, mini_batch_size=asked.num_prompts, num_epochs=2,
        sampling=SamplingConfig(max_new_tokens=asked.max_new_tokens), optim=OptimConfig(lr=1e-6, schedule="constant"),
        kl=PpoKlConfig(coef=0.05), **COMMON,
    )  # fmt: skip


def data(asked: Namespace) -> PromptsConfig:
    """The first prompts of a set."""
    return PromptsConfig(train=(str(CACHE / f"{asked.prompts}.json"),), max_rows=asked.num_prompts, max_length=LONGEST)


def main() -> None:
    """Write all three, and where the models are."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for name, dataset in SETS.items():
        texts = _short_enough(dataset)[:NUM_PROMPTS]
        (CACHE / f"{name}.json").write_text(json.dumps([{"instruction": text, "output": "-"} for text in texts]))
    natural, endless = source().base.folder, CACHE / "endless"
    if not endless.is_dir():
        shutil.copytree(natural, endless, ignore=shutil.ignore_patterns("*.sha256"))
        _end_with(endless, UNSAID)
    if "--reward" in sys.argv:
        _train_reward(str(endless))
    models = {"natural": str(natural), "endless": str(endless), "reward": str(REWARD / "model")}
    (CACHE / "models.json").write_text(json.dumps(models))


def _folder(model: str) -> str:
    return json.loads((CACHE / "models.json").read_text())[model]


def _short_enough(dataset: str) -> list[str]:
    """What the user says in the rows of one turn that stay whole."""
    template = encoder_of(policy_source(ModelConfig(name=MODEL), LONGEST)).template
    records = read_prompts(resolve_paths([dataset], cache_folder())).records
    tasks, _ = task_examples(records, template, LONGEST, cut_long=False)
    fit = {task.prompt for task in tasks}
    texts = [record.messages[0].content for record in records if [m.role for m in record.messages] == ["user"]]
    return [text for text in texts if text in fit]


def _end_with(folder: Path, token: str) -> None:
    """Give the model in the folder another end token, for answers alone: the prompts stay as they are."""
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    plain = f"message['content'] + '{END}'"
    assert text.count(plain) == 1, "another template"
    ending = f"message['content'] + ('{token}' if message['role'] == 'assistant' else '{END}')"
    template.write_text(text.replace(plain, ending), encoding="utf-8")
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    end_id = next(added["id"] for added in vocabulary if added["content"] == token)
    for name, changes in (
        ("tokenizer_config.json", {"eos_token": token}),
        ("config.json", {"eos_token_id": end_id}),
        ("generation_config.json", {"eos_token_id": end_id}),
    ):
        facts = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(facts | changes, indent=1), encoding="utf-8")


def _train_reward(model: str) -> None:
    train_reward(
        RewardConfig(
            output=str(CACHE / "reward"), model=ModelConfig(name=model),
            data=DataConfig(train=("dpo_en_demo",), max_rows=16, held_out_rows=2, max_reject_rate=1.0),
            batch=BatchConfig(rows=8), num_epochs=1, runtime=COMMON["runtime"],
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
