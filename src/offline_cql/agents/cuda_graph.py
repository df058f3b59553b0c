"""An update captured once as a CUDA graph and replayed.

On a GPU an update is some 270 small kernels, and launching them one by one from Python takes longer
than running them. A CUDA graph launches all of them, arguments and memory included, in one call.
`base.Agent.update` is the only place that uses it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from offline_cql.transitions import Batch

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None]], Replay]  # runs an update, returns what repeats it
GraphKey = tuple[bool, ...]

WARMUP_UPDATES = 3  # eager updates per key before the capture: they allocate state, choose kernels


class GraphedUpdate:
    """Replays a captured update, one graph per key.

    What changes between replays is read from memory that stays in place: the batch (copied there),
    alpha, parameters, the optimizer's state and the noise generator's. The key holds every decision
    that the host takes about which operations an update consists of.
    """

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.eager_updates: Counter[GraphKey] = Counter()
        self.replays: dict[GraphKey, Replay] = {}
        self.batch: Batch | None = None

    @classmethod
    def on_cuda(cls, noise: torch.Generator) -> GraphedUpdate:
        """Return a GraphedUpdate of CUDA graphs, whose replays advance this generator."""
        return cls(cuda_capture(noise))

    def __call__(self, batch: Batch, key: GraphKey, step: Callable[[Batch], None]) -> None:
        """Make one update with this batch; `step` is the eager update."""
        if self.eager_updates[key] < WARMUP_UPDATES:
            self.eager_updates[key] += 1
            step(batch)
            return
        if self.batch is None:
            self.batch = Batch(*(tensor.clone() for tensor in batch))
        static = self.batch
        for memory, tensor in zip(static, batch, strict=True):
            memory.copy_(tensor)
        if key in self.replays:
            self.replays[key]()
        else:
            self.replays[key] = self.capture(lambda: step(static))


def cuda_capture(noise: torch.Generator) -> Capture:
    """Return a function that captures an update as a CUDA graph and runs it once."""

    def capture(update: Callable[[], None]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(noise)
        with torch.cuda.graph(graph):  # kernels are recorded here, not run
            update()
        graph.replay()
        return graph.replay

    return capture
