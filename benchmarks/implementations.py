"""What `benchmarks/updates.py` times, one program a contender; it is told how many updates to do.

`python contenders.py NAME SIZES` answers each number of updates on its input with the seconds that
they took. Sampling, losses, optimizers and targets are timed; evaluation and saving are not.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

CONF = Path(__file__).parent.parent / "conf"
Contender = Callable[[int], float]  # updates to seconds


@dataclass(frozen=True)
class Sizes:
    """One task and its networks. hidden: of actor and critics."""

    task: str = "hopper"
    batch: int = 256
    n_action_samples: int = 10
    width: int = 256
    layers: int = 3
    critics: int = 2
    transitions: int = 20_000

    @property
    def hidden(self) -> list[int]:
        return [self.width] * self.layers

    @property
    def spaces(self) -> tuple[int, int]:
        """Numbers in an observation, numbers in an action or choices."""
        return {"hopper": (11, 3), "pendulum": (3, 1), "cartpole": (4, 2)}[self.task]

    @property
    def flops(self) -> float:
        """Operations of one update's matrix products, as the project does them; continuous."""
        observation, action = self.spaces
        first_state, first_action = observation * self.width, action * self.width
        inner = (self.layers - 1) * self.width**2 + self.width  # with the head
        states, pairs = self.batch, self.batch * (1 + 3 * self.n_action_samples)
        # Forward, then gradients of weights and of inputs; the observation needs none.
        scored = pairs * (2 * first_action + 3 * inner) + states * 2 * first_state
        target = states * (first_state + first_action + inner)
        frozen = states * (first_state + 2 * first_action + 2 * inner)
        actor = (self.layers - 1) * self.width**2 + self.width * 2 * action
        policy = states * (3 * first_state + 4 * actor)  # here with gradients, there without
        return 2.0 * (self.critics * (scored + target + frozen) + policy)


def arrays(sizes: Sizes) -> dict[str, np.ndarray]:
    """Transitions without meaning: only their sizes matter here."""
    observation, action = sizes.spaces
    draw, count = np.random.default_rng(0), sizes.transitions
    continuous = draw.uniform(-1, 1, (count, action)).astype(np.float32)
    choices = draw.integers(action, size=count)
    observations = draw.standard_normal((count, observation), dtype=np.float32)
    return {
        "observations": observations,
        "actions": choices if sizes.task == "cartpole" else continuous,
        "rewards": draw.standard_normal(count, dtype=np.float32),
        "next_observations": np.roll(observations, -1, axis=0),
    }


def textbook(sizes: Sizes) -> Contender:
    from textbook import TextbookCQL

    # In the order of a batch: observations, actions, rewards, next observations.
    data = [torch.from_numpy(column) for column in arrays(sizes).values()]
    done = torch.zeros(sizes.transitions)
    agent = TextbookCQL(
        *sizes.spaces, hidden=tuple(sizes.hidden), n_action_samples=sizes.n_action_samples
    )

    def run(updates: int) -> float:
        start = time.perf_counter()
        for _ in range(updates):
            rows = torch.randint(sizes.transitions, (sizes.batch,))
            agent.update((*(tensor[rows] for tensor in data), done[rows]))  # type: ignore[arg-type]
        return time.perf_counter() - start

    return run


def d3rlpy(sizes: Sizes) -> Contender:
    import d3rlpy as library

    made = arrays(sizes)
    timeouts = np.zeros(sizes.transitions, np.float32)
    timeouts[999::1000] = 1.0
    data = library.dataset.MDPDataset(
        made["observations"], made["actions"], made["rewards"], np.zeros_like(timeouts), timeouts
    )
    encoder = library.models.VectorEncoderFactory(sizes.hidden)
    algorithm = library.algos.CQLConfig(
        batch_size=sizes.batch,
        n_action_samples=sizes.n_action_samples,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        conservative_weight=5.0,
        alpha_learning_rate=0.0,
    ).create(device="cpu:0")
    algorithm.build_with_dataset(data)

    def run(updates: int) -> float:
        start = time.perf_counter()
        for _ in range(updates):
            algorithm.update(data.sample_transition_batch(sizes.batch))
        return time.perf_counter() - start

    return run


