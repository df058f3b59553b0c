"""Composes the project's config in a test, as Hydra does it for a door."""

import functools
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from offline_cql.schema import TrainConfig, typed

CONF = Path(__file__).resolve().parent.parent / "conf"


def composed(*overrides: str, door: str = "train") -> DictConfig:
    """The config of `python <door>.py <overrides>`."""
    return _composed(overrides, door).copy()


@functools.cache
def _composed(overrides: tuple[str, ...], door: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(door, list(overrides))


def settings(*overrides: str) -> TrainConfig:
    """The checked settings of `python train.py <overrides>`."""
    return typed(composed(*overrides))
