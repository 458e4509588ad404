"""What a step may hold: micro-batches, and the choice to recompute layers, that fit into this machine's memory."""

import math
from typing import TypeVar

import torch
from torch import Tensor

from fairlead.batches import PackedBatch
from fairlead.config.stages import StageConfig
from fairlead.evaluate.wording import size
from fairlead.models.attention import LONGEST_PLAIN
from fairlead.models.roles import Roles
from fairlead.runtime.machine import memory_bytes, pass_tokens
from fairlead.runtime.ranks import local_part
from fairlead.runtime.start import Runtime

Config = TypeVar("Config", bound=StageConfig)

USABLE = {"cpu": 0.5, "cuda": 0.9}  # of the memory; other programs share a CPU's
PROGRAM_BYTES = 2**30  # interpreter and libraries, logits of a chunk and those that are kept
ON_TOP = 1.5  # what passes take at their peak over what they keep: the products' own, and gaps (bench/fitting.py)
PROBE = 32  # tokens of a short sequence that is passed to see what it leaves


def fitted(config: Config, roles: Roles, runtime: Runtime, *, longest: int) -> Config:
    """The configuration with the size of a micro-batch and the recomputing of layers chosen where it leaves them open.

    `longest` are the tokens of the longest row, which cannot be cut. Layers are recomputed only where that row, or the
    micro-batch that was asked for, would not fit otherwise. The choice is a function of the models, the options and
    the memory as built in, never of what is free just now: a run that goes on cuts its steps as before. All ranks
    choose alike.
    """
    batch, asked = config.batch, config.model.activation_checkpointing
    if batch.micro_batch_tokens and asked != "auto":
        return config
    room = _room(roles, runtime.device)
    trained = [role for role, spec in roles.roles.items() if spec.trainable]
    plain = max(kept_bytes_per_token(roles, role, longest) for role in trained)
    recomputed = max(_recomputed_bytes(roles, role, plain) for role in trained)
    least = max(longest, batch.micro_batch_tokens)
    choose = asked is True or (asked == "auto" and runtime.ranks.any(least * plain > room))
    if choose and asked == "auto":
        roles.checkpoint_activations()
        left = size(max(room, 0))
        roles.note(f"layers are recomputed in the backward pass, as {left} of memory are left for {least} tokens")
    each = recomputed if choose else plain
    if longest * each > room:
        roles.note(
            f"warning: a row of {longest} tokens takes {size(int(longest * each))} beside the weights, and "
            f"{size(max(room, 0))} are there; lower data.max_length, or train adapters (model.tuning=lora)"
        )
    if batch.micro_batch_tokens:
        return config
    usual = pass_tokens(0, runtime.device)
    tokens = runtime.ranks.least(min(usual, _power_of_two(room / each)))
    if tokens < usual:
        roles.note(f"micro-batches of {tokens} tokens: {size(max(room, 0))} of memory are left for them")
    return config.model_copy(update={"batch": batch.model_copy(update={"micro_batch_tokens": tokens})})


def kept_bytes_per_token(roles: Roles, role: str, longest: int) -> float:
    """Bytes that a token leaves for the backward pass in sequences of at most that length, seen on three small passes.

    What does not grow with the tokens, such as a weight, falls out of their differences; what grows with the length of
    a sequence is the attention that is written out (`models.attention.LONGEST_PLAIN`). Logits are left out: they are
    kept up to a limit only (`algos.logprobs.KEPT_BYTES`).
    """
    one, three = _kept_bytes(roles, role, (PROBE,)), _kept_bytes(roles, role, (PROBE,) * 3)
    tripled = _kept_bytes(roles, role, (3 * PROBE,))
    each = (three - one) / (2 * PROBE)
    each_for_its_length = (tripled - three) / (3 * PROBE * 2 * PROBE)
    return each + each_for_its_length * (min(longest, LONGEST_PLAIN) - PROBE)


def _kept_bytes(roles: Roles, role: str, lengths: tuple[int, ...]) -> int:
    """Bytes of all storages that one pass of such sequences keeps; its gradients are dropped."""
    batch = PackedBatch(
        input_ids=torch.ones(sum(lengths), dtype=torch.int64),
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        lengths=lengths, targets=torch.tensor(lengths).cumsum(0) - 1, weights=torch.ones(len(lengths)),
    ).to(next(roles.parameters()).device)  # fmt: skip
    kept: dict[int, int] = {}

    def see(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        out = roles(batch, role)
        out = out if isinstance(out, Tensor) else out.logprobs
    held = sum(kept.values())
    out.sum().backward()
    for parameter in roles.parameters():
        parameter.grad = None
    return held


def _recomputed_bytes(roles: Roles, role: str, plain: float) -> float:
    """The same where layers are recomputed: what waits for the backward pass, and all of the one layer it is at."""
    return _waiting_bytes(roles, role) + plain / roles.causal_lm(role).config.num_hidden_layers


def _waiting_bytes(roles: Roles, role: str) -> int:
    """The input of each recomputed layer, and of what stands before and behind them."""
    config = roles.causal_lm(role).config
    return (config.num_hidden_layers + 2) * config.hidden_size * roles.dtype.itemsize


def _room(roles: Roles, device: torch.device) -> int:
    """Bytes left for activations beside the weights of all roles and what training adds to those that are trained.

    A float32 weight gets a gradient and two moments; a smaller one also a float32 master with its gradient.
    """
    held = 0
    for parameter in roles.parameters():
        part = local_part(parameter)
        held += part.numel() * part.element_size()
        if parameter.requires_grad:
            held += part.numel() * (12 if part.dtype == torch.float32 else 16 + part.element_size())
    return int((USABLE[device.type] * memory_bytes(device) - held - PROGRAM_BYTES) / ON_TOP)


def _power_of_two(number: float) -> int:
    """The greatest one that is no more, at least 1."""
    return 2 ** int(math.log2(max(number, 1.0)))
