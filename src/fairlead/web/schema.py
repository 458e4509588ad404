"""What the pages' requests may hold; no other fields, and each with its range."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from fairlead.serve.schema import ChatMessage, Name

Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Key = Annotated[str, Meta(min_length=8, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
"""Of one action, however often its request is sent."""
Password = Annotated[str, Meta(max_length=1024)]
Title = Annotated[str, Meta(min_length=1, max_length=200)]
Comment = Annotated[str, Meta(max_length=10_000)]
MAX_COMPARED = 8  # answers that are drawn for one prompt
MOST_TOKENS = 512  # of an answer, unless asked otherwise


class Nothing(Struct, forbid_unknown_fields=True, frozen=True):
    """An empty body."""


class Login(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/login; a password that was made for somebody has to be changed at once."""

    name: Annotated[str, Meta(max_length=200)]
    password: Password
    new_password: Password | None = None


class Open(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/open: the one-time link of the terminal."""

    token: Annotated[str, Meta(max_length=200)]


class NewPassword(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/password."""

    password: Password
    new_password: Password


class NewUser(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/users."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Literal["admin", "annotator", "viewer"]


class NewKey(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/keys."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    scopes: Annotated[list[Literal["generate", "label", "read", "admin"]], Meta(min_length=1, max_length=4)]


class Titled(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/chats and PATCH /api/chats/NUMBER."""

    title: Title


class NewMessage(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/chats/NUMBER/messages: what a person says."""

    role: Literal["system", "user"]
    content: Annotated[str, Meta(min_length=1, max_length=500_000)]
    parent: Number | None = None


class Sampling(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """How an answer is drawn; as in /v1/chat/completions."""

    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class NewAnswer(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/chats/NUMBER/answers: have a model answer a message."""

    parent: Number
    model: Name
    sampling: Sampling = Sampling()


class NewOpinion(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/messages/NUMBER/opinions; 0 takes it back."""

    thumb: Literal[-1, 0, 1]
    key: Key
    reasons: Annotated[list[Annotated[str, Meta(min_length=1, max_length=40)]], Meta(max_length=20)] = []
    comment: Comment = ""


class NewEdit(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/messages/NUMBER/edits: what the answer should have been."""

    content: Annotated[str, Meta(min_length=1, max_length=500_000)]
    key: Key


class NewComparison(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/comparisons: answers to be drawn and ranked."""

    prompt: Annotated[list[ChatMessage], Meta(min_length=1, max_length=200)]
    models: Annotated[list[Name], Meta(min_length=2, max_length=MAX_COMPARED)]
    key: Key
    sampling: Sampling = Sampling()
    wanted: Annotated[int, Meta(ge=1, le=20)] = 1


AnswerNumber = Annotated[str, Meta(pattern="^[1-9][0-9]{0,17}$")]


class NewRanking(Struct, forbid_unknown_fields=True, frozen=True):
    """POST /api/comparisons/NUMBER/rankings: ranks and grades by answer number; equal ranks are ties, 1 is best."""

    outcome: Literal["ranked", "skipped", "flagged"]
    key: Key
    ranks: Annotated[dict[AnswerNumber, Annotated[int, Meta(ge=1, le=100)]], Meta(max_length=16)] = {}
    grades: Annotated[dict[AnswerNumber, Annotated[int, Meta(ge=1, le=7)]], Meta(max_length=16)] = {}
    reason: Comment = ""
    seconds: Annotated[int, Meta(ge=0, le=86_400)] = 0
