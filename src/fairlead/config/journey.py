"""A recipe: the stages of one journey, in the order they run."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from fairlead.config.common import RuntimeConfig, SamplingConfig
from fairlead.config.section import Section
from fairlead.config.stages import (
    DpoConfig,
    EpochsConfig,
    EvalConfig,
    GrpoConfig,
    PpoConfig,
    RewardConfig,
    SftConfig,
    StageConfig,
)

STAGES = ("split", "sft", "replies", "reward", "dpo", "ppo", "grpo")
"""The stages that make something, in the order they run; eval comes last and measures them."""

ModelKind = Literal["policy", "reward"]
RowKind = Literal["conversations", "preferences", "prompts"]
_MAKES: dict[str, ModelKind] = {
    "sft": "policy", "reward": "reward", "dpo": "policy", "ppo": "policy", "grpo": "policy",
}  # fmt: skip


class SplitConfig(Section):
    """Rows shared out by prompt: duplicates go, and no prompt stands in two parts."""

    sources: tuple[str, ...] = ()
    """Files or starter datasets of conversations; each is split by the counts below."""
    sft: int = Field(default=0, ge=0)
    """Rows of each source to fine-tune on."""
    preference: int = Field(default=0, ge=0)
    """Rows of each source whose prompts are answered for preference pairs."""
    ppo: int = Field(default=0, ge=0)
    """Rows of each source whose prompts are sampled in ppo or grpo."""
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
    grpo: GrpoConfig | None = None
    """Optimise rewards of groups of responses: a reward model's, verifiers', or your own function's."""
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
    def _stages(self) -> "JourneyConfig":
        """There is a stage, and all write into the folder of the run."""
        if all(getattr(self, name) is None for name in STAGES):
            raise ValueError(f"the recipe has no stage; write one or more of {', '.join(STAGES)}")
        for name in (*STAGES, "eval"):
            section = getattr(self, name)
            if isinstance(section, StageConfig | EvalConfig) and section.output != type(section)().output:
                raise ValueError(f"{name}.output: a stage writes into the folder of the recipe; write output instead")
        return self

    @model_validator(mode="after")
    def _references(self) -> "JourneyConfig":
        """`@stage` names what an earlier stage of this recipe makes, and that is what the option wants."""
        written = [name for name in STAGES if getattr(self, name) is not None]
        for name in (*written, "eval"):
            earlier = written if name == "eval" else written[: written.index(name)]
            for text in _texts(getattr(self, name)):
                if text.startswith("@") and text[1:].partition("/")[0] not in earlier:
                    made = ", ".join(f"@{stage}" for stage in earlier) or "none"
                    raise ValueError(
                        f"{name} names {text}, which no earlier stage of this recipe makes; write one of: {made}"
                    )
            self._models_of_the_kind(name, earlier)
            self._rows_of_the_kind(name)
        return self

    def _models_of_the_kind(self, name: str, earlier: list[str]) -> None:
        for option, text, kinds in models_of(getattr(self, name)):
            made = [f"@{stage}" for stage in earlier if _MAKES.get(stage) in kinds]
            if text.startswith("@") and text not in made:
                raise ValueError(
                    f"{name}.{option} names {text}, which is no {' or '.join(kinds)} model of this recipe; "
                    f"write one of: {', '.join(made) or 'none'}"
                )

    def _rows_of_the_kind(self, name: str) -> None:
        for option, texts, kind in rows_of(getattr(self, name)):
            made = [file for file, holds in self._files().items() if kind in (holds, "prompts")]
            for text in texts:
                if text.startswith("@") and text not in made:
                    raise ValueError(
                        f"{name}.{option} names {text}, which is no file of {kind} that this recipe makes; "
                        f"write one of: {', '.join(made) or 'none'}"
                    )

    def _files(self) -> dict[str, RowKind]:
        """Files of rows that the stages make, and what they hold; a part of no rows is none."""
        files: dict[str, RowKind] = {}
        for part in ("sft", "preference", "ppo", "held_out"):
            if getattr(self.split, part, 0):
                files[f"@split/{part}.jsonl"] = "conversations"
        for part in ("train", "held_out"):
            if getattr(self.replies, part, ()):
                files[f"@replies/{part}.jsonl"] = "preferences"
        return files


def models_of(stage: Section | None) -> Iterator[tuple[str, str, tuple[ModelKind, ...]]]:
    """Each option of a stage that names a model: its path, what is written, and what may stand there."""
    match stage:
        case SplitConfig():
            yield "tokenizer", stage.tokenizer, ("policy", "reward")
        case RepliesConfig():
            yield "model", stage.model, ("policy",)
        case EvalConfig():
            for option in ("model", "parent"):
                if name := getattr(stage, option):
                    yield option, name, ("policy", "reward")
            if stage.reward_model:
                yield "reward_model", stage.reward_model, ("reward",)
        case StageConfig():
            yield "model.name", stage.model.name, ("policy",)
            if isinstance(stage, PpoConfig) or (isinstance(stage, GrpoConfig) and stage.scored_by_model):
                yield "reward_model", stage.reward_model, ("reward",)


def rows_of(stage: Section | None) -> Iterator[tuple[str, tuple[str, ...], RowKind]]:
    """Each option of a stage that names rows: its path, the files that are read together, and what they must hold."""
    match stage:
        case SplitConfig():
            yield from (("sources", (file,), "conversations") for file in stage.sources)
        case RepliesConfig():
            yield "train", stage.train, "conversations"
            yield "held_out", stage.held_out, "conversations"
        case EvalConfig():
            yield "conversations", stage.conversations, "conversations"
            yield from (("preferences", (file,), "preferences") for file in stage.preferences)
            yield "prompts", stage.prompts, "prompts"
        case GrpoConfig():
            yield "data.train", stage.data.train, "prompts"
        case PpoConfig():
            yield "data.train", stage.data.train, "prompts"
            yield "ptx_data", stage.ptx_data, "conversations"
        case EpochsConfig():
            kind = "conversations" if isinstance(stage, SftConfig) else "preferences"
            yield "data.train", stage.data.train, kind
            yield "data.held_out", stage.data.held_out, kind


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
