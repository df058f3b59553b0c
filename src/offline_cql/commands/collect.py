"""`python collect.py`: record a data set with a shipped policy or with one of our runs."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from offline_cql.commands.evaluate import load_run, restored_agent
from offline_cql.config import CollectConfig, typed_as
from offline_cql.errors import ConfigError
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader, dataset_path
from offline_cql.render.numbers import format_number
from offline_cql.simulation.collect import record
from offline_cql.simulation.evaluation import behavior_return, greedy_policy, normalized_score

OWN_POLICY = "run:"


def collect(config: DictConfig) -> None:
    """Record, load what was recorded, and say what is in it."""
    settings = typed_as(CollectConfig, config)
    if settings.policy is None:
        name = record(
            settings.env, settings.dataset, seed=settings.seed, overwrite=settings.overwrite
        )
    else:
        name = record_run(settings)
    transitions = load(MinariReader(name))
    mean = behavior_return(transitions)
    table = Table(title=f"{name} · {settings.env.id}", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("transitions", f"{len(transitions):,}")
    table.add_row("episodes", f"{len(transitions.ends):,}")
    table.add_row("return", format_number(mean))
    table.add_row("normalized score", format_number(normalized_score(mean, settings.env)))
    table.add_row("sha256", transitions.sha256[:16])
    console = Console()
    console.print(table)
    console.print(f"stored  {dataset_path(name)}", soft_wrap=True, highlight=False)
    console.print(f"next    minari show {name}", soft_wrap=True, highlight=False)


def record_run(settings: CollectConfig) -> str:
    """Record the deterministic policy of `policy=run:FOLDER` under sim/<env>/<folder's name>-v0."""
    assert settings.policy is not None
    if not settings.policy.startswith(OWN_POLICY):
        raise ConfigError(f"policy={settings.policy} must be run:FOLDER, as policy=run:outputs/…")
    folder = Path(settings.policy.removeprefix(OWN_POLICY))
    run, state = load_run(folder)
    if run.env.id != settings.env.id:
        raise ConfigError(f"policy={settings.policy} was trained for env={run.env.name}")
    return record(
        settings.env,
        settings.dataset,
        seed=settings.seed,
        behavior=greedy_policy(restored_agent(run, state)),
        identifier=f"sim/{settings.env.name}/{folder.resolve().name}-v0",
        overwrite=settings.overwrite,
    )