def prepared(sizes: Sizes, precision: str, *more: str) -> tuple[Any, ...]:
    """The settings, the data, all of them selected, and an agent of the project."""
    from hydra import compose, initialize_config_dir

    from offline_cql.commands.fit import initial_agent
    from offline_cql.config import typed
    from offline_cql.data.split import select
    from offline_cql.transitions import Spaces, Transitions

    observation, action = sizes.spaces
    discrete = sizes.task == "cartpole"
    overrides = [
        f"env={sizes.task}",
        f"batch_size={sizes.batch}",
        f"network.n_critics={sizes.critics}",
        f"network.critic_hidden={sizes.hidden}",
        f"hardware.precision={precision}",
        "evaluation=none",
        "run_dir=none",
        *more,
    ]
    if not discrete:
        overrides += [
            f"network.actor_hidden={sizes.hidden}",
            f"cql.n_action_samples={sizes.n_action_samples}",
            "cql.bc_updates=0",
        ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = typed(compose("train", overrides))
    side = () if discrete else (1.0,) * action
    data = Transitions.pack(
        **arrays(sizes),
        terminated=np.zeros(sizes.transitions, bool),
        episodes=np.zeros(sizes.transitions, np.int32),
        spaces=Spaces(observation, action, discrete, tuple(-x for x in side), side),
        dataset_id="random",
    )
    selection = select(data, config.dataset)
    return config, data, selection, initial_agent(config, data, selection)


def bare(sizes: Sizes, precision: str) -> Contender:
    """The project's losses in a loop of its own: no Lightning."""
    from offline_cql.commands.fit import make_module

    config, data, selection, agent = prepared(sizes, precision)
    dataset = make_module(config, data, selection, agent).dataset
    optimizer = agent.configure_optimizers()
    generator = torch.Generator().manual_seed(0)

    def run(updates: int) -> float:
        start = time.perf_counter()
        block = dataset[torch.randint(len(dataset), (updates, sizes.batch), generator=generator)]
        for k in range(updates):
            batch = type(block)(*(tensor[k] for tensor in block))
            if agent.spaces.discrete:
                loss, _ = agent.losses(batch, measure=False)
            else:
                noise = agent.sample_noise(sizes.batch, generator)
                loss, _ = agent.compute_losses(batch, noise, measure=False)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            agent.after_step()
            agent.updates += 1
        return time.perf_counter() - start

    return run


def lightning(sizes: Sizes, precision: str, *more: str) -> Contender:
    """The whole path of training; what starts a fit is not timed, nor is a recording."""
    import pytorch_lightning as pl

    from offline_cql.commands.fit import make_module, make_trainer

    def run(updates: int) -> float:
        config, data, selection, agent = prepared(sizes, precision, *more)
        first = min(config.hardware.updates_per_step, updates)  # a block that warms up
        config.hardware.updates_per_step, config.updates = first, first + updates
        times: dict[int, float] = {}

        class Timer(pl.Callback):
            def on_train_batch_end(self, *_: object) -> None:
                if agent.device.type == "cuda":
                    torch.cuda.synchronize()
                times[agent.updates] = time.perf_counter()

        module = make_module(config, data, selection, agent)
        make_trainer(config.hardware, [Timer()]).fit(agent, module)
        return times[first + updates] - times[first]

    return run


RECORDED = ("hardware=gpu", "hardware.capture=true")
CONTENDERS: dict[str, Callable[[Sizes], Contender]] = {
    "textbook": textbook,
    "d3rlpy": d3rlpy,
    "float32": lambda sizes: bare(sizes, "32"),
    "float32, Lightning": lambda sizes: lightning(sizes, "32"),
    "bf16": lambda sizes: bare(sizes, "bf16"),
    "bf16, Lightning": lambda sizes: lightning(sizes, "bf16"),
    "GPU, float32": lambda sizes: lightning(sizes, "32", "hardware=gpu"),
    "GPU, bf16": lambda sizes: lightning(sizes, "bf16", "hardware=gpu"),
    "GPU, float32, recorded": lambda sizes: lightning(sizes, "32", *RECORDED),
    "GPU, bf16, recorded": lambda sizes: lightning(sizes, "bf16", *RECORDED),
}


def main() -> None:
    name, sizes = sys.argv[1], Sizes(**json.loads(sys.argv[2]))
    if name != "d3rlpy":
        from offline_cql.commands.fit import keep_freed_memory, quieten_lightning

        quieten_lightning()
        if name != "textbook":
            keep_freed_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    run = CONTENDERS[name](sizes)
    run(3)
    for line in sys.stdin:
        print(json.dumps(run(int(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
