"""`python collect.py`: record a data set with a shipped behavior policy or with a run's policy."""

from omegaconf import DictConfig

from offline_cql.commands.load_data import simulator_settings
from offline_cql.commands.load_run import load_agent
from offline_cql.commands.tables import key_value_table
from offline_cql.config import CollectConfig, validate_config
from offline_cql.errors import ConfigError
from offline_cql.io import expand_home
from offline_cql.readers import load
from offline_cql.readers.minari.store import MinariReader, dataset_path
from offline_cql.render.command import command
from offline_cql.render.numbers import format_number
from offline_cql.render.terminal import Terminal
from offline_cql.simulation.collect import record
from offline_cql.simulation.evaluation import behavior_return, greedy_policy, normalized_score

RUN_PREFIX = "run:"


def collect(config: DictConfig) -> None:
    """Record a data set in the local Minari store, load it and print a table of its contents."""
    settings = validate_config(CollectConfig, config)
    if settings.policy is None:
        dataset_id = record(
            settings.env, settings.dataset, seed=settings.seed, overwrite=settings.overwrite
        )
    else:
        dataset_id = record_run(settings, settings.policy)
    transitions = load(MinariReader(dataset_id))
    mean_return = behavior_return(transitions)
    table = key_value_table(f"{dataset_id} · {settings.env.id}")
    table.add_row("transitions", f"{len(transitions):,}")
    table.add_row("episodes", f"{len(transitions.ends):,}")
    table.add_row("mean return", format_number(mean_return))
    table.add_row("normalized score", format_number(normalized_score(mean_return, settings.env)))
    table.add_row("sha256", transitions.sha256[:16])
    terminal = Terminal()
    terminal.print(table)
    terminal.print_field("stored", str(dataset_path(dataset_id)))
    terminal.print_field("next", command("minari", "show", dataset_id))


def record_run(settings: CollectConfig, policy: str) -> str:
    """Record the deterministic policy of `run:FOLDER` as data set sim/<env>/<folder name>-v0."""
    if not policy.startswith(RUN_PREFIX):
        raise ConfigError(f"policy={policy} must be run:FOLDER, for example policy=run:outputs/…")
    folder = expand_home(policy.removeprefix(RUN_PREFIX), "write an absolute path")
    run, agent = load_agent(folder)
    if simulator_settings(run.env, run.dataset).id != settings.env.id:
        raise ConfigError(
            f"policy={policy} was trained in env={run.env.name}; choose env={run.env.name}"
        )
    return record(
        settings.env,
        settings.dataset,
        seed=settings.seed,
        behavior=greedy_policy(agent),
        identifier=f"sim/{settings.env.name}/{folder.resolve().name}-v0",
        overwrite=settings.overwrite,
    )
