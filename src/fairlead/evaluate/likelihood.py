"""Held-out loss per trained token, on any role of `Roles`."""

from collections.abc import Mapping, Sequence

import torch

from fairlead.config.common import ForwardConfig
from fairlead.data.examples import Example
from fairlead.evaluate.summary import Likelihood, likelihood
from fairlead.models.outputs import per_sequence
from fairlead.models.roles import Roles
from fairlead.runtime.start import Runtime


def measure_likelihoods(
    roles: Roles, role: str, groups: Mapping[str, Sequence[Example]], batch: ForwardConfig, runtime: Runtime
) -> tuple[Likelihood, ...]:
    """Loss and perplexity per trained token of each group of held-out conversations."""
    found = []
    for name, examples in groups.items():
        logprobs = torch.cat(per_sequence(roles, role, examples, batch, runtime)).double()
        found.append(likelihood(name, -float(logprobs.sum()), logprobs.numel()))
    return tuple(found)
