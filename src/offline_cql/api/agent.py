"""An agent for a Trainer of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from offline_cql.api.dataset import Dataset
from offline_cql.api.settings import merge_overrides, settings_of

if TYPE_CHECKING:
    from offline_cql.agents import Agent
    from offline_cql.config import TrainConfig


def make_agent(dataset: Dataset, overrides: Sequence[str] = ()) -> Agent:
    """Return the untrained agent for the data's spaces: a LightningModule.

    overrides: settings of train.py. Observations are normalized by the mean and standard deviation
    of the data. docs/python.md describes the batches of its training_step.
    """
    from offline_cql.commands.fit import create_agent
    from offline_cql.data.split import split_episodes

    config = cast("TrainConfig", settings_of("train", dataset.settings, overrides))
    shaping = [text for text in overrides if text.startswith(("dataset", "env"))]
    shaped = Dataset(merge_overrides(dataset.settings, shaping)) if shaping else dataset
    transitions = shaped.transitions
    return create_agent(config, transitions, split_episodes(transitions, config.dataset))
