"""`python evaluate.py run=…`: what a run's policy earns, by rollouts or by off-policy estimates."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from offline_cql.agents import Agent, make_agent
from offline_cql.callbacks.evaluation import evaluation_rows
from offline_cql.commands.distributed import load_config
from offline_cql.commands.off_policy import (
    behavior_probabilities,
    behavior_value,
    episode_values,
    estimates,
    run_data,
    write_estimates,
)
from offline_cql.config import EvaluateConfig, OpeConfig, TrainConfig, typed_as
from offline_cql.errors import ConfigError
from offline_cql.io import write_json
from offline_cql.ope.estimate import Estimate
from offline_cql.render.numbers import format_interval, format_number, format_spread
from offline_cql.render.progress import ProgressBar
from offline_cql.runs.checkpoint import LAST, kept_updates, newest_checkpoint, read_checkpoint
from offline_cql.runs.folder import CHECKPOINTS, CONFIG, OPE, CsvFile
from offline_cql.simulation.evaluation import evaluate as roll_out_policy
from offline_cql.simulation.evaluation import score
from offline_cql.transitions import Spaces

ROWS, SUMMARY = "evaluate.csv", "evaluate.json"


def evaluate(config: DictConfig) -> float | None:
    """Rollouts, estimates or both; files beside the run's own, a table; the mean return."""
    settings = typed_as(EvaluateConfig, config)
    folder = Path(settings.run)
    run = load_settings(folder)
    rollouts = settings.evaluation.episodes > 0
    if rollouts and run.env.id is None:
        if settings.ope.method == "none":
            blind = f"was trained with env={run.env.name}: there is no simulator to roll it out in"
            raise ConfigError(f"run={folder} {blind}; choose ope=fqe for an estimate from the data")
        print(f"env={run.env.name} has no simulator: estimates only", file=sys.stderr)
        rollouts = False
    everything = settings.checkpoint == "all"
    names = [str(k) for k in kept_updates(folder)] if everything else [settings.checkpoint]
    if not names:
        raise ConfigError(f"run={folder} kept no policies; choose checkpoint=last")
    table = Table(title=f"{run.env.name} · {run.algorithm.name} · {folder.name}", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    if settings.ope.method != "none":
        estimate(folder, run, names, settings.ope, table)
    value = roll_out(folder, run, settings, table) if rollouts else None
    console = Console()
    console.print(table)
    written = [folder / OPE] if settings.ope.method != "none" else []
    for path in [*written, *([folder / ROWS] if rollouts else [])]:
        console.print(f"file    {path}", soft_wrap=True, highlight=False)
    return value


def roll_out(folder: Path, run: TrainConfig, settings: EvaluateConfig, table: Table) -> float:
    """Play episodes of one checkpoint's policy: evaluate.csv, evaluate.json, rows of the table."""
    agent = restored_agent(run, load_state(folder, settings.checkpoint))
    with ProgressBar(f"episodes of {run.env.name}", settings.evaluation.episodes) as bar:
        results = roll_out_policy(
            agent, run.env, settings.evaluation, on_step=lambda _made, ended: bar.advance(ended)
        )
    figures = score(results, run.env)
    (folder / ROWS).unlink(missing_ok=True)
    CsvFile(folder / ROWS).append(evaluation_rows(agent.updates, results))
    content = {"checkpoint": settings.checkpoint, "updates": agent.updates, **asdict(figures)}
    write_json(folder / SUMMARY, content | {"seed": settings.evaluation.seed})
    spread = format_spread(figures.return_mean, figures.return_std)
    table.add_row("updates", f"{agent.updates:,}")
    table.add_row(f"policy return ({figures.episodes} episodes)", spread)
    table.add_row("normalized score", format_number(figures.normalized_score))
    table.add_row("episode length", format_number(figures.length_mean))
    return figures.return_mean


def estimate(
    folder: Path, run: TrainConfig, names: list[str], ope: OpeConfig, table: Table
) -> None:
    """Estimate checkpoints' policies from the run's data: ope.json, rows of the table."""
    found: dict[int, list[Estimate]] = {}
    states = [load_state(folder, name) for name in names]
    transitions = run_data(run, states[0])
    gamma = run.cql.gamma
    chances = behavior_probabilities(transitions, ope)
    for state in states:
        agent = restored_agent(run, state)
        title = f"estimating {agent.updates:,} updates"
        found[agent.updates] = estimates(agent, transitions, chances, ope, gamma=gamma, title=title)
    returns = episode_values(transitions, gamma=gamma)
    behavior = behavior_value(returns, seed=ope.seed)
    best = float(returns.max())
    write_estimates(folder, found, behavior, best_return=best, gamma=gamma)
    table.add_row("discounted, 95 % interval", "")
    table.add_row("behavior (data)", format_interval(behavior.value, behavior.low, behavior.high))
    for updates, each_of in found.items():
        for each in each_of:
            interval = format_interval(each.value, each.low, each.high)
            table.add_row(f"{each.method}, {updates:,} updates", interval)
    for sentence in dict.fromkeys(s for each in each_of for s in each.assumptions):
        table.caption = f"{table.caption or 'if'}\n{sentence}"


def load_settings(folder: Path) -> TrainConfig:
    """The settings of a run."""
    if not (folder / CONFIG).exists():
        raise ConfigError(f"run={folder} is no run folder: it has no {CONFIG}")
    return load_config(folder)


def load_state(folder: Path, checkpoint: str) -> dict[str, Any]:
    """The state in one of a run's checkpoints."""
    name = f"{checkpoint}.ckpt"
    if name == LAST:
        return newest_checkpoint(folder)
    return read_checkpoint(folder / CHECKPOINTS / name)


def load_run(folder: Path, checkpoint: str = "last") -> tuple[TrainConfig, dict[str, Any]]:
    """The settings of a run and the state in one of its checkpoints."""
    return load_settings(folder), load_state(folder, checkpoint)


def restored_agent(run: TrainConfig, state: dict[str, Any]) -> Agent:
    """The agent of a checkpoint, on the CPU, ready to act."""
    spaces = Spaces(**state["spaces"])
    size = spaces.observation_dim
    agent = make_agent(
        run, spaces, observation_mean=torch.zeros(size), observation_std=torch.ones(size)
    )
    agent.restore(state)
    return agent.eval()
