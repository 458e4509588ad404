"""A recipe: the stages of one journey, in the order they run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from fairlead.config.common import RowKind, RuntimeConfig
from fairlead.config.online import GrpoConfig, PpoConfig
from fairlead.config.replies import RepliesConfig
from fairlead.config.section import Section
from fairlead.config.stages import DpoConfig, EpochsConfig, EvalConfig, KtoConfig, RewardConfig, SftConfig, StageConfig

STAGES = ("split", "sft", "replies", "reward", "dpo", "kto", "ppo", "grpo")
"""The stages that make something, in the order they run, but none before one that it names; eval measures them last."""

ModelKind = Literal["policy", "reward"]
_MAKES: dict[str, ModelKind] = {
    "sft": "policy", "reward": "reward", "dpo": "policy", "kto": "policy", "ppo": "policy", "grpo": "policy",
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


@dataclass(frozen=True, slots=True)
class Step:
    """One stage at its turn; `round` is above 1 where the journey repeats it."""

    stage: str
    round: int = 1

    @property
    def name(self) -> str:
        """`dpo`, later `dpo-round-2`: the stage's folder without its number."""
        return self.stage if self.round == 1 else f"{self.stage}-round-{self.round}"


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
    rounds: PositiveInt = 1
    """Times that replies, and sft or dpo on them, run; in each, the model of the round before replies and goes on."""
    split: SplitConfig | None = None
    """Share rows out."""
    sft: SftConfig | None = None
    """Fine-tune on conversations."""
    replies: RepliesConfig | None = None
    """Make rows to learn from out of a model's own replies."""
    reward: RewardConfig | None = None
    """Train a reward model."""
    dpo: DpoConfig | None = None
    """Optimise preferences without a reward model."""
    kto: KtoConfig | None = None
    """Optimise on responses that are desirable or not."""
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

    @property
    def steps(self) -> tuple[Step, ...]:
        """The stages in the order they run; repeated ones follow the first of them that learns."""
        order = self._order()
        if self.rounds == 1:
            return tuple(map(Step, order))
        (learner,) = self._learners()
        place = order.index(learner) + 1
        again = [Step(stage, number) for number in range(2, self.rounds + 1) for stage in ("replies", learner)]
        return (*map(Step, order[:place]), *again, *map(Step, order[place:]))

    def _order(self) -> list[str]:
        """The stages that are written, none before one that it names; those in a ring of names come last."""
        waiting = [name for name in STAGES if getattr(self, name) is not None]
        named = {name: {stage_named(text) for text in _texts(getattr(self, name))} for name in waiting}
        order: list[str] = []
        while ready := [name for name in waiting if not named[name].intersection(waiting)]:
            order.append(ready[0])
            waiting.remove(ready[0])
        return [*order, *waiting]

    def _learners(self) -> list[str]:
        """The stages that are trained on replies and make the next policy."""
        sections = {"sft": self.sft, "dpo": self.dpo, "kto": self.kto}
        return [name for name, stage in sections.items() if stage and "@replies/train.jsonl" in stage.data.train]

    @model_validator(mode="after")
    def _stages(self) -> "JourneyConfig":
        """There is a stage, and all write into the folder of the run."""
        if all(getattr(self, name) is None for name in STAGES):
            raise ValueError(f"the recipe has no stage; write one or more of {', '.join(STAGES)}")
        for name in (*STAGES, "eval"):
            section = getattr(self, name)
            has_output = isinstance(section, StageConfig | EvalConfig | RepliesConfig)
            if has_output and section.output != type(section)().output:
                raise ValueError(f"{name}.output: a stage writes into the folder of the recipe; write output instead")
        return self

    @model_validator(mode="after")
    def _references(self) -> "JourneyConfig":
        """`@stage` names what an earlier stage of this recipe makes, and that is what the option wants."""
        order = self._order()
        for name in (*order, "eval"):
            earlier = order if name == "eval" else order[: order.index(name)]
            for text in _texts(getattr(self, name)):
                if text.startswith("@") and stage_named(text) not in earlier:
                    made = ", ".join(f"@{stage}" for stage in earlier) or "none"
                    raise ValueError(
                        f"{name} names {text}, which no earlier stage of this recipe makes; write one of: {made}"
                    )
            self._models_of_the_kind(name, earlier)
            self._rows_of_the_kind(name)
        return self

    @model_validator(mode="after")
    def _repeats(self) -> "JourneyConfig":
        if self.rounds > 1 and len(self._learners()) != 1:
            raise ValueError(
                f"rounds={self.rounds} repeats replies and the one stage that learns from them; "
                "write @replies/train.jsonl in data.train of one of sft, dpo and kto"
            )
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
            fitting = {"prompts": ("conversations", "preferences", "prompts"), "judgements": ("preferences",)}
            made = [file for file, holds in self._files().items() if holds in fitting.get(kind, (kind,))]
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
        rejection = self.replies and self.replies.method == "rejection_sampling"
        for part in ("train", "held_out"):
            if self.replies and getattr(self.replies.data, part):
                files[f"@replies/{part}.jsonl"] = "conversations" if rejection else "preferences"
        return files


def models_of(stage: Section | None) -> Iterator[tuple[str, str, tuple[ModelKind, ...]]]:
    """Each option of a stage that names a model: its path, what is written, and what may stand there."""
    match stage:
        case SplitConfig():
            yield "tokenizer", stage.tokenizer, ("policy", "reward")
        case RepliesConfig():
            yield "model", stage.model, ("policy",)
            if stage.scored_by_model:
                yield "reward_model", stage.reward_model, ("reward",)
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
            kind = "conversations" if stage.method == "own_rejected" else "prompts"
            yield "data.train", stage.data.train, kind
            yield "data.held_out", stage.data.held_out, kind
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
            kind = _rows_of_epochs(stage)
            yield "data.train", stage.data.train, kind
            yield "data.held_out", stage.data.held_out, kind


def _rows_of_epochs(stage: EpochsConfig) -> RowKind:
    match stage:
        case SftConfig():
            return "conversations"
        case KtoConfig():
            return "judgements"
        case _:
            return "preferences"


def stage_named(text: str) -> str:
    """`sft` for `@sft` and `@sft/model`; empty for what is no reference."""
    return text[1:].partition("/")[0] if text.startswith("@") else ""


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
