"""The implementations that `benchmarks/updates.py` times, each in a process of its own.

`python implementations.py NAME SIZES` reads numbers of updates, one per line, and answers each with
the seconds that they took. Sampling, losses, optimizers and targets are timed; evaluation and
checkpoints are not.
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
Implementation = Callable[[int], float]  # updates -> seconds


@dataclass(frozen=True)
class Sizes:
    """The sizes of a task and its networks; actor and critics have the same hidden layers."""

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
        """Return the dimension of observations and that of actions, or the number of actions."""
        return {"hopper": (11, 3), "pendulum": (3, 1), "cartpole": (4, 2)}[self.task]

    @property
    def flops(self) -> float:
        """Return the operations of one update's matrix products, continuous agent."""
        observation, action = self.spaces
        first_state, first_action = observation * self.width, action * self.width
        inner = (self.layers - 1) * self.width**2 + self.width  # with the head
        states, actions = self.batch, self.batch * (1 + 3 * self.n_action_samples)
        # Forward, then gradients of weights and of inputs; the observation needs none.
        scored = actions * (2 * first_action + 3 * inner) + states * 2 * first_state
        target = states * (first_state + first_action + inner)
        frozen = states * (first_state + 2 * first_action + 2 * inner)
        actor = (self.layers - 1) * self.width**2 + self.width * 2 * action
        policy = states * (3 * first_state + 4 * actor)  # at s with gradients, at s' without
        return 2.0 * (self.critics * (scored + target + frozen) + policy)


def arrays(sizes: Sizes) -> dict[str, np.ndarray]:
    """Return random transitions; only their sizes matter."""
    observation, action = sizes.spaces
    generator, count = np.random.default_rng(0), sizes.transitions
    continuous = generator.uniform(-1, 1, (count, action)).astype(np.float32)
    discrete = generator.integers(action, size=count)
    observations = generator.standard_normal((count, observation), dtype=np.float32)
    return {
        "observations": observations,
        "actions": discrete if sizes.task == "cartpole" else continuous,
        "rewards": generator.standard_normal(count, dtype=np.float32),
        "next_observations": np.roll(observations, -1, axis=0),
    }


def baseline(sizes: Sizes) -> Implementation:
    from baseline import BaselineCQL

    # In the order of a batch: observations, actions, rewards, next observations.
    data = [torch.from_numpy(column) for column in arrays(sizes).values()]
    done = torch.zeros(sizes.transitions)
    agent = BaselineCQL(
        *sizes.spaces, hidden=tuple(sizes.hidden), n_action_samples=sizes.n_action_samples
    )

    def run(updates: int) -> float:
        start = time.perf_counter()
        for _ in range(updates):
            rows = torch.randint(sizes.transitions, (sizes.batch,))
            agent.update((*(tensor[rows] for tensor in data), done[rows]))  # type: ignore[arg-type]
        return time.perf_counter() - start

    return run


