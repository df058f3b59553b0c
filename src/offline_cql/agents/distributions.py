"""The distributions of a policy: tanh-Gaussian for continuous actions, categorical for discrete.

Shapes: B states, n actions sampled per state, A action dimensions, K discrete actions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from offline_cql import losses
from offline_cql.transitions import Batch

# Beyond it a logged action is at a bound: ±1 has no value before tanh, and 1 − 1e-5 is what
# float32 inverts well.
LARGEST_ACTION = 1.0 - 1e-5

SATURATED = 0.99  # |action| beyond which a dimension counts as saturated


class TanhGaussian(NamedTuple):
    """tanh of a Gaussian per action dimension; mean and log_std [B, A] are before tanh."""

    mean: Tensor
    log_std: Tensor

    def mode(self) -> Tensor:
        """Return the deterministic action tanh(mean), [B, A] in [−1, 1]."""
        return torch.tanh(self.mean)

    def sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return actions [B, n, A] and their log-densities [B, n], from normal noise [n, B, A]."""
        mean, log_std = self.mean.unsqueeze(0), self.log_std.unsqueeze(0)
        pre_tanh = mean + log_std.exp() * noise
        log_prob = losses.tanh_gaussian_log_prob(pre_tanh, mean, log_std)
        return torch.tanh(pre_tanh).transpose(0, 1), log_prob.transpose(0, 1)

    def log_prob(self, action: Tensor, *, saturated: float | None = None) -> Tensor:
        """Return the log-density [B] in nats of logged actions [B, A].

        One at a bound counts as ±saturated, by default LARGEST_ACTION: that it was clipped there
        is all that is known of it, and atanh would make it an outlier.
        """
        value = LARGEST_ACTION if saturated is None else saturated
        at_bound = action.abs() >= LARGEST_ACTION
        pre_tanh = torch.where(at_bound, action.sign() * value, action).atanh()
        return losses.tanh_gaussian_log_prob(pre_tanh, self.mean, self.log_std)

    def policy_metrics(self, batch: Batch, *, saturated: float | None = None) -> dict[str, Tensor]:
        """Return the distance of the mode from each logged action and from the bounds, [B]."""
        action = self.mode()
        return {
            "log_likelihood": self.log_prob(batch.action, saturated=saturated),
            "action_distance": (action - batch.action).square().mean(dim=1),
            "saturation": (action.abs() > SATURATED).float().mean(dim=1),
        }


class Categorical(NamedTuple):
    """softmax(logits) over K actions; logits [B, K]."""

    logits: Tensor

    def mode(self) -> Tensor:
        """Return the most likely action [B], int64."""
        return self.logits.argmax(dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability [B] in nats of logged actions [B]."""
        return losses.action_value(self.logits.log_softmax(dim=1), action)

    def policy_metrics(self, batch: Batch) -> dict[str, Tensor]:
        """Return each logged action's log-probability and whether the mode differs, [B]."""
        return {
            "log_likelihood": self.log_prob(batch.action),
            "action_distance": (self.mode() != batch.action).float(),
        }
