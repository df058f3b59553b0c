"""Recording of simulated data sets: behavior policies stepped in environments, in Minari's format.

A second process that needs the same data set waits and then uses it.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer

from offline_cql.config import DatasetConfig, EnvConfig
from offline_cql.config.keys import without_secrets
from offline_cql.errors import DataError
from offline_cql.io import read_json
from offline_cql.random_streams import RandomStream
from offline_cql.readers.minari.storage import write_dataset, writing
from offline_cql.readers.minari.store import STORE_REMEDY, dataset_path, is_stored, store_root
from offline_cql.render.message import print_message
from offline_cql.render.numbers import format_size, format_spread
from offline_cql.render.progress import ProgressBar
from offline_cql.simulation.behavior import Behavior, Component, mixture
from offline_cql.simulation.environments import Environment, make_simulators, spaces_of
from offline_cql.simulation.rollouts import Episode, roll_out

ENVIRONMENTS = 10  # stepped side by side; each makes a tenth of the steps
PLAIN_SIZE = 100_000  # transitions; any other size is named in the id


def dataset_id(dataset: DatasetConfig) -> str:
    """Return the id of a recording: sim/hopper/medium-v0, or …/medium_5000-v0 by size."""
    assert dataset.id is not None  # conf/dataset/simulated.yaml names it
    if dataset.size == PLAIN_SIZE:
        return dataset.id
    name, _, version = dataset.id.rpartition("-v")
    return f"{name}_{dataset.size}-v{version}"


def ensure_recorded(env: EnvConfig, dataset: DatasetConfig, *, seed: int = 0) -> str:
    """Return the id of a simulated data set; record it if the local store lacks it."""
    identifier = dataset_id(dataset)
    if not is_stored(identifier):
        with writing(identifier):
            if not is_stored(identifier):  # another process may have recorded it meanwhile
                _record(env, dataset, identifier, seed, None)
    return identifier


def record(
    env: EnvConfig,
    dataset: DatasetConfig,
    *,
    seed: int = 0,
    behavior: Behavior | None = None,
    overwrite: bool = False,
    identifier: str | None = None,
) -> str:
    """Record exactly dataset.size steps into the local store; return the id.

    behavior: the policy that acts; None: the mixture of dataset.quality. identifier: the id; None:
    `dataset_id`.
    Raises DataError if the id exists and overwrite is False, PolicyError and SimulatorError from
    the rollouts; the store is then unchanged.
    """
    name = identifier or dataset_id(dataset)
    with writing(name):
        if is_stored(name) and not overwrite:
            raise DataError(f"data set {name} is already recorded; overwrite=true records it again")
        _record(env, dataset, name, seed, behavior)
    return name


def _record(
    env: EnvConfig, dataset: DatasetConfig, name: str, seed: int, behavior: Behavior | None
) -> None:
    assert env.id is not None
    assert dataset.quality is not None
    assert dataset.size is not None
    components = (
        mixture(env.name, dataset.quality)
        if behavior is None
        else (Component("policy", 1.0, lambda *_: behavior),)
    )
    environments = make_simulators(env, min(ENVIRONMENTS, dataset.size))
    try:
        _check_disk_space(environments[0], dataset.size, name)
        episodes, parts = _roll_out_mixture(environments, components, dataset.size, seed, name)
        spec = environment_spec(env)
        write_dataset(
            name,
            environments[0].observation_space,
            environments[0].action_space,
            [_buffer(episode) for episode in episodes],
            _metadata(env, spec, name, seed, parts),
            spec=spec,
        )
    finally:
        for environment in environments:
            environment.close()


def _check_disk_space(environment: Environment, size: int, name: str) -> None:
    """Raise DataError if the disk of the store, or the memory, cannot hold `size` steps."""
    spaces = spaces_of(environment)
    width = spaces.observation_dim + (1 if spaces.discrete else spaces.action_dim) + 1
    needed, free = 4 * width * size, shutil.disk_usage(store_root()).free
    if needed > free:
        raise DataError(
            f"{name} would need {format_size(needed)} in {store_root()}, {format_size(free)} are "
            f"free: choose a smaller dataset.size, or {STORE_REMEDY}"
        )


def _roll_out_mixture(
    environments: Sequence[Environment],
    components: Sequence[Component],
    size: int,
    seed: int,
    name: str,
) -> tuple[list[Episode], list[dict[str, Any]]]:
    spaces, count = spaces_of(environments[0]), len(environments)
    ends = np.rint(np.cumsum([component.share for component in components]) * size).astype(int)
    episodes: list[Episode] = []
    parts: list[dict[str, Any]] = []
    with ProgressBar(f"recording {name}", size) as bar:
        for index, component in enumerate(components):
            steps = int(ends[index] - (ends[index - 1] if index else 0))
            entropy = np.random.SeedSequence([seed, RandomStream.COLLECTION, index])
            policy = component.build(spaces, count, np.random.default_rng(entropy))
            quotas = [steps // count + (i < steps % count) for i in range(count)]
            component_episodes = roll_out(
                environments,
                policy,
                seed=int(entropy.generate_state(1)[0]),
                steps_each=quotas,
                on_step=lambda steps, _ended: bar.advance(steps),
            )
            episodes += component_episodes
            parts.append(_part(component.name, steps, component_episodes))
    # Shuffled, so that any range of episodes has some of each component.
    order = np.random.default_rng([seed, RandomStream.COLLECTION]).permutation(len(episodes))
    return [episodes[index] for index in order], parts


def _part(name: str, steps: int, episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return the contribution of one component; its return is that of the uncut episodes."""
    returns = [episode.return_ for episode in episodes if not episode.cut]
    mean, std = (float(np.mean(returns)), float(np.std(returns))) if returns else (None, None)
    counts = {"name": name, "steps": steps, "episodes": len(episodes)}
    return counts | {"return_mean": mean, "return_std": std}


