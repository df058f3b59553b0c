"""Guarantee: the checkpoint is written after the CSV files whose lengths it contains."""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer
from support.builders import settings
from support.train import TINY, train_run

from offline_cql.callbacks.agent_callback import AgentCallback
from offline_cql.callbacks.checkpoints import CheckpointCallback
from offline_cql.callbacks.timer import Timer
from offline_cql.commands.fit import make_trainer
from offline_cql.runs.checkpoint import newest_checkpoint


def test_the_checkpoint_callback_runs_last_in_any_order_of_the_list(tmp_path: Path):
    checkpoints = CheckpointCallback(
        tmp_path, Timer(), every=1, keep_every=1, updates=1, identity={}
    )
    other = AgentCallback()
    trainer: Trainer = make_trainer(settings().hardware, [checkpoints, other])
    assert trainer.callbacks[-1] is checkpoints
    assert other in trainer.callbacks[:-1]


@pytest.mark.usefixtures("recorded")
def test_a_checkpoint_has_the_final_length_of_every_csv_file(tmp_path: Path):
    """At the last update a row is due in all three files; the checkpoint has them all."""
    evaluation = ("evaluation=default", "evaluation.episodes=2", "evaluation.environments=2")
    base: tuple[Any, ...] = tuple(key for key in TINY if key != "evaluation=none")
    folder = train_run(
        tmp_path / "run", *base, *evaluation, "dataset.validation_fraction=0.2", "updates=10"
    )
    lengths = newest_checkpoint(folder)["lengths"]
    assert sorted(lengths) == ["evaluation.csv", "metrics.csv", "validation.csv"]
    assert lengths == {name: (folder / name).stat().st_size for name in lengths}
    assert all(lengths.values())
