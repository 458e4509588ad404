"""What the works of online training start from: prompts, a model that never ends, and a reward model.

    python bench/prompts.py [--reward]     # writes bench/.cache/online/

- `prompts.json`: the first rows of alpaca_en_demo that have no input. Every iteration answers all of them, so the order
  in which a library shuffles them does not matter.
- `endless/`: the starter model with another end token, one that it never says. All responses then have the longest
  length, on both sides, and nothing of either library is changed for it.
- `reward/`: a reward model on that base, a LoRA adapter of one short fairlead stage: its scores matter to nobody here.
"""

import json
import shutil
import sys
from pathlib import Path

from fairlead.artifacts.stages import stage_folder
from fairlead.config.common import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RuntimeConfig,
    SamplingConfig,
)
from fairlead.config.online import GrpoConfig, KlConfig, PpoConfig, PpoKlConfig, PromptsConfig
from fairlead.config.stages import RewardConfig
from fairlead.data.starter import resolve_paths
from fairlead.models.sources import resolve
from fairlead.runtime.environment import cache_folder
from fairlead.train.reward import train_reward

CACHE = Path(__file__).parent / ".cache" / "online"
REWARD = stage_folder(CACHE / "reward", "reward")
REWARD_FUNCTION = Path(__file__).parent / "sides" / "distinct.py"
NUM_PROMPTS = {"grpo": 8, "ppo": 32}
END, UNSAID = "<|im_end|>", "<|endoftext|>"
NEVER = 10**6  # iterations: the peer saves nothing either
COMMON = {
    "checkpoint": CheckpointConfig(every_steps=NEVER), "num_iterations": NEVER,
    "runtime": RuntimeConfig(device="cpu", dtype="bfloat16"),
}  # fmt: skip


def grpo(output: str, *, model: str, max_new_tokens: int) -> GrpoConfig:
    """8 responses to each of 8 prompts, 2 optimizer steps; the KL in the loss, as TRL has it; fairlead's defaults."""
    return GrpoConfig(
        output=output, model=ModelConfig(name=model, tuning="full"), data=prompts("grpo"),
        rewards=(f"{REWARD_FUNCTION}:distinct_characters",), prompts_per_iteration=NUM_PROMPTS["grpo"],
        num_responses_per_prompt=8, mini_batch_size=32, sampling=SamplingConfig(max_new_tokens=max_new_tokens),
        optim=OptimConfig(lr=1e-6, schedule="constant"), kl=KlConfig(coef=0.04, where="loss", estimator="k3"), **COMMON,
    )  # fmt: skip


def ppo(output: str, *, model: str, max_new_tokens: int) -> PpoConfig:
    """32 prompts, 2 epochs of one optimizer step each; LoRA; fairlead's defaults."""
    return PpoConfig(
        output=output, model=ModelConfig(name=model), data=prompts("ppo"), reward_model=str(REWARD),
        prompts_per_iteration=NUM_PROMPTS["ppo"], mini_batch_size=NUM_PROMPTS["ppo"], num_epochs=2,
        sampling=SamplingConfig(max_new_tokens=max_new_tokens), optim=OptimConfig(lr=1e-6, schedule="constant"),
        kl=PpoKlConfig(coef=0.05), **COMMON,
    )  # fmt: skip


def prompts(stage: str) -> PromptsConfig:
    """As many as an iteration of the stage answers."""
    return PromptsConfig(train=(str(CACHE / "prompts.json"),), max_rows=NUM_PROMPTS[stage])


def models() -> dict[str, str]:
    """Folders of the model with its own end token, the one without, and the reward model's adapter."""
    return json.loads((CACHE / "models.json").read_text())


def main() -> None:
    """Write all three, and where the models are."""
    CACHE.mkdir(parents=True, exist_ok=True)
    (path,) = resolve_paths(["alpaca_en_demo"], cache_folder())
    records = [record for record in json.loads(path.read_text(encoding="utf-8")) if not record["input"]]
    (CACHE / "prompts.json").write_text(json.dumps(records[: max(NUM_PROMPTS.values())]))
    natural, endless = resolve(ModelConfig().name).base.folder, CACHE / "endless"
    if not endless.is_dir():
        shutil.copytree(natural, endless, ignore=shutil.ignore_patterns("*.sha256"))
        _end_with(endless, UNSAID)
    if "--reward" in sys.argv:
        _train_reward(str(endless))
    models = {"natural": str(natural), "endless": str(endless), "reward": str(REWARD / "model")}
    (CACHE / "models.json").write_text(json.dumps(models))


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
