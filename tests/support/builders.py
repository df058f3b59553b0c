"""Build small settings, data sets and agents for tests, and run updates on them.

Actions come from fixed seeds; networks are a few units wide. `attach` stands in for Lightning's
Trainer where a test wants single updates; `fit` is the real one.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from support import config
from torch import Tensor

from offline_cql.agents import Agent
from offline_cql.commands.fit import make_trainer
from offline_cql.commands.make_agent import make_agent
from offline_cql.config import TrainConfig
from offline_cql.data.dataset import TransitionDataset
from offline_cql.data.module import TransitionDataModule
from offline_cql.data.split import Split, train_on_all
from offline_cql.networks import StackedMLP
from offline_cql.transitions import Batch, Spaces, Transitions

TINY = (
    *("hardware=cpu", "logger=csv", "evaluation=none", "run_dir=unused"),
    *("network.actor_hidden=[8]", "network.critic_hidden=[8]", "cql.n_action_samples=2"),
    *("batch_size=8", "log_every=5", "updates=8", "dataset.reward_scale=1.0"),
)


OPTIONS = (
    *("cql.bc_updates=3", "cql.bc_weight=0.1", "cql.bc_weight_final=0.01", "cql.decay_until=6"),
    *("cql.learning_rate_final=0.1", "cql.critic_warmup=returns", "cql.importance_sampling=false"),
    *("cql.calibrated=true", "network.n_critics=3", "cql.target_critics=2"),
    *("network.critic_norm=layer", "network.policy_ema=0.5", "cql.alpha_unit=return"),
    *("cql.bc_share=0.5", "cql.return_weighted=true", "cql.bc_saturated_action=0.9"),
)
DISCRETE_OPTIONS = (
    *("env=cartpole", "cql.calibrated=true", "network.n_critics=3", "cql.target_critics=2"),
    *("network.critic_norm=layer", "cql.learning_rate_final=0.1"),
)
CLONING_OPTIONS = (
    *("algorithm=bc", "bc.learning_rate_final=0.1", "bc.saturated_action=0.9"),
    "network.policy_ema=0.5",
)


def settings(*overrides: str) -> TrainConfig:
    """Return the validated settings of `python train.py <overrides>`, small by default."""
    return config.settings(*TINY, *overrides)


# --- Data ----------------------------------------------------------------------------------------


def continuous_data(
    size: int = 64,
    *,
    low: Sequence[float] = (-1.0, -1.0),
    high: Sequence[float] = (1.0, 1.0),
    observation_dim: int = 3,
    seed: int = 0,
) -> Transitions:
    """Return random transitions in episodes of 16, every other one truncated.

    low, high: the bounds of the actions.
    """
    actions = np.random.default_rng([seed, 1]).uniform(-1, 1, (size, len(low)))
    spaces = Spaces(observation_dim, len(low), False, tuple(low), tuple(high))
    return _pack(spaces, actions.astype(np.float32), seed)


def discrete_data(
    size: int = 64, *, actions: int = 3, observation_dim: int = 3, seed: int = 0
) -> Transitions:
    """Return transitions as continuous_data does, with so many discrete actions."""
    chosen = np.random.default_rng([seed, 1]).integers(0, actions, size)
    return _pack(Spaces(observation_dim, actions, True, (), ()), chosen, seed)


def image_data(size: int = 64, *, seed: int = 0) -> Transitions:
    """Return transitions as discrete_data does, with images of 12 random bytes."""
    data = discrete_data(size, observation_dim=12, seed=seed)
    images = np.random.default_rng([seed, 2]).integers(0, 256, (size, 2, 12), np.uint8)
    columns = data.columns
    rows = np.ascontiguousarray(data.rows[:, columns.action.start : columns.terminated + 1])
    return Transitions(rows, data.ends, data.spaces, "test/images-v0", "0" * 64, images=images)


def with_actions(data: Transitions, actions: NDArray[Any]) -> Transitions:
    """Return the transitions with other actions: [N, A] in [-1, 1] or [N] integers."""
    rows = data.rows.copy()
    rows[:, data.columns.action] = actions.reshape(len(data), -1)
    return replace(data, rows=rows)


def _pack(spaces: Spaces, actions: NDArray[Any], seed: int) -> Transitions:
    size, generator = len(actions), np.random.default_rng(seed)
    observations = generator.normal(size=(size + 1, spaces.observation_dim)).astype(np.float32)
    episodes = (np.arange(size) // 16).astype(np.int32)
    last = np.arange(size) % 16 == 15
    return Transitions.pack(
        observations=observations[:-1],
        actions=actions,
        rewards=generator.normal(size=size).astype(np.float32),
        next_observations=observations[1:],
        terminated=last & (episodes % 2 == 0),
        episodes=episodes,
        spaces=spaces,
        dataset_id="test/random-v0",
    )


def batch_of(data: Transitions, indices: Iterable[int], *, gamma: float = 0.99) -> Batch:
    """Return the transitions with these indices as one batch."""
    return dataset_of(data, gamma=gamma)[torch.tensor(list(indices))]


def dataset_of(
    data: Transitions,
    split: Split | None = None,
    *,
    gamma: float = 0.99,
    scale: float = 1.0,
    shift: float = 0.0,
    n_step: int = 1,
) -> TransitionDataset:
    """Return a TransitionDataset over all of the data, or a split; rewards unscaled by default."""
    return TransitionDataset(
        data,
        split or train_on_all(data),
        gamma=gamma,
        reward_scale=scale,
        reward_shift=shift,
        n_step=n_step,
    )


def batches(data: Transitions, count: int) -> list[Batch]:
    """Return random batches of 8 transitions."""
    draw = torch.Generator().manual_seed(1)
    dataset = dataset_of(data)
    return [dataset[torch.randint(len(data), (8,), generator=draw)] for _ in range(count)]


def in_double(batch: Batch) -> Batch:
    """Return the batch in float64; indices stay integers."""
    return Batch(*(t.double() if t.is_floating_point() else t for t in batch))


# --- Agents --------------------------------------------------------------------------------------


def build(
    config: TrainConfig, spaces: Spaces, *, seed: int = 0, mean: float = 0.0, std: float = 1.0
) -> Any:
    """Return the agent of settings and spaces; all observation columns share mean and std.

    Typed Any: each test knows the class of its agent.
    """
    torch.manual_seed(seed)
    columns = torch.ones(spaces.observation_dim)
    return make_agent(config, spaces, (mean * columns, std * columns))


class LoneTrainer:
    """The attributes of Lightning's Trainer that an update uses, for one of several ranks."""

    def __init__(self, *, rank: int = 0, ranks: int = 1) -> None:
        self.global_rank, self.world_size = rank, ranks
        self.strategy = SimpleNamespace(
            backward=lambda loss, _optimizer: loss.backward(), root_device=torch.device("cpu")
        )


