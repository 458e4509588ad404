"""A policy that answers: its weights, its chat template and an engine over both."""

from dataclasses import dataclass

from fairlead.config.common import ModelConfig
from fairlead.data.chat_template import ChatTemplate
from fairlead.errors import UserError
from fairlead.generate.engine import Engine
from fairlead.models.build import add_frozen, ready
from fairlead.models.loading import context_length, tokenizer_in
from fairlead.models.roles import Roles
from fairlead.models.sources import Source
from fairlead.runtime.start import Runtime


@dataclass(frozen=True)
class Policy:
    """What chat, growth and the server answer with. `context_tokens` is None where the model has no such length."""

    template: ChatTemplate
    engine: Engine
    context_tokens: int | None
    notes: list[str]  # what there is to tell of how the weights were loaded


def load_policy(source: Source, runtime: Runtime) -> Policy:
    """The policy of a source. Raises UserError for what gives scores and no answers."""
    roles = Roles()
    policy = add_policy(roles, "policy", source, runtime)
    ready(roles, ModelConfig(), runtime)
    return policy


def add_policy(roles: Roles, role: str, source: Source, runtime: Runtime) -> Policy:
    """A policy beside others of one base; it answers once the roles are `ready`."""
    if source.kind != "policy":
        raise UserError(
            f"this is a {source.kind}, which gives scores and no answers", where=source.name, want="a policy",
            fix="take an sft, dpo, kto, ppo or grpo stage; `fairlead runs` lists them",
        )  # fmt: skip
    folder = source.base.folder
    template = ChatTemplate(tokenizer_in(folder))
    add_frozen(roles, role, source, "logprobs", runtime)
    engine = Engine(roles, role, template.end_token_ids, runtime, decode=template.decode)
    return Policy(template, engine, context_length(folder), roles.notes)
