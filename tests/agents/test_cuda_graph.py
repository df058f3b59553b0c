"""Guarantee: an update runs on its device without the host, and its replay equals the update.

Two stand-ins test this without a GPU. On torch's device `meta` every operation with a tensor of
the host, and every copy of a value to it, is an error, as it is inside a CUDA graph. `Operations`
records the operations of an update on the CPU and replays them over the same memory, as a CUDA
graph does: decisions of the host are not repeated. The last tests need a GPU.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.builders import (
    CLONING_OPTIONS,
    DISCRETE_OPTIONS,
    OPTIONS,
    attach,
    batches,
    build,
    continuous_data,
    dataset_of,
    differences,
    discrete_data,
    image_data,
    settings,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from offline_cql.agents import Agent
from offline_cql.agents.cuda_graph import WARMUP_UPDATES, GraphedUpdate, Replay
from offline_cql.transitions import Batch, Transitions

CASES = {
    "continuous": [],
    "alpha 0": ["cql.alpha=0"],
    "bf16": ["hardware.precision=bf16"],
    "lagrange": ["cql=lagrange"],
    "expectation": ["cql.penalty=expectation", "cql.expectation_over=policy"],
    "cloning first": ["cql.bc_updates=7", "cql.bc_learning_rate=1e-2"],
    "alpha falls": [
        *("alpha_schedule=cosine", "alpha_schedule.until=20", "alpha_schedule.final_factor=0.1"),
        "alpha_schedule.warmup=6",
    ],
    "max backup": ["cql.backup=max", "network.n_critics=3"],
    "options": [*OPTIONS, "cql.bc_updates=7", "cql.decay_until=20"],
    "discrete options": [*DISCRETE_OPTIONS, "cql.decay_until=20"],
    "cloning options": [*CLONING_OPTIONS, "bc.decay_until=20"],
    "discrete": ["env=cartpole"],
    "discrete lagrange": ["env=cartpole", "cql=lagrange"],
    "expected target": ["env=cartpole", "cql.target=expected"],
    "continuous cloning": ["algorithm=bc"],
    "discrete cloning": ["env=cartpole", "algorithm=bc"],
}
CASES_ON_A_GPU = ("continuous", "bf16", "lagrange", "alpha falls", "options", "discrete")


def data_for(case: str) -> Transitions:
    return discrete_data() if "env=cartpole" in CASES[case] else continuous_data()


# --- Without the host -------------------------------------------------------------------------


class ForbidHostTensors(TorchDispatchMode):
    """Fail at an operation that returns or takes a tensor of the host, scalars included."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                raise AssertionError(f"{func} works on the host")
        return result


@pytest.mark.parametrize("log_metrics", [False, True], ids=["silent", "logged"])
@pytest.mark.parametrize("case", CASES)
def test_an_update_stays_on_its_device(case: str, log_metrics: bool, monkeypatch):
    adam = sys.modules["torch.optim.adam"]  # torch.optim deletes the name
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_: None)
    data = data_for(case)
    config = settings(*CASES[case], "log_every=1" if log_metrics else "log_every=100")
    agent = build(config, data.spaces).to("meta")
    agent.on_fit_start = lambda: None
    agent.noise = torch.Generator()  # there is none for meta
    optimizer = attach(agent)
    (batch,) = batches(data, 1)
    on_meta = Batch(*(tensor.to("meta") for tensor in batch))
    with ForbidHostTensors():
        for _ in range(2):
            agent.update(on_meta, optimizer)
    assert bool(agent.last_metrics) == log_metrics


@pytest.mark.parametrize("case", ["continuous", "discrete", "continuous cloning"])
def test_acting_and_validation_stay_on_their_device(case: str, monkeypatch):
    data, host = data_for(case), torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda *_device: host())
    agent = build(settings(*CASES[case]), data.spaces).to("meta")
    (batch,) = batches(data, 1)
    on_meta = Batch(*(tensor.to("meta") for tensor in batch))
    with ForbidHostTensors(), torch.no_grad():
        assert agent.act(on_meta.observation).shape[0] == 8
        assert all(values.shape == (8,) for values in agent.validation_metrics(on_meta).values())


def test_the_stand_in_detects_a_value_copied_to_the_host():
    with ForbidHostTensors(), pytest.raises(RuntimeError, match="item"):
        torch.ones(2, device="meta").sum().item()
    with ForbidHostTensors(), pytest.raises(AssertionError, match="on the host"):
        torch.ones(2, device="meta").mul(torch.tensor(2.0))