def d3rlpy(sizes: Sizes) -> Implementation:
    import d3rlpy as library

    columns = arrays(sizes)
    timeouts = np.zeros(sizes.transitions, np.float32)
    timeouts[999::1000] = 1.0
    data = library.dataset.MDPDataset(
        *(columns[name] for name in ("observations", "actions", "rewards")),
        np.zeros_like(timeouts),
        timeouts,
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


def prepare(sizes: Sizes, precision: str, *more: str, cql: str = "plain") -> tuple[Any, ...]:
    """Return settings, training data and a new agent of the project.

    cql: a variant; `plain` gets the number of sampled actions from `sizes`, others their own.
    """
    from hydra import compose, initialize_config_dir

    from offline_cql.commands.fit import create_agent
    from offline_cql.config import TrainConfig, validate_config
    from offline_cql.data.dataset import make_dataset
    from offline_cql.data.split import split_episodes
    from offline_cql.transitions import Spaces, Transitions

    observation, action = sizes.spaces
    discrete = sizes.task == "cartpole"
    overrides = [
        f"env={sizes.task}",
        f"cql={cql}",
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
            "cql.bc_updates=1",  # the updates after it are timed
        ]
        if cql == "plain":
            overrides.append(f"cql.n_action_samples={sizes.n_action_samples}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = validate_config(TrainConfig, compose("train", overrides))
    side = () if discrete else (1.0,) * action
    data = Transitions.pack(
        **arrays(sizes),
        terminated=np.zeros(sizes.transitions, bool),
        episodes=np.zeros(sizes.transitions, np.int32),
        spaces=Spaces(observation, action, discrete, tuple(-x for x in side), side),
        dataset_id="random",
    )
    split = split_episodes(data, config.dataset)
    dataset = make_dataset(data, split, config.dataset, gamma=config.gamma)
    return config, dataset, create_agent(config, data, split)


def bare(sizes: Sizes, precision: str, *, cql: str = "plain") -> Implementation:
    """Train with the project's losses in a plain loop, without Lightning."""
    _, dataset, agent = prepare(sizes, precision, cql=cql)
    optimizer = agent.configure_optimizers()
    generator = torch.Generator().manual_seed(0)

    def run(updates: int) -> float:
        start = time.perf_counter()
        block = dataset[torch.randint(len(dataset), (updates, sizes.batch), generator=generator)]
        for k in range(updates):
            batch = type(block)(*(tensor[k] for tensor in block))
            if agent.spaces.discrete:
                loss, _ = agent.compute_losses(batch, log_metrics=False)
            else:
                noise = agent.sample_noise(sizes.batch, generator)
                loss, _ = agent.compute_losses(batch, noise=noise, log_metrics=False)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            agent.after_step()
            agent.updates += 1
        return time.perf_counter() - start

    return run


def lightning(sizes: Sizes, precision: str, *more: str) -> Implementation:
    """Train as `python train.py` does; starting and graph capture are not timed."""
    import pytorch_lightning as pl

    from offline_cql.commands.fit import make_data_module, make_trainer

    def run(updates: int) -> float:
        config, dataset, agent = prepare(sizes, precision, *more)
        first = min(config.hardware.updates_per_step, updates)  # a block that warms up
        config.hardware.updates_per_step, config.updates = first, first + updates
        times: dict[int, float] = {}

        class Timer(pl.Callback):
            def on_train_batch_end(self, *_: object) -> None:
                if agent.device.type == "cuda":
                    torch.cuda.synchronize()
                times[agent.updates] = time.perf_counter()

        module = make_data_module(config, dataset, start=agent.updates)
        make_trainer(config.hardware, [Timer()]).fit(agent, module)
        return times[first + updates] - times[first]

    return run


CAPTURE = ("hardware=gpu", "hardware.capture=true")
IMPLEMENTATIONS: dict[str, Callable[[Sizes], Implementation]] = {
    "baseline": baseline,
    "d3rlpy": d3rlpy,
    "float32": lambda sizes: bare(sizes, "32"),
    "float32, Lightning": lambda sizes: lightning(sizes, "32"),
    "float32, cql=default": lambda sizes: bare(sizes, "32", cql="default"),
    "bf16": lambda sizes: bare(sizes, "bf16"),
    "bf16, Lightning": lambda sizes: lightning(sizes, "bf16"),
    "bf16, cql=default": lambda sizes: bare(sizes, "bf16", cql="default"),
    "GPU, float32": lambda sizes: lightning(sizes, "32", "hardware=gpu"),
    "GPU, bf16": lambda sizes: lightning(sizes, "bf16", "hardware=gpu"),
    "GPU, float32, CUDA graph": lambda sizes: lightning(sizes, "32", *CAPTURE),
    "GPU, bf16, CUDA graph": lambda sizes: lightning(sizes, "bf16", *CAPTURE),
}


def main() -> None:
    name, sizes = sys.argv[1], Sizes(**json.loads(sys.argv[2]))
    if name != "d3rlpy":
        from offline_cql.commands.fit import keep_freed_memory, silence_lightning

        silence_lightning()
        if name != "baseline":
            keep_freed_memory()
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not mix with answers
    run = IMPLEMENTATIONS[name](sizes)
    run(3)
    for line in sys.stdin:
        print(json.dumps(run(int(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
