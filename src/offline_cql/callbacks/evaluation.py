"""Rollouts during training: evaluation.csv, and the score of the last evaluation."""

from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from offline_cql.agents import Agent
from offline_cql.callbacks.agent_callback import AssessmentCallback, log_metrics
from offline_cql.callbacks.loggers import GuardedLogger
from offline_cql.callbacks.timer import Timer
from offline_cql.config import EnvConfig, EvaluationConfig
from offline_cql.errors import DataError, PolicyError, SimulatorError
from offline_cql.render.message import print_message
from offline_cql.runs.folder import EVALUATION, EVALUATION_FAILURES, CsvFile, video_path
from offline_cql.simulation.evaluation import EpisodeResult, Score, evaluate, score
from offline_cql.simulation.video import film
from offline_cql.stop_signals import deferred

RETURNS = "evaluation/returns"  # of each episode: a histogram in loggers that have one
VIDEO = "evaluation/video"


class EvaluationCallback(AssessmentCallback):
    """Writes evaluation.csv; an evaluation that fails is recorded in evaluation_failures.csv."""

    def __init__(
        self,
        folder: Path,
        timer: Timer,
        env: EnvConfig,
        evaluation: EvaluationConfig,
        *,
        updates: int,
    ) -> None:
        file = CsvFile(folder / EVALUATION)
        super().__init__(file, timer, every=evaluation.every, updates=updates)
        self.failures = CsvFile(folder / EVALUATION_FAILURES)
        self.env, self.evaluation = env, evaluation
        self.latest = last_score(self.file, env)
        self.error: str | None = None  # of the last evaluation, if it failed
        self.no_video = False  # said already

    def assess(self, trainer: pl.Trainer, agent: Agent) -> None:
        limit = self.evaluation.time_limit
        try:
            results = evaluate(agent, self.env, self.evaluation, time_limit=limit)
        except (SimulatorError, PolicyError) as error:
            self.record_failure(agent.updates, str(error))
            return
        with deferred():
            self.latest, self.error = score(results, self.env), None
            self.file.append(evaluation_rows(agent.updates, results))
            log_metrics(trainer, evaluation_metrics(self.latest), update=agent.updates)
            for logger in guarded_loggers(trainer):
                returns = [result.return_ for result in results]
                logger.log_histogram(RETURNS, returns, update=agent.updates)
        if self.evaluation.video:
            self.film(trainer, agent, self.evaluation.video)

    def film(self, trainer: pl.Trainer, agent: Agent, episodes: int) -> None:
        """Write a video and send it; where the simulator cannot draw, say so once."""
        path = video_path(self.file.path.parent, str(agent.updates))
        limit, seed = self.evaluation.time_limit, self.evaluation.seed
        try:
            film(agent, self.env, path, episodes=episodes, seed=seed, time_limit=limit)
        except (SimulatorError, PolicyError) as error:
            if not self.no_video:
                print_message(f"note: no video: {error}")
            self.no_video = True
            return
        for logger in guarded_loggers(trainer):
            logger.log_video(VIDEO, path, update=agent.updates)

    def record_failure(self, update: int, error: str) -> None:
        """Note and print why there is no score after `update` updates."""
        self.latest, self.error = None, f"update {update}: {error}"
        self.failures.append([{"update": update, "error": error}])
        print_message(f"warning: the evaluation after {update} updates failed: {error}")


def guarded_loggers(trainer: pl.Trainer) -> list[GuardedLogger]:
    """Return this project's loggers, without those of a Python program."""
    return [logger for logger in trainer.loggers if isinstance(logger, GuardedLogger)]


def last_score(file: CsvFile, env: EnvConfig) -> Score | None:
    """Return the score of the last evaluation in evaluation.csv; None before the first one."""
    try:
        results = [
            EpisodeResult(
                int(row["episode"]), int(row["seed"]), float(row["return"]), int(row["length"])
            )
            for row in file.last_rows()
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file.path} has rows that are no episodes ({error}): restore it"
        ) from error
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