@pytest.mark.parametrize("data", [continuous_data(), discrete_data(), image_data()])
@pytest.mark.parametrize("n_step", [1, 3])
def test_batches_are_gathered_on_the_device_of_the_transitions(data: Transitions, n_step: int):
    dataset = dataset_of(data, n_step=n_step).to(torch.device("meta"))
    indices = torch.zeros(5, 8, dtype=torch.int64, device="meta")
    with ForbidHostTensors():
        block = dataset[indices]
    assert [tensor.shape[:2] for tensor in block] == [(5, 8)] * 7


# --- Replays -------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    """The operations of an update with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for before, now in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(before, torch.Tensor) and before.data_ptr() != now.data_ptr():
                    before.copy_(now)


def record(update: Callable[[], None]) -> Replay:
    with Operations() as operations:
        update()
    return operations.replay


def train_and_log(
    case: str, updates: int, graphed: GraphedUpdate | None
) -> tuple[Agent, list[Any]]:
    """Return an agent after `updates` updates, and its metrics after each of them."""
    data, metrics = data_for(case), []
    agent = build(settings(*CASES[case], "log_every=9"), data.spaces)
    optimizer = attach(agent)
    for group in optimizer.param_groups:  # as with capture
        group["lr"] = torch.tensor(group["lr"])
    agent.graphed_update = graphed
    for batch in batches(data, updates):
        agent.update(batch, optimizer)
        metrics.append(agent.last_metrics)
    agent.optimizers = lambda **_: optimizer
    return agent, metrics


@pytest.mark.parametrize("case", CASES)
def test_replayed_updates_equal_eager_ones(case: str):
    updates, graphed = 24, GraphedUpdate(record)
    eager, expected = train_and_log(case, updates, None)
    replayed, metrics = train_and_log(case, updates, graphed)
    assert differences(eager.training_state(), replayed.training_state()) == []
    assert differences(expected, metrics) == []
    keys = {"cloning first": 2, "alpha falls": 2, "options": 2}.get(case, 1)
    # A key of one update (alpha is 0 in the first one) is never captured.
    assert len(graphed.eager_updates) == keys
    assert len(graphed.replays) == sum(
        count == WARMUP_UPDATES for count in graphed.eager_updates.values()
    )
    assert graphed.replays


def test_each_graph_key_has_its_own_graph():
    """Without the key the second part of the training would replay the graph of the first."""
    graphed = GraphedUpdate(record)

    def ignore_key(batch: Batch, _key: Any, step: Any) -> None:
        graphed(batch, (), step)

    eager, _ = train_and_log("cloning first", 24, None)
    replayed, _ = train_and_log("cloning first", 24, ignore_key)
    assert "/agent/log_temperature" in differences(
        eager.training_state(), replayed.training_state()
    )


# --- A GPU ---------------------------------------------------------------------------------------


@contextmanager
def forbid_synchronization() -> Iterator[None]:
    """Raise an error where the host would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def train_on_cuda(case: str, *, capture: bool) -> Agent:
    """Return an agent after 30 updates on the GPU; after ten the host may not synchronize."""
    data, device = data_for(case), torch.device("cuda")
    overrides = (*CASES[case], "log_every=1000", "hardware.accelerator=gpu")
    config = settings(*overrides, f"hardware.capture={str(capture).lower()}")
    agent = build(config, data.spaces).to(device)
    optimizer = attach(agent)
    dataset = dataset_of(data).to(device)
    indices = torch.arange(8, device=device)
    for _ in range(10):
        agent.update(dataset[indices], optimizer)
    with forbid_synchronization():
        for _ in range(20):
            agent.update(dataset[indices], optimizer)
    return agent.cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("capture", [False, True], ids=["eager", "replayed"])
@pytest.mark.parametrize("case", CASES_ON_A_GPU)
def test_the_host_never_synchronizes_with_the_device(case: str, capture: bool):
    train_on_cuda(case, capture=capture)


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES_ON_A_GPU)
def test_cuda_graph_updates_equal_eager_ones(case: str):
    eager, replayed = (train_on_cuda(case, capture=capture) for capture in (False, True))
    for one, other in zip(eager.parameters(), replayed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
