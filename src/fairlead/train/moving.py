"""Weights that follow the policy: its moving average, and a reference that is refreshed or averaged."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fairlead.runtime.ranks import copy_into, full


class MovingAverage:
    """Follows the fp32 masters of one role and writes itself into the parameters of another, or of the same.

    It begins as a copy of the masters. Kept in float32: what a bfloat16 average would add in a step is below its last
    digit.
    """

    def __init__(self, masters: Mapping[str, nn.Parameter], targets: Sequence[nn.Parameter]) -> None:
        assert len(masters) == len(targets)
        self._masters, self._targets = dict(masters), list(targets)
        self._average = {name: master.detach().clone() for name, master in self._masters.items()}

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Keep the share `decay` of what there is and take the rest from the masters; 0 copies them."""
        for name, average in self._average.items():
            average.lerp_(self._masters[name], 1.0 - decay)

    @torch.no_grad()
    def publish(self) -> None:
        """Write the average into the targets, rounded to their precision."""
        for target, average in zip(self._targets, self._average.values(), strict=True):
            target.copy_(average)

    def state(self) -> dict[str, Tensor]:
        """The average by name, whole, on the CPU; under sharding every rank must call."""
        return {name: full(average).cpu() for name, average in self._average.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for name, average in self._average.items():
            copy_into(average, tensors[name])
