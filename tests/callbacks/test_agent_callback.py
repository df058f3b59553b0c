"""Guarantee: at an update with everything due, the weights are on the disk before anything else.

Metrics, checkpoint, validation, evaluation, progress, stop: in this order.
"""

from pathlib import Path
from typing import Any

import pytest
from support.train import TINY, train_run

from offline_cql.callbacks.agent_callback import AgentCallback
from offline_cql.callbacks.checkpoints import CheckpointCallback
from offline_cql.callbacks.evaluation import EvaluationCallback
from offline_cql.callbacks.metrics import MetricsWriter
from offline_cql.callbacks.progress import ProgressBar
from offline_cql.callbacks.stop import StopCallback
from offline_cql.callbacks.validation import ValidationCallback
from offline_cql.runs.checkpoint import newest_checkpoint

ALL = (
    *(key for key in TINY if key != "evaluation=none"),
    *("evaluation=default", "evaluation.episodes=2", "evaluation.environments=2"),
    *("dataset.validation_fraction=0.2", "updates=10"),
)


@pytest.mark.usefixtures("recorded")
def test_callbacks_run_in_the_stated_order(tmp_path: Path, monkeypatch: Any):
    """One block of 10 updates: each callback runs once, in the order of the docstring."""
    order: list[type] = []
    run_hook = AgentCallback.on_train_batch_end

    def note(callback: AgentCallback, *arguments: Any) -> None:
        order.append(type(callback))
        run_hook(callback, *arguments)

    monkeypatch.setattr(AgentCallback, "on_train_batch_end", note)
    train_run(tmp_path / "run", *ALL)
    assert order == [
        *(MetricsWriter, CheckpointCallback, ValidationCallback, EvaluationCallback),
        *(ProgressBar, StopCallback),
    ]


@pytest.mark.usefixtures("recorded")
def test_a_checkpoint_has_the_length_of_the_metrics_but_not_of_its_evaluation(tmp_path: Path):
    """At the last update a row is due in three files; those of the evaluation come later."""
    folder = train_run(tmp_path / "run", *ALL)
    assert newest_checkpoint(folder)["lengths"] == {
        "metrics.csv": (folder / "metrics.csv").stat().st_size,
        **{"evaluation.csv": 0, "validation.csv": 0, "evaluation_failures.csv": 0},
    }
    assert (folder / "evaluation.csv").stat().st_size > 0
    assert (folder / "validation.csv").stat().st_size > 0
