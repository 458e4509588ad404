"""Work on a GPU that is recorded once and started again with one call: a CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor


class Recording:
    """Runs the work as it is, then records it. `first` is what it returned, `output` what every `play` fills anew.

    The work reads and writes the same tensors each time, and never waits for the GPU. `works` is False where it could
    not be recorded: a layer that waits, or no memory for the copy of what it makes on its way.
    """

    def __init__(self, work: Callable[[], Tensor]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels are loaded and libraries begin here, which cannot be recorded
            self.first = work()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph, self.works = torch.cuda.CUDAGraph(), True
        try:
            with torch.cuda.graph(self._graph):
                self.output = work()
        except RuntimeError:
            self.works = False

    def play(self) -> Tensor:
        """The same work on what its tensors hold now."""
        self._graph.replay()
        return self.output