def _describe(part: dict[str, Any]) -> str:
    text = f"{part['name']}: {part['steps']:,} steps"
    if part["return_mean"] is None:
        return text
    return f"{text}, return {format_spread(part['return_mean'], part['return_std'])}"


def _metadata(
    env: EnvConfig, spec: EnvSpec | None, name: str, seed: int, parts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    size = sum(part["steps"] for part in parts)
    behavior = "; ".join(map(_describe, parts))
    metadata: dict[str, Any] = {
        "dataset_id": name,
        "algorithm_name": f"behavior policies: {', '.join(part['name'] for part in parts)}",
        "author": {"offline_cql"},
        "minari_version": minari.__version__,
        "description": (
            f"{_content(env, size, seed)}. "
            f"Behavior (mean ± standard deviation over whole episodes): {behavior}."
        ),
        "behavior": list(parts),
        "recording_seed": seed,
    }
    metadata |= {} if spec is None else {"eval_env_spec": spec.to_json()}
    if env.reference_min is not None and env.reference_max is not None:
        metadata |= {"ref_min_score": env.reference_min, "ref_max_score": env.reference_max}
    return metadata


def _content(env: EnvConfig, size: int, seed: int) -> str:
    """Return what a recording contains, as its description begins."""
    return f"{size:,} steps of {env.id}, recorded with seed {seed}"


def check_recording(name: str, env: EnvConfig, size: int | None, seed: int) -> None:
    """Raise DataError unless a stored recording is of this environment, size and seed."""
    assert size is not None
    metadata = read_json(dataset_path(name) / "data" / "metadata.json")
    found, wanted = str(metadata.get("description")), _content(env, size, seed)
    spec = metadata.get("env_spec")
    stored = None if spec is None else json.loads(spec).get("kwargs", {})
    asked = environment_spec(env)
    arguments = None if asked is None else json.loads(asked.to_json())["kwargs"]
    differ = None not in (stored, arguments) and stored != arguments
    if not found.startswith(f"{wanted}.") or differ:
        other = "other env.arguments" if found.startswith(f"{wanted}.") else found.partition(".")[0]
        raise DataError(
            f"{name} is already recorded, but not as {wanted}: {other}; set another dataset.id, or "
            "overwrite=true to record it again"
        )


def environment_spec(env: EnvConfig) -> EnvSpec | None:
    """Return Gymnasium's description of the environment, with its arguments but secret ones.

    None, with a warning, for an environment of objects that have no name to import them by.
    """
    spec = copy.deepcopy(gym.spec(str(env.id)))
    spec.kwargs |= without_secrets(env.arguments)
    spec.entry_point = _importable(spec.entry_point)
    try:
        spec.to_json()
    except (ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        print_message(
            f"warning: Minari cannot make the environment from the data set ({reason}): pass "
            "eval_env to recover_environment, or register the class by module:name"
        )
        return None
    return spec


def _importable(entry_point: Any) -> Any:
    """Return a class or function as `module:name` if that imports it."""
    module, name = (getattr(entry_point, key, "") for key in ("__module__", "__qualname__"))
    is_importable = getattr(sys.modules.get(module), name, None) is entry_point
    return f"{module}:{name}" if name and is_importable else entry_point


def _buffer(episode: Episode) -> EpisodeBuffer:
    return EpisodeBuffer(
        seed=episode.seed,
        observations=episode.observations,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminated,
        truncations=episode.truncated,
        infos={},
    )
