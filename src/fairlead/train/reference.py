"""Log-probabilities of responses under the frozen parent, computed once, before anything is learnt.

Before its first step the policy is its parent: its adapter is a copy of the parent's or adds zero, and there is no
dropout without gradients. So the reference is no model of its own, and none is in memory while training. What was
computed lies in the stage's folder beside the digest of all that it was computed from; a stage that goes on reads it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import orjson
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fairlead.algos.masked import segment_sum
from fairlead.artifacts.atomic import write_bytes
from fairlead.artifacts.hashing import sha256_json
from fairlead.config.common import MicroBatchConfig
from fairlead.data.examples import Example
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime
from fairlead.train.accumulate import micro_batches_by_prompt
from fairlead.train.stage import Stage

FILE = "reference.safetensors"
DIGESTS = "made_from_and_holds"


def step_logprobs(
    roles: Roles, rows: Sequence[Sequence[Example]], batch: MicroBatchConfig, runtime: Runtime
) -> Float[Tensor, "B K"]:
    """Log-probability under the policy of each of the K sequences of each row, nats, no gradient, on every rank.

    Read in the micro-batches that a training step on these rows has: other sequences in a pass move the last digits.
    """
    width = len(rows[0])
    shares = micro_batches_by_prompt(rows, batch, runtime, share_prompts=roles.packs("policy"))
    passes = [[width * i + k for i in share.rows for k in range(width)] for share in shares]
    examples = [example for row in rows for example in row]
    return sums(per_sequence(roles, "policy", examples, batch, runtime, passes=passes)).view(-1, width)


def logprobs_when_first_seen(
    stage: Stage, roles: Roles, rows: Sequence[Sequence[Example]], steps: Iterable[list[int]], batch: MicroBatchConfig
) -> Float[Tensor, "P K"]:
    """`step_logprobs` of each row in the first step that sees it; nan for a row that none sees.

    So in the first epoch they are, to the last bit, what a reference read beside the policy would have said. Leaves
    between two steps when a signal asked to.
    """
    found = torch.full((len(rows), len(rows[0])), torch.nan)
    for picked in steps:
        new = found[picked].isnan().any(1)
        if new.any():
            stage.leave_if_asked()
            logprobs = step_logprobs(roles, [rows[i] for i in picked], batch, stage.runtime)
            found[torch.tensor(picked)[new]] = logprobs[new]
        elif not found.isnan().any():
            break
    return found


def computed_once(
    stage: Stage, examples: Sequence[Example], compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What `compute` says of these examples under the stage's parent, kept in the stage's folder.

    Read from there when it lies there whole and was made from the same weights, tokens and precision; else computed,
    which must be while the policy is neither trained nor resumed. Every rank calls and gets all of it.
    """
    runtime, source, path = stage.runtime, stage.parents["model"], stage.folder / FILE
    made_from = sha256_json(
        {
            "model": source.digest, "base": source.base.digest, "rows": _digest_of(examples),
            "device": runtime.device.type, "dtype": str(runtime.dtype),
        }
    )  # fmt: skip
    found, unusable = _read(path, made_from)
    runtime.ranks.barrier()  # all have looked before one writes
    if found is not None:
        return found
    if unusable:
        stage.say(f"warning: {path.name} {unusable}: the reference is read again")
    stage.say(f"{stage.name}: reading the responses under the reference, once")
    found = compute()
    if runtime.is_main:
        # One entry: safetensors writes several in any order, and two runs shall leave the same bytes
        write_bytes(path, save(found, metadata={DIGESTS: f"{made_from} {_digest_of_tensors(found)}"}))
    return found


def sums(rows: Sequence[Tensor]) -> Float[Tensor, "S"]:
    """Sum of each row, added up in the order in which the policy's are while training."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    segment = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    return segment_sum(torch.cat([*rows, torch.empty(0)]), segment, len(rows))


def _read(path: Path, made_from: str) -> tuple[dict[str, Tensor] | None, str]:
    """What lies there, or None and why it cannot be used."""
    if not path.is_file():
        return None, ""
    try:
        with safe_open(path, "pt") as file:
            was_made_from, _, holds = (file.metadata() or {}).get(DIGESTS, "").partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError:
        return None, "is damaged"
    if holds != _digest_of_tensors(tensors):
        return None, "is damaged"
    return (tensors, "") if was_made_from == made_from else (None, "was made in another precision")


def _digest_of(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(orjson.dumps((example.input_ids, example.trained)))
    return digest.hexdigest()


def _digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    return sha256_json({name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()})
