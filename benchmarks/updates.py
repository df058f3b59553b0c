"""Updates per second on this machine: float32 and bf16, interleaved, medians; `make bench`.

Random transitions of each task's size, so nothing has to be recorded. The whole path of training is
timed (sampling, Lightning, update), without evaluation and saving.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from offline_cql.data.selection import select
from offline_cql.runner.fit import initial_agent, keep_freed_memory, make_module, quieten_lightning
from offline_cql.runner.provenance import processor
from offline_cql.schema import TrainConfig, typed
from offline_cql.transitions import Spaces, Transitions

CONF = Path(__file__).parent.parent / "conf"
TASKS = {
    "hopper": Spaces(11, 3, False, (-1.0,) * 3, (1.0,) * 3),
    "pendulum": Spaces(3, 1, False, (-2.0,), (2.0,)),
    "cartpole": Spaces(4, 2, True, (), ()),
}
SIZE = 20_000


def random_transitions(spaces: Spaces) -> Transitions:
    """Transitions without meaning: only their sizes matter here."""
    draw = np.random.default_rng(0)
    observations = draw.standard_normal((SIZE, spaces.observation_dim), dtype=np.float32)
    continuous = draw.uniform(-1, 1, (SIZE, spaces.action_dim)).astype(np.float32)
    return Transitions.pack(
        observations=observations,
        actions=draw.integers(spaces.action_dim, size=SIZE) if spaces.discrete else continuous,
        rewards=draw.standard_normal(SIZE, dtype=np.float32),
        next_observations=np.roll(observations, -1, axis=0),
        terminated=np.zeros(SIZE, bool),
        episodes=np.zeros(SIZE, np.int32),
        spaces=spaces,
        dataset_id="random",
    )


def settings(task: str, precision: str, updates: int) -> TrainConfig:
    overrides = [f"env={task}", f"updates={updates}", f"hardware.precision={precision}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return typed(compose("train", [*overrides, "evaluation=none", "run_dir=none"]))


def updates_per_second(task: str, precision: str, updates: int) -> float:
    """One timed fit; the first block warms up and is not counted."""
    config = settings(task, precision, updates + 10)
    data = random_transitions(TASKS[task])
    selection = select(data, config.dataset)
    agent = initial_agent(config, data, selection)
    start: list[float] = []

    class Timer(pl.Callback):
        def on_train_batch_end(self, *_args: object) -> None:
            if agent.updates >= 10 and not start:
                start.extend([time.perf_counter(), agent.updates])

    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[Timer()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = make_module(config, data, selection, agent)
    module.stops = [10]
    trainer.fit(agent, module)
    then, before = start
    return (agent.updates - before) / (time.perf_counter() - then)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--updates", type=int, default=100)
    arguments = parser.parse_args()
    quieten_lightning()
    keep_freed_memory()
    cases = [(task, precision) for task in TASKS for precision in ("32", "bf16")]
    found: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for _ in range(arguments.repeats):
        for case in cases:
            found[case].append(updates_per_second(*case, arguments.updates))
    table = Table(title=f"updates/s through Lightning · {processor()} · {platform.system()}")
    for name in ("task", "float32", "bf16", "bf16 / float32"):
        table.add_column(name, justify="right")
    for task in TASKS:
        full, half = (statistics.median(found[task, p]) for p in ("32", "bf16"))
        table.add_row(task, f"{full:.1f}", f"{half:.1f}", f"{half / full:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
