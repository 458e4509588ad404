"""From named sources to the roles of a stage."""

from dataclasses import replace

from safetensors import safe_open
from torch import Tensor

from fairlead.config.common import ModelConfig
from fairlead.errors import UserError
from fairlead.models import adapters
from fairlead.models.loading import load_causal_lm, tokenizer_in
from fairlead.models.roles import Role, Roles
from fairlead.models.sources import Source
from fairlead.runtime.ranks import shard
from fairlead.runtime.start import Runtime


def add_frozen(roles: Roles, name: str, source: Source, output: str, runtime: Runtime) -> None:
    """A role that only judges: the reference, the reward model, or any model being measured."""
    backbone = _shared_backbone(roles, source, runtime)
    adapter = None
    if source.adapter is not None:
        adapter = name
        config = adapters.stored_adapter(source.adapter, dropout=0.0)
        roles.backbones[backbone] = adapters.add_adapter(roles.backbone(backbone), name, config)
        adapters.read_adapter(roles.adapted(backbone), name, source.adapter)
        if runtime.fast:
            adapters.add_in_place(roles.adapted(backbone), name)
    head = _stored_head(source) if output != "logprobs" else None
    roles.add_role(name, Role(backbone, adapter, trainable=False, output=output), head=head)


def add_trainable(
    roles: Roles, name: str, source: Source, output: str, model: ModelConfig, runtime: Runtime, *, dropout: float
) -> None:
    """A role in training: an adapter on the shared base (a copy of the source's, if it has one), or weights of its own.

    `dropout` is the adapter's; a policy in reinforcement learning has none, so that it equals its sampler.
    """
    head = _stored_head(source) if output != "logprobs" and source.head is not None else None
    if model.tuning == "full":
        if source.adapter is not None:
            raise _cannot_start_from_adapter(source)
        _require_same_tokens(roles, source)
        # Rounded once to what computes, whatever the file holds, so that every layout of ranks starts from one model.
        loaded = load_causal_lm(source.base.folder, dtype=runtime.dtype, device=runtime.device, fast=runtime.fast)
        if runtime.sharded:  # the sharded parameter is the fp32 master itself
            loaded.model.float()
        roles.add_backbone(name, loaded)
        roles.add_role(name, Role(name, None, trainable=True, output=output), head=head)
        return
    backbone = _shared_backbone(roles, source, runtime)
    causal_lm = roles.backbone(backbone)
    if source.adapter is not None:
        config = adapters.stored_adapter(source.adapter, dropout=dropout)
        if (config.r, config.lora_alpha) != (model.lora.rank, model.lora.alpha):
            roles.note(
                f"{name} goes on with the adapter of {source.name} (rank {config.r}, alpha {config.lora_alpha}); "
                f"model.lora.rank={model.lora.rank} and model.lora.alpha={model.lora.alpha} are for new ones"
            )
    else:
        plain = roles.plain(backbone)
        config = adapters.fresh_adapter(plain, model.lora.model_copy(update={"dropout": dropout}))
    roles.backbones[backbone] = adapters.add_adapter(causal_lm, name, config)
    if source.adapter is not None:
        adapters.read_adapter(roles.adapted(backbone), name, source.adapter)
    if runtime.fast:
        adapters.add_in_place(roles.adapted(backbone), name)
    if runtime.sharded:  # the sharded parameter is the fp32 master itself
        for parameter in adapters.adapter_parameters(roles.adapted(backbone), name).values():
            parameter.data = parameter.data.float()
    roles.add_role(name, Role(backbone, name, trainable=True, output=output), head=head)


def add_moving(
    roles: Roles, name: str, source: Source, output: str, model: ModelConfig, runtime: Runtime
) -> None:  # fmt: skip
    """A frozen role whose weights are its own, so that something may write into them: a reference that moves."""
    add_trainable(roles, name, source, output, model, runtime, dropout=0.0)
    roles.roles[name] = replace(roles.roles[name], trainable=False)


def ready(roles: Roles, model: ModelConfig, runtime: Runtime) -> Roles:
    """The last step: gradients on or off, checkpointing, sharding."""
    roles.dtype = runtime.dtype
    roles.set_requires_grad()
    roles.eval()  # `Roles.forward` switches to training for gradients, and compares with this
    if model.activation_checkpointing is True:  # `auto` is decided when all models are there: train/memory.py
        roles.checkpoint_activations()
    if runtime.sharded:
        shard(roles, roles.units(), roles.heads.values(), runtime.dtype)
    return roles


def _shared_backbone(roles: Roles, source: Source, runtime: Runtime) -> str:
    """The frozen base of this digest, loaded at most once."""
    name = f"base_{source.base.digest[:12]}"
    if name not in roles.backbones:
        _require_same_tokens(roles, source)
        loaded = load_causal_lm(source.base.folder, dtype=runtime.dtype, device=runtime.device, fast=runtime.fast)
        roles.add_backbone(name, loaded)
    return name


def _require_same_tokens(roles: Roles, source: Source) -> None:
    """One token id must mean one thing to all roles: they read each other's sequences."""
    folder = source.base.folder
    if not (folder / "tokenizer.json").is_file():
        return
    first = roles.tokenizer = roles.tokenizer or folder
    same = (first / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    if not same and tokenizer_in(first).get_vocab() != tokenizer_in(folder).get_vocab():
        raise UserError(
            "these models have different tokenizers, so one cannot read what the other writes", where=source.name,
            got=f"the vocabulary of {folder}", want=f"that of {first}",
            fix="train policy and reward model from the same base",
        )  # fmt: skip


def _cannot_start_from_adapter(source: Source) -> UserError:
    fix = f"fairlead export {source.name} FOLDER, then --model FOLDER"
    if source.kind != "policy":
        fix = f"train the {source.kind} model with model.tuning=full, or this stage with model.tuning=lora"
    return UserError(
        "full fine-tuning cannot start from an adapter", where="model.tuning", got=f"full, from {source.name}",
        want="whole weights", fix=fix,
    )  # fmt: skip


def _stored_head(source: Source) -> Tensor:
    """score.weight of a reward model or critic, fp32 [1, D]."""
    assert source.head is not None, f"{source.name} has no score layer"
    with safe_open(source.head, "pt") as file:
        name = next(key for key in file.keys() if key.endswith("score.weight"))  # noqa: SIM118 - not a dict
        return file.get_tensor(name).float()
