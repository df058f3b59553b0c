"""An update that is recorded once and replayed: the host says "again" and has nothing else to do.

On a GPU an update is some 270 small kernels, and starting them one by one from Python takes longer
than running them. A CUDA graph holds all of them with their arguments, memory included.
"""

from collections import Counter
from collections.abc import Callable

import torch

from offline_cql.transitions import Batch

Replay = Callable[[], None]
Recorder = Callable[[Callable[[], None]], Replay]  # does an update, returns what repeats it

AS_WRITTEN = 3  # updates of a phase before its recording: they allocate state and choose kernels


class GraphedUpdate:
    """Replays the recording of an update, one recording for each phase of the training.

    What changes between replays is read from memory that stays where it is: the batch (copied
    dist), alpha, parameters, the optimizer's state and the noise generator's.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.done: Counter[tuple[bool, ...]] = Counter()  # updates as written
        self.replays: dict[tuple[bool, ...], Replay] = {}
        self.batch: Batch | None = None

    def __call__(
        self, batch: Batch, phase: tuple[bool, ...], step: Callable[[Batch], None]
    ) -> None:
        """One update with this batch; `step` is the update as written."""
        if self.done[phase] < AS_WRITTEN:
            self.done[phase] += 1
            step(batch)
            return
        if self.batch is None:
            self.batch = Batch(*(tensor.clone() for tensor in batch))
        own = self.batch
        for mine, given in zip(own, batch, strict=True):
            mine.copy_(given)
        if phase in self.replays:
            self.replays[phase]()
        else:
            self.replays[phase] = self.recorder(lambda: step(own))


def cuda_recorder(noise: torch.Generator) -> Recorder:
    """Records a CUDA graph, in which this generator goes on from replay to replay."""

    def record(update: Callable[[], None]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(noise)
        with torch.cuda.graph(graph):  # the kernels are noted, not run
            update()
        graph.replay()
        return graph.replay

    return record
