"""`python evaluate.py run=…`: the return of a run's policy, by rollouts or off-policy estimates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from offline_cql.agents import Agent
from offline_cql.callbacks.evaluation import evaluation_rows
from offline_cql.commands.load_data import simulator_settings
from offline_cql.commands.load_run import load_agent, open_run, restore_agent
from offline_cql.commands.off_policy import (
    behavior_probabilities,
    compare_with_data,
    estimate_policy,
    load_run_data,
    require_validation_episodes,
    write_estimates,
)
from offline_cql.commands.run_loggers import print_sync_command, send_results
from offline_cql.commands.tables import key_value_table, print_text_table
from offline_cql.commands.threads import cpu_threads
from offline_cql.config import (
    EnvConfig,
    EvaluateConfig,
    OpeConfig,
    RolloutConfig,
    TrainConfig,
    validate_config,
)
from offline_cql.errors import ConfigError, PolicyError, SimulatorError
from offline_cql.io import write_json
from offline_cql.ope.actions import Comparison
from offline_cql.ope.behavior import behavior_value, discounted_returns
from offline_cql.ope.episodes import validation_episodes
from offline_cql.ope.estimate import Estimate
from offline_cql.render.message import print_message
from offline_cql.render.numbers import format_interval, format_number, format_spread, format_values
from offline_cql.render.progress import ProgressBar
from offline_cql.render.terminal import Terminal
from offline_cql.report.tables import action_tables
from offline_cql.runs.checkpoint import load_state
from offline_cql.runs.folder import OPE, CsvFile, kept_updates, video_path
from offline_cql.simulation.environments import import_package
from offline_cql.simulation.evaluation import Score, score
from offline_cql.simulation.evaluation import evaluate as play_episodes
from offline_cql.simulation.video import film

ROWS, SUMMARY = "evaluate.csv", "evaluate.json"


def evaluate(config: DictConfig) -> float | None:
    """Evaluate a run's policy by rollouts, off-policy estimates or both, and print a table.

    Writes evaluate.csv and evaluate.json, or ope.json, into the run folder. Returns the mean
    return of the rollouts, None without rollouts.
    """
    settings = validate_config(EvaluateConfig, config)
    import_package(settings.env.package)
    folder = Path(settings.run)
    run = open_run(folder)
    rollouts = can_roll_out(run, settings)
    table = key_value_table(f"{run.env.name} · {run.algorithm} · {folder.name}")
    files: list[str] = []
    assumptions: list[str] = []
    compared: list[Comparison] = []
    mean_return = None
    with cpu_threads(run.hardware.threads):
        if settings.ope.method != "none":
            checkpoints = checkpoint_names(folder, settings.checkpoint)
            estimates = estimate_returns(folder, run, checkpoints, settings.ope)
            assumptions = add_estimates(table, estimates)
            compared = list(estimates.actions.values())[-1:]
            files.append(OPE)
        if rollouts:
            updates, summary = roll_out(folder, settings)
            add_score(table, updates, summary)
            mean_return = summary.return_mean
            files.append(ROWS)
            video = evaluation_video(folder, updates)
            if settings.evaluation.video and video.exists():
                files.append(str(video.relative_to(folder)))
    terminal = Terminal()
    terminal.print_table(table)
    for comparison in compared:
        for text_table in action_tables(comparison):
            print_text_table(terminal, text_table)
    for assumption in assumptions:
        terminal.print_field("assumes", assumption)
    for name in files:
        terminal.print_field("file", str(folder / name))
    print_sync_command(terminal, folder)
    return mean_return


def can_roll_out(run: TrainConfig, settings: EvaluateConfig) -> bool:
    """Return whether to roll out: rollouts are configured and the run has a simulator.

    Raises ConfigError when there would be nothing left to do.
    """
    if settings.evaluation.episodes == 0:
        return False
    if simulator_settings(run.env, run.dataset).id is not None:
        return True
    if settings.ope.method == "none":
        raise ConfigError(
            f"run={settings.run} was trained with env={run.env.name}, which has no simulator; "
            "choose ope=fqe for an estimate from the data"
        )
    print_message(f"env={run.env.name} has no simulator: estimates only")
    return False


def checkpoint_names(folder: Path, checkpoint: str) -> list[str]:
    """Return the checkpoints to estimate; `all` stands for each kept policy."""
    if checkpoint != "all":
        return [checkpoint]
    names = [str(updates) for updates in kept_updates(folder)]
    if not names:
        raise ConfigError(f"run={folder} kept no policies; choose checkpoint=last")
    return names


# --- Rollouts --------------------------------------------------------------------------------


def roll_out(folder: Path, settings: EvaluateConfig) -> tuple[int, Score]:
    """Play episodes with one checkpoint's policy and write them.

    Returns the checkpoint's number of updates, and the score.
    """
    run, agent = load_agent(folder, settings.checkpoint)
    env = simulator_settings(run.env, run.dataset)
    with ProgressBar(f"episodes of {env.name}", settings.evaluation.episodes) as bar:
        results = play_episodes(
            agent, env, settings.evaluation, on_step=lambda _steps, ended: bar.advance(ended)
        )
    summary = score(results, env)
    (folder / ROWS).unlink(missing_ok=True)
    CsvFile(folder / ROWS).append(evaluation_rows(agent.updates, results))
    content: dict[str, Any] = {"checkpoint": settings.checkpoint, "updates": agent.updates}
    write_json(folder / SUMMARY, content | asdict(summary) | {"seed": settings.evaluation.seed})
    values: dict[str, Any] = {f"evaluate/{name}": x for name, x in asdict(summary).items()}
    if settings.evaluation.video and film_policy(folder, agent, env, settings.evaluation):
        values["evaluate/video"] = evaluation_video(folder, agent.updates)
    values = {name: value for name, value in values.items() if value is not None}
    send_results(folder, run.logger, curves={agent.updates: values})
    return agent.updates, summary


def film_policy(folder: Path, agent: Agent, env: EnvConfig, evaluation: RolloutConfig) -> bool:
    """Write a video of the first episodes; return False, and say so, if the simulator cannot."""
    path = evaluation_video(folder, agent.updates)
    path.unlink(missing_ok=True)
    try:
        film(agent, env, path, episodes=evaluation.video or 0, seed=evaluation.seed)
    except (SimulatorError, PolicyError) as error:
        print_message(f"note: no video: {error}")
        return False
    return True


def evaluation_video(folder: Path, updates: int) -> Path:
    """Return the path of the video that evaluate.py makes of a checkpoint's policy."""
    return video_path(folder, f"evaluate-{updates}")


