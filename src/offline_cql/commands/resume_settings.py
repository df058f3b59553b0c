"""The settings that may change when a run is resumed: those that change no weight."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from offline_cql.errors import ConfigError

# Settings and sections that no weight depends on; `updates` may only be raised.
FREE = ("updates", "log_every", "checkpoint_every", "evaluation", "logger")
FREE_OF_HARDWARE = ("updates_per_step", "rank_timeout")
OF_THE_FOLDER = ("run_dir", "resume")
PACKAGE = "env.package"  # named again, so that it may be imported; it must be the run's


def changed_settings(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings typed with resume=, nested as in config.yaml.

    config: composed from the overrides and the defaults. The rest of it is not that of the run.
    Raises ConfigError for a setting that the weights depend on.
    """
    changes = OmegaConf.create({})
    for override in overrides:
        key = override.partition("=")[0]
        section, _, name = key.partition(".")
        if key in ("resume", PACKAGE):
            continue
        if section not in FREE and (section != "hardware" or name not in FREE_OF_HARDWARE):
            free = ", ".join((*FREE, *(f"hardware.{name}" for name in FREE_OF_HARDWARE)))
            raise ConfigError(
                f"{key} cannot be changed with resume=; a run continues with its own settings "
                f"(these may change: {free})"
            )
        # evaluation=none is evaluation.episodes=0: the other settings of its options are the run's.
        path = "evaluation.episodes" if key == "evaluation" else key
        OmegaConf.update(changes, path, OmegaConf.select(config, path))
    return to_dict(changes)


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return a config as plain values, with interpolations resolved."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def fixed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings, as plain values, that a checkpoint and its run must share."""
    fixed = {k: value for k, value in settings.items() if k not in (*FREE, *OF_THE_FOLDER)}
    hardware = {k: v for k, v in fixed["hardware"].items() if k not in FREE_OF_HARDWARE}
    if hardware.get("threads") is None:  # a run from before this setting
        hardware.pop("threads", None)
    return fixed | {"hardware": hardware}
