"""`python evaluate.py run=…`: rollouts of a finished run's policy, repeated or at length."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from offline_cql import run_folder
from offline_cql.agents import Agent, make_agent
from offline_cql.callbacks.rollouts import evaluation_rows
from offline_cql.checkpoint import LAST, newest_checkpoint, read_checkpoint
from offline_cql.evaluation import evaluate as roll_out_policy
from offline_cql.evaluation import score
from offline_cql.runner.ranks import load_config
from offline_cql.runner.summary import number
from offline_cql.schema import ConfigError, EvaluateConfig, TrainConfig, typed_as
from offline_cql.transitions import Spaces

ROWS, SUMMARY = "evaluate.csv", "evaluate.json"


def evaluate(config: DictConfig) -> float:
    """Roll the policy out, write evaluate.csv and evaluate.json beside the run's own, say it."""
    settings = typed_as(EvaluateConfig, config)
    folder = Path(settings.run)
    if settings.evaluation.episodes == 0:
        raise ConfigError("evaluation.episodes=0 must be >= 1: there is nothing else to do")
    run, state = load_run(folder, settings.checkpoint)
    if run.env.id is None:
        blind = f"was trained with env={run.env.name}: there is no simulator to roll it out in"
        raise ConfigError(f"run={folder} {blind}")
    agent = restored_agent(run, state)
    results = roll_out_policy(agent, run.env, settings.evaluation)
    figures = score(results, run.env)
    (folder / ROWS).unlink(missing_ok=True)
    run_folder.CsvFile(folder / ROWS).append(evaluation_rows(agent.updates, results))
    content = {"checkpoint": settings.checkpoint, "updates": agent.updates, **asdict(figures)}
    run_folder.write_json(folder / SUMMARY, content | {"seed": settings.evaluation.seed})
    title = f"{run.env.name} · {run.algorithm.name} · {agent.updates:,} updates"
    table = Table(title=title, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    spread = f"{number(figures.return_mean)} ± {number(figures.return_std)}"
    table.add_row(f"policy return ({figures.episodes} episodes)", spread)
    table.add_row("normalized score", number(figures.normalized_score))
    table.add_row("episode length", number(figures.length_mean))
    console = Console()
    console.print(table)
    console.print(f"rows    {folder / ROWS}", soft_wrap=True, highlight=False)
    return figures.return_mean


def load_run(folder: Path, checkpoint: str = "last") -> tuple[TrainConfig, dict[str, Any]]:
    """The settings of a run and the state in one of its checkpoints."""
    if not (folder / run_folder.CONFIG).exists():
        raise ConfigError(f"run={folder} is no run folder: it has no {run_folder.CONFIG}")
    name = f"{checkpoint}.ckpt"
    if name == LAST:
        return load_config(folder), newest_checkpoint(folder)
    return load_config(folder), read_checkpoint(folder / run_folder.CHECKPOINTS / name)


def restored_agent(run: TrainConfig, state: dict[str, Any]) -> Agent:
    """The agent of a checkpoint, on the CPU, ready to act."""
    spaces = Spaces(**state["spaces"])
    size = spaces.observation_dim
    agent = make_agent(
        run, spaces, observation_mean=torch.zeros(size), observation_std=torch.ones(size)
    )
    agent.restore(state)
    return agent.eval()
