"""Gymnasium environments with flat observations, made from an id or from the settings."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from offline_cql.config import EnvConfig
from offline_cql.errors import ConfigError, SimulatorError, explain
from offline_cql.spaces import FlatObservation, PartObservation, flat_spaces
from offline_cql.stop_signals import deferred
from offline_cql.transitions import Spaces

Environment: TypeAlias = "gym.Env[Any, Any]"

_imported: set[str] = set()  # packages that the user named

# Extra of this package, and the package of environments that it installs; the lighter one first.
EXTRAS = {"minigrid": "minigrid", "robotics": "gymnasium_robotics"}


def make_environments(
    env_id: str,
    count: int,
    *,
    observation_keys: Sequence[str] | None = None,
    shift: Sequence[float] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> list[Environment]:
    """Make `count` instances of a registered environment, with flat observations.

    observation_keys: the keys used of a Dict observation, None for all; shift: added to the first
    elements of the flat observation (data in other coordinates); arguments: of gym.make.
    Raises ConfigError if there is no such environment, SimulatorError if it cannot be made, and
    DataError for an observation that cannot be flattened.
    """
    _register(env_id)
    try:
        entry_point = gym.spec(env_id).entry_point
        if isinstance(entry_point, str):
            with deferred():  # glfw, of MuJoCo, starts a process when imported: it must end first
                load_env_creator(entry_point)
        environments = [
            gym.make(env_id, disable_env_checker=True, **(arguments or {})) for _ in range(count)
        ]
    except Exception as error:  # the code of an environment, which may refuse an argument anyhow
        if explain(error) is not None and not isinstance(error, OSError):
            raise
        name, reason = type(error).__name__, str(error).strip().rstrip(".")
        is_gymnasium = isinstance(error, gym.error.Error)
        reason = reason if is_gymnasium else f"{name}: {reason}" if reason else name
        unknown = isinstance(error, gym.error.UnregisteredEnv | gym.error.DeprecatedEnv)
        raise (ConfigError if unknown else SimulatorError)(
            f"environment {env_id!r} cannot be made: {reason}; check env.id and env.arguments"
        ) from error
    return [_flat(environment, observation_keys, shift) for environment in environments]


def import_package(name: str | None) -> None:
    """Import a package that registers environments, because the user named it; None: do nothing.

    Nothing else may call this: a run folder or a data set can name any package. Raises ConfigError.
    """
    if name is None or name in _imported:
        return
    try:
        with deferred():
            gym.register_envs(importlib.import_module(name))
    except Exception as error:  # of code that is not ours
        raise ConfigError(
            f"env.package={name} cannot be imported ({type(error).__name__}: {error}): "
            f"{_import_remedy(name, error)}"
        ) from error
    _imported.add(name)


def _import_remedy(name: str, error: Exception) -> str:
    """Return what to do about a package that cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and name.startswith(str(error.name)):
        return "install it, or add the folder that contains it to PYTHONPATH"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"correct the package, {frame.filename} at line {frame.lineno}"


def imported_packages() -> frozenset[str]:
    """Return the packages that the user named, for another process of the same command."""
    return frozenset(_imported)


def _register(env_id: str) -> None:
    """Import the optional packages, one after the other, until the environment is registered."""
    missing = []
    for extra, package in EXTRAS.items():
        if env_id in gym.registry:
            return
        try:
            gym.register_envs(importlib.import_module(package))
        except ModuleNotFoundError as error:
            if error.name != package:  # an error inside the package
                raise
            missing.append(f"pip install 'offline-cql[{extra}]'")
    if env_id not in gym.registry and missing:
        try:
            gym.spec(env_id)  # raises with a hint if another version is registered
        except gym.error.Error as error:
            reason = str(error).rstrip(".")
            remedy = " or ".join(missing)
            raise ConfigError(
                f"{reason}; packages that may have it: {remedy}, or one of yours: "
                "env.package=PACKAGE"
            ) from error


def _flat(
    environment: Environment, keys: Sequence[str] | None, shift: Sequence[float] | None
) -> Environment:
    space = environment.observation_space
    plain = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
    changed = not plain or keys is not None or shift
    return FlatObservation(environment, keys, shift or ()) if changed else environment


def make_simulators(env: EnvConfig, count: int) -> list[Environment]:
    """Make `count` of the simulators described by `env`. Raises as `make_environments` does.

    Raises ConfigError for one of a package that the user did not name.
    """
    assert env.id is not None  # validation allows no rollouts without a simulator
    if env.package is not None and env.package not in _imported:
        raise ConfigError(
            f"the simulator {env.id} needs the package {env.package}, which is only imported if "
            f"you name it: add env.package={env.package}"
        )
    keys, shift = env.observation_keys, env.observation_shift
    environments = make_environments(
        env.id, count, observation_keys=keys, shift=shift, arguments=env.arguments
    )
    columns, constants = env.observation_columns, env.observation_constants or []
    if columns is None:
        return environments
    return [PartObservation(e, columns, constants) for e in environments]


def spaces_of(env: Environment) -> Spaces:
    """Return the sizes and bounds of an environment. Raises DataError for unsupported spaces."""
    return flat_spaces(env.observation_space, env.action_space)
