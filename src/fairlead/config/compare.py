"""Options of `fairlead feedback compare`: answers that models give to prompts, put into a store to be ranked."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from fairlead.config.common import FilesConfig, ForwardConfig, RuntimeConfig, SamplingConfig

LENGTH, LIKELIHOOD = "length", "likelihood"
Pick = Literal["uniform", "uncertain", "disagreement", "coverage"]


class CompareConfig(FilesConfig):
    """Comparisons for people to rank."""

    store: str = ""
    """A file of SQLite, made where it is not there, or postgresql://USER@HOST/DATABASE."""
    data: tuple[str, ...] = ()
    """Files with prompts in any layout, a starter dataset's name, or feedback:STORE for what people asked in chats."""
    models: tuple[str, ...] = ("smollm2-135m-instruct",)
    """Models that answer in turns, as NAME=MODEL where the results are to show another name."""
    answers: int = Field(default=2, ge=2, le=16)
    """Answers to each prompt."""
    comparisons: PositiveInt = 100
    """Comparisons of these prompts and models that the store is to hold; those that are there already count."""
    wanted: int = Field(default=1, ge=1, le=20)
    """People who are to rank each comparison."""
    pick: Pick = "uniform"
    """Any prompts; the reward models least sure of their order; scorers most split over it; all kinds of prompts."""
    reward: tuple[str, ...] = ()
    """Scorers: folders of reward stages, and, to disagree with, length (longer is better) and likelihood."""
    prompts_per_comparison: PositiveInt = 4
    """Prompts that are answered for each one that uncertain and disagreement choose."""
    max_length: PositiveInt = 512
    """Longest prompt, in tokens; longer ones are left out."""
    sampling: SamplingConfig = SamplingConfig()
    """How answers are drawn."""
    batch: ForwardConfig = ForwardConfig()
    """Size of a forward pass of the reward models."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""

    @property
    def reward_models(self) -> list[str]:
        """The scorers that are reward stages."""
        return [name for name in self.reward if name not in (LENGTH, LIKELIHOOD)]

    @property
    def draws_more(self) -> bool:
        """Whether answers are needed to choose."""
        return self.pick in ("uncertain", "disagreement")

    @model_validator(mode="after")
    def _can_choose(self) -> "CompareConfig":
        if self.pick == "uncertain" and not self.reward_models:
            raise ValueError("pick=uncertain asks reward models; name one: reward=RUN/02-reward")
        if self.pick == "disagreement" and len(set(self.reward)) < 2:
            raise ValueError(
                "pick=disagreement needs two scorers or more; name them, such as reward=RUN/02-reward,length"
            )
        spare = set(self.reward) & {LENGTH, LIKELIHOOD}
        if spare and self.pick != "disagreement":
            raise ValueError(f"{', '.join(sorted(spare))} among reward votes in pick=disagreement alone; leave it out")
        if not self.draws_more and self.prompts_per_comparison != 4:
            raise ValueError(f"prompts_per_comparison has no meaning for pick={self.pick}; leave it out")
        return self

    @model_validator(mode="after")
    def _can_differ(self) -> "CompareConfig":
        if not self.models or len(self.models) > self.answers:
            raise ValueError(
                f"models={','.join(self.models)} are to give {self.answers} answers; name 1 to {self.answers}"
            )
        if self.answers > len(self.models) and self.sampling.temperature == 0:
            raise ValueError("sampling.temperature=0 makes a model give the same answer again; set it above 0")
        return self
