"""Build the float64 tensors of tests of losses."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def double(values: Any) -> Tensor:
    """Return numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def random_tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Return one float64 normal tensor (std 3) per shape."""
    generator = np.random.default_rng(seed)
    return [torch.from_numpy(generator.normal(scale=3.0, size=shape)) for shape in shapes]
