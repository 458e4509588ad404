"""Adding, renaming or re-defaulting an option is a visible act: options.txt changes with it."""

import subprocess
import sys
from pathlib import Path

from fairlead.config.chat import ChatConfig
from fairlead.config.compare import CompareConfig
from fairlead.config.document import options
from fairlead.config.grow import GrowConfig
from fairlead.config.journey import JourneyConfig
from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.refine import RefineConfig
from fairlead.config.replies import RepliesConfig
from fairlead.config.serve import ServeConfig
from fairlead.config.stages import DpoConfig, EvalConfig, KtoConfig, RewardConfig, SftConfig

ROOT = Path(__file__).parents[2]
VERBS = {
    "sft": SftConfig,
    "replies": RepliesConfig,
    "reward": RewardConfig,
    "dpo": DpoConfig,
    "kto": KtoConfig,
    "ppo": PpoConfig,
    "grpo": GrpoConfig,
    "eval": EvalConfig,
    "chat": ChatConfig,
    "serve": ServeConfig,
    "run": JourneyConfig,
    "data refine": RefineConfig,
    "data grow": GrowConfig,
    "feedback compare": CompareConfig,
}


def surface():
    """One line per option and verb."""
    return [
        f"{verb} {option.path} <{option.kind}> = {option.default}"
        for verb, model in VERBS.items()
        for option in options(model)
        if option.path.partition(".")[0] not in VERBS  # a journey's stage has the options of its verb
    ]


def test_the_options_are_the_agreed_ones():
    golden = Path(__file__).with_name("options.txt").read_text().splitlines()
    assert surface() == golden, "if this is meant, run `python tests/architecture/test_options.py`, tell CHANGELOG.md"


def test_every_option_is_explained():
    for model in VERBS.values():
        for option in options(model):
            assert option.help.endswith("."), option.path


def test_no_option_begins_with_a_name_that_is_one_already():
    # `--model` may stand for a section or for an option of one verb, never both.
    for model in VERBS.values():
        paths = {option.path for option in options(model)}
        assert not any(other.startswith(f"{path}.") for path in paths for other in paths)


def test_generated_pages_follow_the_code():
    result = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    Path(__file__).with_name("options.txt").write_text("\n".join(surface()) + "\n")
