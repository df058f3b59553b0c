"""Rollouts during training: evaluation.csv, and the score of the last evaluation."""

import csv
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AgentCallback, log_metrics
from offline_cql.callbacks.timer import Timer
from offline_cql.config import EnvConfig, EvaluationConfig
from offline_cql.errors import DataError
from offline_cql.runs.folder import EVALUATION, CsvFile
from offline_cql.simulation.evaluation import EpisodeResult, Score, evaluate, score


class EvaluationCallback(AgentCallback):
    """Evaluate at every multiple of `evaluation.every` and after the last update, on rank 0."""

    def __init__(
        self,
        folder: Path,
        timer: Timer,
        env: EnvConfig,
        evaluation: EvaluationConfig,
        *,
        updates: int,
    ) -> None:
        self.file = CsvFile(folder / EVALUATION)
        self.timer, self.env, self.evaluation = timer, env, evaluation
        self.updates = updates
        self.latest = last_score(folder / EVALUATION, env)

    def after_block(self, trainer: pl.Trainer, agent: Agent) -> None:
        if agent.updates % self.evaluation.every and agent.updates != self.updates:
            return
        with self.timer.pause():
            if trainer.is_global_zero:
                self.evaluate(trainer, agent)
            trainer.strategy.barrier("evaluation")

    def evaluate(self, trainer: pl.Trainer, agent: Agent) -> None:
        """Roll the policy out, append one row per episode and log the summary."""
        results = evaluate(agent, self.env, self.evaluation)
        self.latest = score(results, self.env)
        self.file.append(evaluation_rows(agent.updates, results))
        log_metrics(trainer, evaluation_metrics(self.latest), update=agent.updates)


def last_score(path: Path, env: EnvConfig) -> Score | None:
    """Return the score of the last evaluation in evaluation.csv; None before the first one."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        results = [
            EpisodeResult(
                int(row["episode"]), int(row["seed"]), float(row["return"]), int(row["length"])
            )
            for row in rows
            if row["update"] == rows[-1]["update"]
        ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} has rows that are no episodes ({error}): restore it") from error
    return score(results, env) if results else None


def evaluation_rows(update: int, results: list[EpisodeResult]) -> list[dict[str, Any]]:
    """Return the rows of evaluation.csv: update, episode, seed, return, length."""
    columns = ("update", "episode", "seed", "return", "length")
    return [dict(zip(columns, (update, *astuple(result)), strict=True)) for result in results]


def evaluation_metrics(score: Score) -> dict[str, float]:
    """Return a score by the metric names of docs/metrics.md."""
    values = asdict(score)
    del values["episodes"]
    return {f"evaluation/{name}": value for name, value in values.items() if value is not None}