def attach(agent: Agent, *, rank: int = 0, ranks: int = 1) -> torch.optim.Optimizer:
    """Prepare an agent for `agent.update(batch, optimizer)` without a fit; return its optimizer."""
    agent.lone_trainer = LoneTrainer(rank=rank, ranks=ranks)  # Lightning keeps a weak reference
    agent.trainer = agent.lone_trainer
    agent.on_fit_start()
    return agent.configure_optimizers()


def fit(
    config: TrainConfig,
    data: Transitions,
    *,
    updates: int | None = None,
    state: dict[str, Any] | None = None,
    agent: Agent | None = None,
    callbacks: list[pl.Callback] | None = None,
) -> dict[str, Any]:
    """Train with Lightning's Trainer, from `state` if given; return the training state."""
    agent = agent or build(config, data.spaces)
    if state is not None:
        agent.restore(state)
    module = TransitionDataModule(
        dataset_of(data, gamma=config.gamma),
        seed=config.seed,
        start=agent.updates,
        updates=updates or config.updates,
        batch_size=config.batch_size,
        updates_per_step=config.hardware.updates_per_step,
        boundaries=[config.log_every],
    )
    make_trainer(config.hardware, callbacks or []).fit(agent, module)
    return through_a_file(agent.training_state())


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state after saving and loading it with weights_only=True."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def tensors_of(value: Any, path: str = "") -> dict[str, Any]:
    """Return every leaf of nested dicts and lists by path; a module counts as its state dict."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, dict):
        pairs: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    else:
        return {path: value}
    return {k: v for key, item in pairs for k, v in tensors_of(item, f"{path}/{key}").items()}


def differences(one: Any, other: Any) -> list[str]:
    """Return the paths of leaves that differ by a bit, in type or dtype, or exist in one only."""
    first, second = tensors_of(one), tensors_of(other)
    shared = first.keys() & second.keys()
    unequal = {path for path in shared if not _equal(first[path], second[path])}
    return sorted(unequal | (first.keys() ^ second.keys()))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def as_reference(network: StackedMLP, member: int = 0) -> tuple[list[Any], list[Any]]:
    """Return copies of one member's weights and biases in float64, in the reference's layout."""
    weights = [w[member].detach().double().numpy().copy() for w in network.weights]
    return weights, [b[member, 0].detach().double().numpy().copy() for b in network.biases]
