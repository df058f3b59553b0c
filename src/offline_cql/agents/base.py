"""The base of all agents: the block of updates, one optimizer, the counter, the noise generator.

A subclass defines its losses (`compute_losses`), its parameters with their learning rates
(`parameter_groups`), its policy (`policy`) and its validation metrics (`validation_metrics`).
It may set scheduled values before an update (`update_schedules`) and change parameters after
the optimizer's step (`after_step`).
"""

import math
from abc import abstractmethod
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from offline_cql.agents.cuda_graph import GraphedUpdate
from offline_cql.agents.distributions import TanhGaussian
from offline_cql.config import NetworkConfig
from offline_cql.errors import DivergedError
from offline_cql.networks import ActionBounds, ObservationStatistics, TanhGaussianActor
from offline_cql.random_streams import RandomStream
from offline_cql.transitions import Batch, Spaces


class Policy(NamedTuple):
    """The policy network, whose input is standardized observations, and the kind of its output.

    - "tanh_gaussian": mean and log_std [B, A]
    - "categorical": logits [1, B, K]
    - "greedy": values [E, B, K]; the action with the largest minimum over E, no distribution
    """

    network: nn.Module
    kind: Literal["tanh_gaussian", "categorical", "greedy"]


class BlockNotes(NamedTuple):
    """What the updates of a block note on the device, float32 scalars: read once, at its end."""

    not_finite: Tensor  # 1.0 from the first update whose loss or gradient is NaN or infinite
    finite_updates: Tensor  # before it
    largest: Tensor  # Q of a logged action, or target
    one: Tensor

    @classmethod
    def on(cls, device: torch.device) -> "BlockNotes":
        """Return the notes of a block before its first update."""
        values = (0.0, 0.0, -math.inf, 1.0)
        return cls(*(torch.tensor(value, device=device) for value in values))

    def clear(self) -> None:
        """Forget the last block, in place: a replayed CUDA graph writes to the same memory."""
        self.not_finite.zero_()
        self.finite_updates.zero_()
        self.largest.fill_(-math.inf)


