"""`python collect.py`: record a data set with the project's behavior policies or another one."""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from omegaconf import DictConfig

from offline_cql.commands.load_data import load_transitions, simulator_settings
from offline_cql.commands.load_run import load_agent
from offline_cql.commands.tables import key_value_table
from offline_cql.config import CollectConfig, DatasetConfig, validate_config
from offline_cql.config.data import slug
from offline_cql.config.hydra_internals import split_arguments
from offline_cql.errors import ConfigError, PolicyError
from offline_cql.io import expand_home
from offline_cql.readers import load
from offline_cql.readers.minari.storage import store_transitions
from offline_cql.readers.minari.store import MinariReader, dataset_path, is_stored
from offline_cql.render.command import command
from offline_cql.render.message import print_message
from offline_cql.render.numbers import format_number
from offline_cql.render.terminal import Terminal
from offline_cql.simulation.behavior import RANDOM, Behavior
from offline_cql.simulation.collect import check_recording, dataset_id, record
from offline_cql.simulation.environments import import_package
from offline_cql.simulation.evaluation import behavior_return, greedy_policy, normalized_score
from offline_cql.simulation.rollouts import Array

RUN_PREFIX = "run:"
Policy: TypeAlias = Callable[[Array], Any]  # a flat observation [D] to an action


def collect(config: DictConfig) -> str:
    """Record a data set in the local Minari store, print a table of its contents, return its id."""
    settings = validate_config(CollectConfig, config)
    is_table = settings.dataset.source == "table"
    identifier = store_table(settings) if is_table else record_once(settings)
    transitions = load(MinariReader(identifier))
    mean_return = behavior_return(transitions)
    source = settings.dataset.path if is_table else settings.env.id
    table = key_value_table(f"{identifier} · {source}")
    table.add_row("transitions", f"{len(transitions):,}")
    table.add_row("episodes", f"{len(transitions.ends):,}")
    table.add_row("mean return", format_number(mean_return))
    table.add_row("normalized score", format_number(normalized_score(mean_return, settings.env)))
    table.add_row("sha256", transitions.sha256[:16])
    terminal = Terminal()
    terminal.print_table(table)
    terminal.print_field("stored", str(dataset_path(identifier)))
    terminal.print_field("next", train_command(sys.argv[1:], identifier))
    return identifier


def store_table(settings: CollectConfig) -> str:
    """Write a table into the local store unless it is there already; return its id."""
    dataset = settings.dataset
    identifier = dataset.id or f"logs/{slug(Path(str(dataset.path)).stem)}-v0"
    if is_stored(identifier) and not settings.overwrite:
        print(f"{identifier} is already stored; overwrite=true writes it again")
        return identifier
    transitions = load_transitions(settings.env, dataset)
    for name in ("propensities", "durations"):
        if getattr(transitions, name) is not None:
            print_message(f"warning: Minari has no place for {name}: they are left out")
    store_transitions(transitions, identifier, overwrite=settings.overwrite)
    return identifier


def record_once(settings: CollectConfig, policy: Policy | None = None) -> str:
    """Record a data set unless it is stored already; return its id.

    policy: acts instead of settings.policy.
    """
    import_package(settings.env.package)
    if policy is None:
        dataset, behavior = choose_behavior(settings)
    else:
        name = getattr(policy, "__name__", "")
        name = name if name.isidentifier() else "policy"  # a lambda, an object
        dataset, behavior = named(settings, name), behavior_of(policy, name)
    is_typed = settings.dataset.id != plain_id(settings, str(settings.dataset.quality))
    identifier = str(settings.dataset.id) if is_typed else dataset_id(dataset)
    env, seed, overwrite = settings.env, settings.seed, settings.overwrite
    if is_stored(identifier) and not overwrite:
        check_recording(identifier, env, dataset.size, seed)
        same = "" if behavior is None else ", by a policy of this name"
        print(f"{identifier} is already recorded{same}; overwrite=true records it again")
    else:
        record(
            env, dataset, seed=seed, behavior=behavior, overwrite=overwrite, identifier=identifier
        )
    return identifier


def plain_id(settings: CollectConfig, quality: str) -> str:
    """Return the id sim/<environment>/<quality>-v0, which has no size."""
    return f"sim/{settings.env.name}/{quality}-v0"


def train_command(arguments: Sequence[str], identifier: str) -> str:
    """Return the command that trains on recorded data, in the environment of the arguments."""
    folder, overrides = split_arguments(arguments)
    environment = [word for word in overrides if word.lstrip("+").startswith(("env=", "env."))]
    data = ("dataset=minari", ("dataset.id", identifier))
    return command("train.py", *folder, *environment, *data)


def choose_behavior(settings: CollectConfig) -> tuple[DatasetConfig, Behavior | None]:
    """Return the data set to record, with its id, and the policy that acts in it.

    The policy is None where the project has it: random, or the mixture of dataset.quality.
    """
    dataset, policy = settings.dataset, settings.policy
    if policy is None:
        return dataset, None
    if policy == RANDOM:
        return named(settings, RANDOM), None
    if policy.startswith(RUN_PREFIX):
        folder = expand_home(policy.removeprefix(RUN_PREFIX), "write an absolute path")
        return named(settings, folder.resolve().name), policy_of_run(settings, folder)
    module, separator, name = policy.partition(":")
    if not separator:
        raise ConfigError(
            f"policy={policy} must be random, run:FOLDER or module:function, for example "
            "policy=run:outputs/…"
        )
    return named(settings, name), behavior_of(import_policy(policy, module, name), policy)


def named(settings: CollectConfig, quality: str) -> DatasetConfig:
    """Return the section `dataset` with another quality and its id."""
    update = {"quality": quality, "id": plain_id(settings, quality)}
    return settings.dataset.model_copy(update=update)


def policy_of_run(settings: CollectConfig, folder: Path) -> Behavior:
    """Return the deterministic policy of a run in the same environment."""
    run, agent = load_agent(folder)
    if simulator_settings(run.env, run.dataset).id != settings.env.id:
        raise ConfigError(
            f"policy={settings.policy} was trained in env={run.env.name}; choose env={run.env.name}"
        )
    return greedy_policy(agent)


def import_policy(policy: str, module: str, name: str) -> Policy:
    """Return a function of the user's: a flat observation to an action."""
    try:
        function: Policy = getattr(importlib.import_module(module), name)
    except Exception as error:  # of code that is not ours
        raise ConfigError(
            f"policy={policy} cannot be imported ({type(error).__name__}: {error}): install the "
            "module, or add the folder that contains it to PYTHONPATH"
        ) from error
    return function


def behavior_of(policy: Policy, name: str) -> Behavior:
    """Return the behavior that calls a policy for each observation."""

    def act(observations: Array, indices: Array, starts: Array) -> Array:
        try:
            return np.array([policy(observation) for observation in observations])
        except Exception as error:
            raise PolicyError(f"policy={name} raised {error!r}") from error

    return act