def add_score(table: Table, updates: int, summary: Score) -> None:
    """Add the rows of a score."""
    table.add_row("updates", f"{updates:,}")
    table.add_row(
        f"return (mean ± std of {summary.episodes} episodes)",
        format_spread(summary.return_mean, summary.return_std),
    )
    table.add_row("normalized score", format_number(summary.normalized_score))
    table.add_row("episode length", format_number(summary.length_mean))


# --- Off-policy estimates --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """The estimates of policies, by number of updates, beside the return of the behavior policy.

    All are discounted returns of so many validation episodes. actions: what the policies do in
    these beside the data, by number of updates.
    """

    policies: dict[int, list[Estimate]]
    behavior: Estimate
    actions: dict[int, Comparison]
    validation_episodes: int


def estimate_returns(
    folder: Path, run: TrainConfig, checkpoints: Sequence[str], ope: OpeConfig
) -> Estimates:
    """Estimate the policies of checkpoints from the run's validation episodes; write ope.json."""
    require_validation_episodes(run, folder)
    states = [load_state(folder, name) for name in checkpoints]
    transitions = load_run_data(run, states[0])
    unseen = validation_episodes(transitions, run.dataset)
    gamma = run.gamma
    probabilities = behavior_probabilities(unseen, ope)
    estimates: dict[int, list[Estimate]] = {}
    actions: dict[int, Comparison] = {}
    for state in states:
        agent = restore_agent(run, state)
        title = f"estimating the policy after {agent.updates:,} updates"
        estimates[agent.updates] = estimate_policy(
            agent, unseen, probabilities, ope, gamma=gamma, title=title
        )
        actions[agent.updates] = compare_with_data(agent, unseen)
    behavior = behavior_value(unseen, gamma=gamma, seed=ope.seed)
    write_estimates(
        folder,
        estimates,
        behavior,
        actions,
        validation_episodes=len(unseen.ends),
        best_return=float(discounted_returns(transitions, gamma=gamma).max()),
        gamma=gamma,
    )
    curves = {
        updates: {f"estimate/{e.method}{key}": x for e in group for key, x in bounds(e).items()}
        for updates, group in estimates.items()
    }
    figures = {f"estimate/behavior{key}": x for key, x in bounds(behavior).items()}
    send_results(folder, run.logger, curves=curves, figures=figures)
    return Estimates(
        policies=estimates,
        behavior=behavior,
        actions=actions,
        validation_episodes=len(unseen.ends),
    )


def bounds(estimate: Estimate) -> dict[str, float]:
    """Return the value and the bounds of its interval, by the ends of their names at W&B."""
    return {"": estimate.value, "_low": estimate.low, "_high": estimate.high}


def add_estimates(table: Table, estimates: Estimates) -> list[str]:
    """Add the rows of estimates; return their assumptions."""
    behavior = estimates.behavior
    table.add_row("validation episodes", f"{estimates.validation_episodes:,}")
    table.add_row("discounted return", "[95 % interval]")
    add_estimate(table, "behavior policy (data)", behavior)
    assumptions: dict[str, None] = {}  # ordered, each once
    for updates, group in estimates.policies.items():
        for estimate in group:
            add_estimate(table, f"{estimate.method}, {updates:,} updates", estimate)
            assumptions |= dict.fromkeys(estimate.assumptions)
    return list(assumptions | dict.fromkeys(behavior.assumptions))


def add_estimate(table: Table, name: str, estimate: Estimate) -> None:
    """Add a row with the interval and, where a part was extrapolated, one for each part."""
    table.add_row(name, format_interval(estimate.value, estimate.low, estimate.high))
    if estimate.extrapolated:
        parts = (estimate.observed, estimate.extrapolated)
        observed, extrapolated = format_values(*parts, width=estimate.width)
        table.add_row("  up to the ends of the logs", observed)
        table.add_row("  extrapolated beyond them", extrapolated)
