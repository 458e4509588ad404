"""The layer that gives a scorer's number, before training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fairlead.config.common import ForwardConfig
from fairlead.data.collate import collate
from fairlead.data.examples import Example
from fairlead.data.pack import pack
from fairlead.models.roles import Roles
from fairlead.runtime.machine import pass_tokens
from fairlead.runtime.start import Runtime


@torch.no_grad()
def normalise_head(
    roles: Roles, role: str, responses: Sequence[Example], batch: ForwardConfig, runtime: Runtime
) -> None:
    """Change the head so that its scores of these responses have mean 0 and variance 1 (Ziegler et al. 2019, 2.1).

    A sequence classifier's head has no bias: the mean is taken out of the weight along the mean hidden state instead.
    Every rank reads all responses, so all hold the same head; call it before the roles are sharded.
    """
    states: list[Tensor] = []

    def keep(_head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        states.append(inputs[0].double())

    handle = roles.head(role).register_forward_pre_hook(keep)
    try:
        lengths = [len(response.input_ids) for response in responses]
        for rows in pack(lengths, pass_tokens(batch.micro_batch_tokens, runtime.device)):
            roles(collate([responses[i] for i in rows]).to(runtime.device), role)
    finally:
        handle.remove()
    hidden = torch.cat(states)
    mean, weight = hidden.mean(0), roles.head(role).weight[0].double()
    weight = weight - (weight @ mean) / (mean @ mean) * mean
    roles.head(role).weight.copy_(weight[None] / (hidden @ weight).std(correction=0))
