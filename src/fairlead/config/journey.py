"""A recipe: the stages of one journey, in the order they run."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field, PositiveInt, model_validator

from fairlead.config.common import RuntimeConfig, SamplingConfig
from fairlead.config.section import Section
from fairlead.config.stages import DpoConfig, EvalConfig, PpoConfig, RewardConfig, SftConfig

STAGES = ("split", "sft", "replies", "reward", "dpo", "ppo")
"""The stages that make something, in the order they run; eval comes last and measures them."""


class SplitConfig(Section):
    """Rows shared out by prompt: duplicates go, and no prompt stands in two parts."""

    sources: tuple[str, ...] = ()
    """Files or starter datasets of conversations; each is split by the counts below."""
    sft: int = Field(default=0, ge=0)
    """Rows of each source to fine-tune on."""
    preference: int = Field(default=0, ge=0)
    """Rows of each source whose prompts are answered for preference pairs."""
    ppo: int = Field(default=0, ge=0)
    """Rows of each source whose prompts are sampled in ppo."""
    held_out: int = Field(default=0, ge=0)
    """Rows of each source that no stage trains on."""
    max_prompt_tokens: PositiveInt = 128
    """Rows with a longer prompt are left out."""
    tokenizer: str = "smollm2-135m-instruct"
    """Model whose tokenizer counts."""


class RepliesConfig(Section):
    """A model's own replies as rejected responses, the reference replies as chosen (after SPIN, Chen et al. 2024)."""

    model: str = "@sft"
    """Model that replies."""
    train: tuple[str, ...] = ()
    """Conversations whose prompts are answered for training pairs."""
    held_out: tuple[str, ...] = ()
    """Conversations whose prompts are answered for held-out pairs."""
    max_tokens: PositiveInt = 60
    """Both responses of a pair are cut to the same number of tokens, at most this, so that length is no cue."""
    min_tokens: PositiveInt = 8
    """Pairs that would be shorter are left out."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=60)
    """How replies are drawn."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""


class JourneyConfig(Section):
    """From raw rows to an aligned model. Stages that are not written do not run.

    `@stage` in any model, file or folder option means what that stage made in this run: `@sft`, `@split/ppo.jsonl`.
    """

    title: str = "A journey from base to aligned model"
    """Heading of the report."""
    output: str = "runs/journey"
    """Folder of the run."""
    notes: tuple[str, ...] = ()
    """Sentences the report says before any number."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Machine options of every stage; what a stage sets itself wins."""
    split: SplitConfig | None = None
    """Share rows out."""
    sft: SftConfig | None = None
    """Fine-tune on conversations."""
    replies: RepliesConfig | None = None
    """Make preference pairs from own replies."""
    reward: RewardConfig | None = None
    """Train a reward model."""
    dpo: DpoConfig | None = None
    """Optimise preferences without a reward model."""
    ppo: PpoConfig | None = None
    """Optimise the reward model's score."""
    eval: EvalConfig | None = None
    """Measure every policy of the run, each beside its parent; `model` and `parent` are filled in."""

    @model_validator(mode="before")
    @classmethod
    def _shared_runtime(cls, values: Any) -> Any:
        """Lay the journey's machine options under those of each stage."""
        if not isinstance(values, dict) or not isinstance(values.get("runtime"), dict):
            return values
        shared = values["runtime"]
        stages = {name: values[name] for name in (*STAGES[1:], "eval") if isinstance(values.get(name), dict)}
        own = {name: stage.get("runtime", {}) for name, stage in stages.items()}
        return values | {
            name: stage | {"runtime": shared | own[name]}
            for name, stage in stages.items()
            if isinstance(own[name], dict)
        }

    @model_validator(mode="after")
    def _references(self) -> "JourneyConfig":
        """`@stage` names a stage of this recipe that runs before the one that names it."""
        written = [name for name in STAGES if getattr(self, name) is not None]
        for name in (*written, "eval"):
            earlier = written if name == "eval" else written[: written.index(name)]
            for text in _texts(getattr(self, name)):
                if text.startswith("@") and text[1:].partition("/")[0] not in earlier:
                    made = ", ".join(f"@{stage}" for stage in earlier) or "none"
                    raise ValueError(
                        f"{name} names {text}, which no earlier stage of this recipe makes; write one of: {made}"
                    )
        return self


def _texts(value: Any) -> Iterator[str]:
    """Every string in a section, at any depth."""
    match value:
        case str():
            yield value
        case Section():
            for name in type(value).model_fields:
                yield from _texts(getattr(value, name))
        case tuple():
            for item in value:
                yield from _texts(item)
        case _:
            pass
