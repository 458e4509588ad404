"""Options of `fairlead data grow`: new prompts and rows, invented by a model, translated, or collected from chats."""

from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fairlead.config.common import FilesConfig, RuntimeConfig, SamplingConfig
from fairlead.config.endpoint import EndpointConfig
from fairlead.config.filters import PiiConfig
from fairlead.config.section import Section

Method = Literal["self_instruct", "translate", "chats"]
_ONLY_FOR: dict[str, tuple[Method, ...]] = {
    "self_instruct": ("self_instruct",), "chats": ("chats",), "min_words": ("self_instruct", "chats"),
    "sampling": ("self_instruct", "translate"),
}  # fmt: skip
_EXCLUDED = (
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps", "draw", "plot",
    "go to", "write a program", "图片", "图像", "图表", "照片", "视频", "文件", "地图", "绘制", "画出", "编写一个程序",
    "写一个程序",
)  # fmt: skip


class AuthorConfig(EndpointConfig):
    """A model behind an OpenAI-style endpoint that writes, instead of the model at hand."""

    called: ClassVar[str] = "author"


class SelfInstructConfig(Section):
    """New instructions from seed tasks (Wang et al. 2023), English and Chinese."""

    num_instructions: PositiveInt = 100
    """New instructions to keep; then the stage is done."""
    max_requests: PositiveInt = 200
    """Most requests for instructions; then the stage is done with what it has."""
    requests_per_round: PositiveInt = 5
    """Requests that show instructions of earlier rounds alone, so that they can be answered at the same time."""
    num_examples: PositiveInt = 8
    """Instructions that a request shows, all of one language."""
    num_own: NonNegativeInt = 2
    """How many of these are new ones, once there are some; the others are seeds."""
    max_similarity: float = Field(default=0.7, ge=0.0, le=1.0)
    """An instruction whose ROUGE-L (F) with a seed or an earlier new one is not below this is refused."""
    max_words: PositiveInt = 150
    """Instructions with more words are refused; a Han character counts as one."""
    excluded: tuple[str, ...] = _EXCLUDED
    """Instructions that hold one of these are refused; Chinese is found anywhere, the others as whole words."""
    num_answered: NonNegativeInt = 0
    """Seeds with their answers that stand before each new instruction when it is answered, for models without chat."""

    @model_validator(mode="after")
    def _shows_seeds(self) -> Self:
        if self.num_own >= self.num_examples:
            raise ValueError(
                f"self_instruct.num_own={self.num_own} leaves no seed among self_instruct.num_examples="
                f"{self.num_examples}; set it lower"
            )
        return self


class ChatsConfig(Section):
    """Prompts from what people said in chats."""

    turns: Literal["first", "every"] = "first"
    """The first turn of each user alone, or every turn, each with the dialogue before it."""
    max_overlap: float = Field(default=0.8, ge=0.0, le=1.0)
    """A turn whose Jaccard similarity to an earlier kept one, by shingles of 5, is at least this goes; 0 keeps all."""
    pii: PiiConfig = PiiConfig()
    """Personal data and secrets."""


class GrowConfig(FilesConfig):
    """New prompts and rows: invented from seed tasks, translated, or collected from chats."""

    output: str = "runs/grown"
    """Folder of the run; the stage writes into a folder of its own inside."""
    method: Method = "self_instruct"
    """Invent instructions from seed tasks; translate prompts, Chinese to English and back; collect them from chats."""
    data: tuple[str, ...] = ()
    """Files or folders in any layout, or starter datasets: seed tasks, prompts to translate, or chats."""
    max_rows: NonNegativeInt = 0
    """Use only the first rows of the data; 0 uses all."""
    model: str = ""
    """Model that writes: a stage artifact, folder, hub id or starter name. Empty: the endpoint of `author`, or none."""
    author: AuthorConfig = AuthorConfig()
    """The endpoint that writes where no model is named."""
    answer: bool = False
    """Let the same model answer each new prompt: conversations to fine-tune on instead of prompts."""
    min_words: NonNegativeInt = 4
    """New prompts with fewer words are refused; a Han character counts as one."""
    self_instruct: SelfInstructConfig = SelfInstructConfig()
    """What is asked for and what is refused of self_instruct."""
    chats: ChatsConfig = ChatsConfig()
    """What is taken from chats."""
    sampling: SamplingConfig = SamplingConfig(max_new_tokens=512, temperature=0.7, top_p=0.9)
    """How instructions and translations are drawn."""
    answer_sampling: SamplingConfig = SamplingConfig(max_new_tokens=512, temperature=0.7, top_p=0.9)
    """How answers are drawn."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Devices, precision, seed."""

    @property
    def asks(self) -> bool:
        """Whether a model writes at all."""
        return self.method != "chats" or self.answer

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        for option, methods in _ONLY_FOR.items():
            if self.method not in methods and getattr(self, option) != type(self).model_fields[option].default:
                raise ValueError(f"grow.{option} has no meaning for grow.method={self.method}; leave it out")
        if not self.answer and self.answer_sampling != type(self).model_fields["answer_sampling"].default:
            raise ValueError("grow.answer_sampling has no meaning without grow.answer; leave it out, or set that")
        if not self.answer and self.self_instruct.num_answered:
            raise ValueError("self_instruct.num_answered has no meaning without grow.answer; leave it out, or set that")
        return self

    @model_validator(mode="after")
    def _one_author(self) -> Self:
        if bool(self.author.url) != bool(self.author.model):
            raise ValueError("author.url goes with author.model; set both, or none")
        if self.model and self.author.url:
            raise ValueError("both model and author.url are named, and one of them writes; leave one out")
        if not self.asks and (self.model or self.author != AuthorConfig()):
            raise ValueError("grow.method=chats asks no model without grow.answer; leave model and author out")
        if self.asks and not self.model and not self.author.url:
            raise ValueError("nobody is named who writes; set model, or author.url and author.model")
        return self
