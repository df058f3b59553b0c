"""What every agent shares: the block of updates, one optimizer, the counter, the noise generator.

An agent says what its losses are (`losses`), which parameters learn at which rate
(`parameter_groups`), what follows a step (`after_step`) and how it acts (`act`).
It knows nothing about files, environments or loggers.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from offline_cql import losses
from offline_cql.agents.cuda_graph import GraphedUpdate, cuda_recorder
from offline_cql.config import TrainConfig
from offline_cql.networks import ActionBounds, ObservationStatistics, TanhGaussianActor
from offline_cql.transitions import Batch, Spaces

NOISE_STREAM = 0x6E6F697365  # keeps the noise apart from every other use of the seed

# Logged actions at ±1 have no pre-tanh value; float32 inverts 1 − 1e-5 well.
LARGEST_ACTION = 1.0 - 1e-5

SATURATED = 0.99  # |action| beyond which a dimension counts as saturated
VALIDATION_NOISE = 0x4E1D  # seed of the proposals with which the validation gap is estimated

Gaussian = tuple[Tensor, Tensor]  # mean and log standard deviation before tanh, each [B, A]


class Agent(pl.LightningModule):
    """One Lightning training step is a block of updates; `updates_done` counts them."""

    progress_metrics: ClassVar[tuple[str, ...]] = ()  # metrics that the progress bar shows
    updates_done: Tensor

    def __init__(
        self, config: TrainConfig, spaces: Spaces, statistics: ObservationStatistics
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config, self.spaces = config, spaces
        self.statistics = statistics
        self.bounds = ActionBounds(spaces.action_low, spaces.action_high)
        self.register_buffer("updates_done", torch.zeros((), dtype=torch.int64))
        # A plain copy of the buffer: reading the buffer would wait for the device.
        self.updates = 0
        self.noise: torch.Generator | None = None
        self.recorded: GraphedUpdate | None = None
        self.resume_state: dict[str, Any] | None = None
        self.last_metrics: dict[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Batch, *, measure: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """The summed loss of one update [] and, if measured, what it is made of, by metric name."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Adam's groups: name, params, lr."""

    @abstractmethod
    def act(self, observation: Tensor) -> Tensor:
        """The deterministic policy: observations [K, D] to actions in the environment's units."""

    @abstractmethod
    def validation_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """What the agent makes of each validation step [B], by the names of docs/metrics.md.

        Draws nothing from the training's noise.
        """

    def update_schedules(self, optimizer: torch.optim.Optimizer) -> None:
        """What is a function of the update: rates, alpha. Nothing by default."""

    def graph_key(self) -> tuple[bool, ...]:
        """What decides on the host which operations an update is made of. Nothing by default."""
        return ()

    def after_step(self) -> None:
        """What follows the optimizer's step: target networks, clamps. Nothing by default."""

    # -- the block ------------------------------------------------------------------------------

    def training_step(self, block: Batch, _index: int) -> None:
        # The optimizer itself, not Lightning's wrapper: the wrapper costs 0.1 ms an update.
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for k in range(len(block.reward)):
            self.update(Batch(*(tensor[k] for tensor in block)), optimizer)
        self.updates_done.fill_(self.updates)

    def update(self, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """One update, replayed from a recording where there is one; a measured one never is."""
        self.update_schedules(optimizer)
        if (self.updates + 1) % self.config.log_every == 0:
            self.step(batch, optimizer, measure=True)
        elif self.recorded is not None:
            self.recorded(batch, self.graph_key(), lambda b: self.step(b, optimizer, measure=False))
        else:
            self.step(batch, optimizer, measure=False)
        self.updates += 1

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer, *, measure: bool) -> None:
        """One loss, one backward, one step of one optimizer: the device's part of an update."""
        loss, metrics = self.losses(batch, measure=measure)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if measure:
            self.last_metrics = (
                metrics | {"loss/total": loss.detach()} | self.gradient_norms(optimizer)
            )
        optimizer.step()
        self.after_step()

    @staticmethod
    def gradient_norms(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Euclidean norm of each network's gradient, after the all-reduce."""
        return {
            f"gradient_norm/{group['name']}": nn.utils.get_total_norm(
                [p.grad for p in group["params"] if p.grad is not None]
            )
            for group in optimizer.param_groups
        }

    def configure_optimizers(self) -> torch.optim.Optimizer:
        capture = self.config.hardware.capture
        optimizer = torch.optim.Adam(self.parameter_groups(), fused=True, capturable=capture)
        if self.resume_state is not None:
            optimizer.load_state_dict(self.resume_state["optimizer"])
        return optimizer

    # -- noise and ranks ------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self.noise = torch.Generator(self.device)
        # Mixed, because torch's CPU generator reads the lowest 32 bits only.
        mixed = np.random.SeedSequence([self.config.seed, NOISE_STREAM])
        self.noise.manual_seed(int(mixed.generate_state(1)[0]))
        if self.resume_state is not None:
            self.noise.set_state(self.resume_state["noise"])
        if self.config.hardware.capture:
            self.recorded = GraphedUpdate(cuda_recorder(self.noise))

    def rank_slice(self, noise: Tensor, *, dim: int) -> Tensor:
        """This rank's slice of noise that was drawn for the global batch."""
        ranks = self.trainer.world_size
        if ranks == 1:
            return noise
        share = noise.shape[dim] // ranks
        return noise.narrow(dim, self.trainer.global_rank * share, share)

    # -- saving ---------------------------------------------------------------------------------

    def training_state(self) -> dict[str, Any]:
        """Everything that decides the next update: tensors and plain values only."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        assert self.noise is not None
        return {
            **self.policy_state(),
            "optimizer": optimizer.state_dict(),
            "noise": self.noise.get_state(),
        }

    def policy_state(self) -> dict[str, Any]:
        """What it takes to act and to judge, not to train on."""
        return {"updates": self.updates, "agent": self.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a training state: weights now; optimizer and noise when a fit makes them."""
        self.load_state_dict(state["agent"], strict=True)
        self.updates = int(state["updates"])
        self.resume_state = state


def gaussian_actor(config: TrainConfig, spaces: Spaces) -> TanhGaussianActor:
    """The tanh-Gaussian policy network that the settings describe."""
    network = config.network
    return TanhGaussianActor(
        spaces.observation_dim,
        spaces.action_dim,
        network.actor_hidden,
        log_std_min=network.log_std_min,
        log_std_max=network.log_std_max,
        log_std_affine=network.log_std_affine,
        orthogonal=network.orthogonal_actor,
        bf16=config.hardware.precision == "bf16",
    )


def gaussian_policy_metrics(gaussian: Gaussian, batch: Batch) -> dict[str, Tensor]:
    """How near the deterministic action is to each logged one, and to the bounds, [B]."""
    action = torch.tanh(gaussian[0])
    return {
        "log_likelihood": logged_log_prob(gaussian, batch.action),
        "action_distance": (action - batch.action).square().mean(dim=1),
        "saturation": (action.abs() > SATURATED).float().mean(dim=1),
    }


def categorical_policy_metrics(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """How likely each logged action is under a softmax, and whether the greedy one differs, [B]."""
    likely = losses.chosen(logits.log_softmax(dim=1), batch.action)
    differs = (logits.argmax(dim=1) != batch.action).float()
    return {"log_likelihood": likely, "action_distance": differs}


def logged_log_prob(gaussian: Gaussian, action: Tensor) -> Tensor:
    """Log-density [B] in nats of logged actions [B, A] under the tanh-Gaussian policy."""
    pre_tanh = action.clamp(-LARGEST_ACTION, LARGEST_ACTION).atanh()
    return losses.tanh_gaussian_log_prob(pre_tanh, *gaussian)