class Agent(pl.LightningModule):
    """An algorithm with its networks. One Lightning training step runs a block of updates.

    precision "bf16" computes hidden layers in bfloat16; log_every: updates between two rows of
    metrics; capture: replay updates as a CUDA graph. Initial weights are drawn from torch's global
    generator.

    No loss or gradient that is NaN or infinite reaches a weight: from the first one on, the
    optimizer skips its steps, and the block ends with DivergedError.
    """

    def __init__(
        self,
        spaces: Spaces,
        statistics: ObservationStatistics,
        *,
        precision: str = "32",
        seed: int = 0,
        log_every: int = 100,
        capture: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spaces, self.statistics = spaces, statistics
        self.bounds = ActionBounds(spaces.action_low, spaces.action_high)
        self.bf16 = precision == "bf16"
        self.seed, self.log_every, self.capture = seed, log_every, capture
        self.updates = 0  # completed
        self.rank, self.world_size = 0, 1
        self.noise: torch.Generator | None = None
        self.graphed_update: GraphedUpdate | None = None
        self.resume_state: dict[str, Any] | None = None
        self.last_metrics: dict[str, Tensor] = {}
        self.noted = BlockNotes.on(torch.device("cpu"))
        self.largest_value, self.value_bonus = -math.inf, 0.0  # of the last block

    @abstractmethod
    def compute_losses(
        self, batch: Batch, *, log_metrics: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed loss of one update, and with `log_metrics` its metrics: scalars."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return Adam's parameter groups, each with name, params and lr."""

    @abstractmethod
    def policy(self) -> Policy:
        """Return the network that acts."""

    @abstractmethod
    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Return the validation metrics of each transition, [B], by the names of docs/metrics.md.

        Must not draw from `self.noise`: validation would change the training.
        """

    def update_schedules(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the values that depend on the update: learning rates, alpha. Nothing by default."""

    def graph_key(self) -> tuple[bool, ...]:
        """Return the flags that decide which operations an update runs: one CUDA graph each."""
        return ()

    def after_step(self) -> None:
        """Update target networks and clamp parameters after the optimizer's step."""

    def act(self, observation: Tensor) -> Tensor:
        """Return the deterministic policy's actions, in the environment's units.

        Observations [B, D] give [B, A], or an int64 index [B].
        """
        network, kind = self.policy()
        output = network(self.statistics(observation))
        if kind == "tanh_gaussian":
            action: Tensor = self.bounds(TanhGaussian(*output).mode())
        else:
            action = output.amin(dim=0).argmax(dim=-1)
        return action

    # -- the block ------------------------------------------------------------------------------

    def training_step(self, block: Batch, _index: int) -> None:
        """Run K updates: every tensor of the block is [K, B, …], with B states per rank.

        Raises DivergedError.
        """
        # The optimizer itself, not Lightning's wrapper: the wrapper costs 0.1 ms per update.
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        batches = [Batch(*tensors) for tensors in zip(*block, strict=True)]
        self.noted.clear()
        for batch in batches:
            self.update(batch, optimizer)
        self.end_block(batches)

    def update(self, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """Run one update; replay its CUDA graph if there is one, except when metrics are logged."""
        self.update_schedules(optimizer)
        log_metrics = (self.updates + 1) % self.log_every == 0
        if self.graphed_update is None or log_metrics:
            self.step(batch, optimizer, log_metrics=log_metrics)
        else:
            self.graphed_update(
                batch, self.graph_key(), lambda b: self.step(b, optimizer, log_metrics=False)
            )
        self.updates += 1

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer, *, log_metrics: bool) -> None:
        """Run the part that a CUDA graph captures: one loss, backward pass and optimizer step."""
        loss, metrics = self.compute_losses(batch, log_metrics=log_metrics)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        self.check_finite(loss, optimizer)
        if log_metrics:
            self.last_metrics = (
                metrics | {"loss/total": loss.detach()} | self.gradient_norms(optimizer)
            )
        optimizer.step()  # does nothing if its found_inf is 1
        self.after_step()

    def check_finite(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer skip its step if the loss or a gradient is not finite: no wait."""
        noted = self.noted
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        # What torch.amp's GradScaler runs, with the scale 1: it leaves the gradients as they are.
        torch._amp_foreach_non_finite_check_and_unscale_(
            [loss.detach(), *gradients], noted.not_finite, noted.one
        )
        noted.finite_updates.add_(noted.one).sub_(noted.not_finite)

    def note_values(self, q_logged: Tensor, target: Tensor) -> None:
        """Note the largest Q of a logged action and the largest target, without a wait."""
        largest = torch.maximum(q_logged.detach().max(), target.max()).float()
        torch.maximum(self.noted.largest, largest, out=self.noted.largest)

    def bonus(self) -> Tensor:
        """Return what the loss may add to a value per step, beyond the rewards; 0 by default."""
        return torch.zeros((), device=self.device)

    def end_block(self, batches: list[Batch]) -> None:
        """Read what the updates of a block noted: the only wait for the device.

        Raises DivergedError with the first batch whose update was not finite, on any rank.
        """
        noted = self.noted
        values = torch.stack([noted.finite_updates, -noted.largest, -self.bonus().float()])
        if self.world_size > 1:
            torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MIN)
        done, largest, bonus = values.tolist()
        self.largest_value, self.value_bonus = -largest, -bonus
        if done < len(batches):
            self.raise_diverged(batches, int(done))

    def raise_diverged(self, batches: list[Batch], done: int) -> NoReturn:
        """Raise DivergedError for the update after `done` updates of the block."""
        with torch.no_grad():  # the weights are still those before that update
            _, metrics = self.compute_losses(batches[done], log_metrics=True)
        names = [name for name, value in metrics.items() if not value.isfinite().all()]
        batch = {name: tensor.cpu().numpy() for name, tensor in batches[done]._asdict().items()}
        update = self.updates - len(batches) + done + 1
        reason = f"{', '.join(names or ['a gradient'])} is not finite"
        raise DivergedError(update, reason, batch=batch)

    @staticmethod
    def gradient_norms(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Return the Euclidean norm of each network's gradient, after the all-reduce."""
        return {
            f"gradient_norm/{group['name']}": nn.utils.get_total_norm(
                [p.grad for p in group["params"] if p.grad is not None]
            )
            for group in optimizer.param_groups
        }

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam(self.parameter_groups(), fused=True, capturable=self.capture)
        self.noted = BlockNotes.on(self.device)
        optimizer.found_inf = self.noted.not_finite  # type: ignore[attr-defined]
        if self.resume_state is not None:
            optimizer.load_state_dict(self.resume_state["optimizer"])
        if self.capture:  # a CUDA graph reads learning rates from tensors, which are set in place
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(float(group["lr"]), device=self.device)
        return optimizer

    # -- noise and ranks ------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self.rank, self.world_size = self.trainer.global_rank, self.trainer.world_size
        self.noise = torch.Generator(self.device)
        # Mixed into one word, because torch's CPU generator uses only the lowest 32 bits of a seed.
        mixed = np.random.SeedSequence([self.seed, RandomStream.NOISE])
        self.noise.manual_seed(int(mixed.generate_state(1)[0]))
        if self.resume_state is not None:
            self.noise.set_state(self.resume_state["noise"])
        if self.capture:
            self.graphed_update = GraphedUpdate.on_cuda(self.noise)

    def rank_slice(self, noise: Tensor, *, dim: int) -> Tensor:
        """Return this rank's slice of noise that was drawn for the global batch."""
        if self.world_size == 1:
            return noise
        size = noise.shape[dim] // self.world_size
        return noise.narrow(dim, self.rank * size, size)

    def draw_critics(self, members: int, count: int) -> Tensor:
        """Return the indices of `count` different critics, the same on every rank."""
        scores = torch.rand(members, generator=self.noise, device=self.device)
        return scores.topk(count).indices

    def global_mean(self, value: Tensor) -> Tensor:
        """Return the mean over ranks of a value without gradient."""
        if self.world_size > 1:
            value = value / self.world_size
            torch.distributed.all_reduce(value)
        return value

    # -- saving ---------------------------------------------------------------------------------

    def training_state(self) -> dict[str, Any]:
        """Return everything that the next update depends on: tensors and plain values only."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        assert self.noise is not None
        return {
            **self.policy_state(),
            "optimizer": optimizer.state_dict(),
            "noise": self.noise.get_state(),
        }

    def policy_state(self) -> dict[str, Any]:
        """Return what acting and evaluating need; not enough to continue training."""
        return {"updates": self.updates, "agent": self.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Load a training state; optimizer and noise are restored when training creates them."""
        self.load_state_dict(state["agent"], strict=True)
        self.updates = int(state["updates"])
        self.resume_state = state


def set_learning_rate(optimizer: torch.optim.Optimizer, name: str, value: float) -> None:
    """Set the learning rate of one parameter group, in place where it is a tensor."""
    (group,) = (group for group in optimizer.param_groups if group["name"] == name)
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value


def gaussian_actor(spaces: Spaces, network: NetworkConfig, *, bf16: bool) -> TanhGaussianActor:
    """Return a tanh-Gaussian policy network with the settings of `network`."""
    return TanhGaussianActor(
        spaces.observation_dim,
        spaces.action_dim,
        network.actor_hidden,
        log_std_min=network.log_std_min,
        log_std_max=network.log_std_max,
        log_std_affine=network.log_std_affine,
        orthogonal=network.orthogonal_actor,
        bf16=bf16,
    )
