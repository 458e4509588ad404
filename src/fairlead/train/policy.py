"""A policy and nothing else to write: what sft, dpo and kto share around their loops, and grpo at its end."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masked import segment_sum
from fairlead.batches import PackedBatch
from fairlead.evaluate.summary import Evaluation
from fairlead.models.build import add_trainable, ready
from fairlead.models.roles import Roles
from fairlead.models.save import rehearse_save, role_tensors, write_role
from fairlead.models.sources import Source
from fairlead.runtime.machine import flops_per_token
from fairlead.runtime.start import Runtime
from fairlead.train.memory import Config, fitted
from fairlead.train.stage import Stage


def policy_alone(
    stage: Stage, source: Source, config: Config, runtime: Runtime, *, longest: int
) -> tuple[Roles, Config]:
    """The policy in training, with nobody beside it; saving it was rehearsed. And the configuration as it fits.

    `longest` are the tokens of the longest row, which no micro-batch cuts.
    """
    roles = Roles()
    add_trainable(roles, "policy", source, "logprobs", config.model, runtime, dropout=config.model.lora.dropout)
    ready(roles, config.model, runtime)
    rehearse_save(stage.folder, roles, "policy", source.base, runtime)
    return roles, fitted(config, roles, runtime, longest=longest)


def response_logprobs(roles: Roles, role: str, batch: PackedBatch) -> Float[Tensor, "S"]:
    """Log-probability of the trained tokens of each sequence, nats; carries gradient."""
    return segment_sum(roles(batch, role).logprobs, batch.sequence_of_target, len(batch.lengths))


def policy_flops(roles: Roles, *, num_forwards: int) -> float:
    """Work of one token that passes forward so many times and backward once."""
    return flops_per_token(
        roles.causal_lm("policy"), num_forwards=num_forwards, num_backwards=1,
        trained_fraction=roles.trainable_fraction("policy"),
    )  # fmt: skip


def finish_policy(stage: Stage, roles: Roles, source: Source, evaluation: Evaluation) -> Path:
    """Write the policy as the stage's artifact; returns the stage's folder."""
    tensors = role_tensors(roles, "policy")

    def write_model(folder: Path) -> None:
        write_role(folder, roles, "policy", tensors, source.base, pad_token_id=None)

    return stage.finish("policy", source, write_model, evaluation=evaluation, facts={})
