"""The tables that end a run and a grid. They read run folders and train nothing."""

from pathlib import Path
from typing import Any

from rich.table import Table

from offline_cql.commands.run_loggers import print_sync_command
from offline_cql.commands.tables import key_value_table
from offline_cql.config import TrainConfig
from offline_cql.io import read_json
from offline_cql.render.command import command
from offline_cql.render.numbers import format_number, format_spread
from offline_cql.render.terminal import Terminal
from offline_cql.runs.folder import ONNX, ONNX_JSON, package_words, read_metadata


def print_run(folder: Path, config: TrainConfig, result: dict[str, Any]) -> None:
    """Print the run's result, its speed, its folder and the next command."""
    dataset = read_metadata(folder)["dataset"]["id"]
    title = f"{config.env.name} · {dataset} · {config.algorithm}"
    table = key_value_table(title)
    table.add_row("behavior return (data)", format_number(result["behavior_return"]))
    if result["episodes"]:
        spread = format_spread(result["return_mean"], result["return_std"])
        table.add_row(f"policy return (mean ± std of {result['episodes']} episodes)", spread)
        table.add_row("normalized score", format_number(result["normalized_score"]))
    table.add_row("updates", f"{result['updates']:,}")
    table.add_row("updates/s", format_number(result["updates_per_second"]))
    table.add_row("wall time", f"{result['wall_seconds']:.0f} s")
    terminal = Terminal()
    terminal.print_table(table)
    terminal.print_field("run", str(folder))
    print_sync_command(terminal, folder)
    exported = exported_updates(folder)
    if exported not in (None, result["updates"]):
        again = command("export.py", ("run", folder), *package_words(folder))
        warning = f"warning: {ONNX} is the policy of {exported:,} updates: {again}"
        terminal.print_line(warning, "yellow")
    terminal.print_field("next", next_command(folder, config, result))


def exported_updates(folder: Path) -> int | None:
    """Return the updates of the policy that was exported from the run, None without one."""
    path = folder / ONNX_JSON
    if not path.exists():
        return None
    updates: int = read_json(path, {"updates": int}, remedy="export the policy again")["updates"]
    return updates


def next_command(folder: Path, config: TrainConfig, result: dict[str, Any]) -> str:
    """Return the command that judges the run as its data and its simulator allow, or exports it."""
    run = (("run", folder), *package_words(folder))
    has_episodes = config.dataset.validation_fraction > 0
    if result["episodes"] or (config.env.id is not None and not has_episodes):
        return command("evaluate.py", *run, "evaluation.episodes=100")
    if has_episodes:
        return command("evaluate.py", *run, "ope=fqe", "evaluation.episodes=0")
    return command("export.py", *run)


def print_grid(folder: Path, jobs: list[dict[str, Any]]) -> None:
    """Print one row per job: its settings, its status and its result."""
    first, *others = (job["overrides"] for job in jobs)
    shared = [text for text in first if others and all(text in other for other in others)]
    table = Table()
    for name in ("job", "status"):
        table.add_column(name)
    for name in ("return ± std", "score", "updates/s"):
        table.add_column(name, justify="right")
    for job in jobs:
        result = job["result"]
        table.add_row(
            " ".join(text for text in job["overrides"] if text not in shared),
            result.get("status", "failed"),
            return_text(result),
            format_number(result.get("normalized_score")),
            format_number(result.get("updates_per_second")),
        )
    terminal = Terminal()
    # Above and below the table, because a narrow terminal would cut paths in it.
    title = f"grid {folder} · {len(jobs)} jobs, each with {' '.join(shared) or 'the defaults'}"
    terminal.print_line(title)
    terminal.print(table)
    for job in jobs:
        terminal.print_line(job["run"] or "no run folder")
    failed = [job for job in jobs if job["result"].get("status") != "finished"]
    if failed:
        terminal.print_line(f"{len(failed)} of {len(jobs)} jobs did not finish", "red")
    for job in failed:
        status = job["result"].get("status", "failed")
        reason = job["result"].get("error") or job["error"] or "killed"
        settings = " ".join(text for text in job["overrides"] if text not in shared)
        terminal.print_line(f"{settings}: {status}: {reason}")


def return_text(result: dict[str, Any]) -> str:
    """Return the mean return of the last evaluation, with the spread of its episodes."""
    if result.get("return_mean") is None:
        return format_number(None)
    return format_spread(result["return_mean"], result["return_std"])


def print_not_started(jobs: list[list[str]]) -> None:
    """Print the overrides of the jobs that a stopped grid did not start."""
    if not jobs:
        return
    terminal = Terminal()
    terminal.print_line(f"{len(jobs)} jobs were not started", "red")
    for overrides in jobs:
        terminal.print_line(command("train.py", *overrides))
