"""Peak memory of fairlead's PPO with its four roles against its SFT, both with LoRA.

    python bench/memory.py            # --output FOLDER; writes bench/results/DATE-ppo-memory.json

Each stage runs to its end in a process of its own: loading, training, checkpoints, the artifact. Counted is the highest
resident memory less what was resident after the imports. Equal: the model and its dtype (bfloat16), rank of the
adapters, tokens of a micro-batch, longest sequence, threads. PPO holds policy, reference, critic and reward model, and
the cache of its generation; SFT holds the policy alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from compare import BENCH, environment

WANTED = 1.3
MICRO_BATCH_TOKENS, LONGEST, NEW_TOKENS = 1024, 256, 48  # as in recipes/demo.yaml
STAGES = ("sft", "ppo")


def main() -> int:
    """Exit code 1 when PPO needs more than is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=BENCH / "results")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        train(arguments.stage)
        return 0
    subprocess.run([sys.executable, str(BENCH / "prompts.py"), "--reward"], check=True)
    measured = {stage: json.loads(_child(stage)) for stage in STAGES}
    ratio = measured["ppo"]["peak_bytes"] / measured["sft"]["peak_bytes"]
    settings = {"micro_batch_tokens": MICRO_BATCH_TOKENS, "longest": LONGEST, "new_tokens": NEW_TOKENS}
    result = {
        "work": "ppo-memory", "ratio": ratio, "wanted": WANTED, **measured, "settings": settings,
        "environment": environment(),
    }  # fmt: skip
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / f"{result['environment']['date']}-ppo-memory.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    sft, ppo = (measured[stage]["peak_bytes"] / 2**20 for stage in STAGES)
    print(f"ppo-memory: {ppo:.0f} MiB against {sft:.0f} MiB, ratio {ratio:.2f}, wanted at most {WANTED}")
    return 0 if ratio <= WANTED else 1


def _child(stage: str) -> str:
    argv = [sys.executable, str(BENCH / "memory.py"), "--stage", stage]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def train(stage: str) -> None:
    """Run the stage in this process and print what it took."""
    import prompts
    from side import peak_bytes, resident_bytes

    from fairlead.config.common import BatchConfig, DataConfig, MicroBatchConfig, ModelConfig, SamplingConfig
    from fairlead.config.online import PpoConfig, PromptsConfig
    from fairlead.config.stages import SftConfig
    from fairlead.train.ppo import train_ppo
    from fairlead.train.sft import train_sft

    imported = resident_bytes()
    common = {"model": ModelConfig(name=str(prompts.CACHE / "endless")), "runtime": prompts.COMMON["runtime"]}
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder) / "run")
        if stage == "sft":
            data = DataConfig(train=("alpaca_en_demo",), max_rows=64, held_out_rows=0, max_length=LONGEST)
            batch = BatchConfig(rows=16, micro_batch_tokens=MICRO_BATCH_TOKENS)
            train_sft(SftConfig(output=output, data=data, batch=batch, num_epochs=1, **common))
        else:
            prompt_rows = PromptsConfig(train=(str(prompts.CACHE / "short.json"),), max_length=LONGEST)
            train_ppo(
                PpoConfig(
                    output=output, data=prompt_rows, reward_model=str(prompts.REWARD), num_iterations=2,
                    prompts_per_iteration=32, mini_batch_size=32, num_epochs=1,
                    sampling=SamplingConfig(max_new_tokens=NEW_TOKENS),
                    batch=MicroBatchConfig(micro_batch_tokens=MICRO_BATCH_TOKENS), **common,
                )
            )  # fmt: skip
    print(json.dumps({"imported_bytes": imported, "peak_bytes": peak_bytes() - imported}))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
