"""What both sides of the works of online training are asked. Standard library only, as the peers run it too."""

import argparse
import json
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parents[1] / ".cache" / "online"  # written by bench/prompts.py


def parser() -> argparse.ArgumentParser:
    """The options that both sides take."""
    made = argparse.ArgumentParser()
    made.add_argument("stage", choices=("grpo", "ppo"))
    made.add_argument("--model", choices=("natural", "endless"), default="endless", help="with or without an end token")
    made.add_argument("--prompts", choices=("short", "mixed"), default="short")
    made.add_argument("--num-prompts", type=int, required=True)
    made.add_argument("--group", type=int, default=1, help="responses to each prompt")
    made.add_argument("--max-new-tokens", type=int, required=True)
    return made


def models() -> dict[str, str]:
    """Folders of the model with its own end token, the one without, and the reward model's adapter."""
    return json.loads((CACHE / "models.json").read_text())


def conversations(asked: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """The prompts, as messages."""
    rows = json.loads((CACHE / f"{asked.prompts}.json").read_text())[: asked.num_prompts]
    return [[{"role": "user", "content": row["instruction"]}] for row in rows]
