"""What a request may hold: OpenAI's fields that we heed, each with its range, and no others.

A field that is not heeded is refused by name rather than dropped in silence. Our own fields (top_k, min_p,
repetition_penalty, no_repeat_ngram_size) have the names that other servers give them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Content = Annotated[str, Meta(max_length=1_000_000)]
Stop = Annotated[str, Meta(min_length=1, max_length=200)]
Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
MAX_MESSAGES = 2048
MAX_CHOICES = 16
MAX_SCORED = 64  # dialogues in one request


class TextPart(Struct, forbid_unknown_fields=True, frozen=True):
    """A piece of a message's text."""

    type: Literal["text"]
    text: Content


class ChatMessage(Struct, forbid_unknown_fields=True, frozen=True):
    """One turn; `developer` is another word for system."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content | list[TextPart]

    @property
    def text(self) -> str:
        """The whole content."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Struct, forbid_unknown_fields=True, frozen=True):
    """What a stream ends with."""

    include_usage: bool = False


class ResponseFormat(Struct, forbid_unknown_fields=True, frozen=True):
    """Free text is the only format."""

    type: Literal["text"]


class _Sampled(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How a response is drawn, whatever it answers."""

    model: Name
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    no_repeat_ngram_size: Annotated[int, Meta(ge=0, le=100)] | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=4)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end a response."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(_Sampled, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None


class CompletionRequest(_Sampled, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """POST /v1/completions."""

    prompt: Content | Annotated[list[Content], Meta(min_length=1, max_length=MAX_CHOICES)]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None

    @property
    def prompts(self) -> list[str]:
        """All prompts, one or more."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class ScoreRequest(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """POST /v1/score: one dialogue, or a list of them."""

    model: Name
    messages: Annotated[
        list[ChatMessage | Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]],
        Meta(min_length=1, max_length=MAX_MESSAGES),
    ]
