"""The full keys of all settings, and the closest one to a key that does not exist."""

import difflib
import types
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Union, get_args, get_origin

from offline_cql.config.section import Section

# What other projects with Lightning and Hydra call things, and the settings here.
ELSEWHERE = (
    (
        ("trainer",),
        ("updates", "hardware.devices", "hardware.precision"),
        "Lightning's Trainer is set by",
    ),
    (
        ("callbacks", "callback"),
        ("checkpoint_every", "evaluation.every", "log_every"),
        "callbacks are part of the program; their settings are",
    ),
    (
        ("datamodule", "data"),
        ("dataset.path", "batch_size"),
        "the source of data is dataset=..., further settings are",
    ),
    (
        ("model", "net", "agent"),
        ("network.actor_hidden", "network.critic_hidden"),
        "the method is algorithm=..., the networks are network=..., further settings are",
    ),
    (
        ("optimizer", "optim", "lr", "learning_rate", "scheduler"),
        ("cql.actor_learning_rate", "cql.critic_learning_rate"),
        "learning rates are set by",
    ),
    (("epochs", "max_epochs", "max_steps", "steps"), ("updates",), "the length of a run is"),
    (("ckpt_path", "checkpoint"), ("resume",), "a run is continued by"),
    (("paths", "output_dir", "save_dir"), ("run_dir",), "the folder of a run is"),
)

SECRETS = ("api_key", "apikey", "token", "password", "secret")


def holds_secret(key: str) -> bool:
    """Return whether the value of a key is to be kept out of files and loggers, by its name."""
    return any(word in key.lower() for word in SECRETS)


def without_secrets(tree: Any) -> Any:
    """Return plain values without the keys that hold secrets, at any depth."""
    if isinstance(tree, list | tuple):
        return type(tree)(without_secrets(item) for item in tree)
    if not isinstance(tree, dict):
        return tree
    return {k: without_secrets(v) for k, v in tree.items() if not holds_secret(str(k))}


def setting_keys(schema: type[Section]) -> list[str]:
    """Return the full keys of a section's settings, nested ones included: cql.alpha."""
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        if nested := subsection(field.annotation):
            keys += [f"{name}.{inner}" for inner in setting_keys(nested)]
            continue
        keys.append(name)
        if get_origin(field.annotation) is dict:  # any key may follow
            keys.append(f"{name}.*")
    return keys


def subsection(hint: Any) -> type[Section] | None:
    """Return the section that a field's type names, also where it may be null."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full key and the value of each leaf; an empty mapping is one."""
    if not isinstance(tree, dict) or not tree:
        yield key, tree
        return
    for name, value in tree.items():
        yield from leaves(value, f"{key}.{name}" if key else str(name))


def key_exists(key: str, keys: list[str]) -> bool:
    """Return whether the key is that of a setting or of a section."""
    return any(setting.startswith(f"{key}.") or fnmatchcase(key, setting) for setting in keys)


def unknown_key(key: str, keys: list[str]) -> str:
    """Return the message about a key that does not exist, with the closest one that does."""
    for words, settings, sentence in ELSEWHERE:
        if key.partition(".")[0] in words and all(name in keys for name in settings):
            return f"{key} is unknown; {sentence}: {', '.join(settings)}"
    close = closest(key, keys)
    hint = f"did you mean {close}?" if close else "--help lists what people change, --cfg job all"
    return f"{key} is unknown; {hint}"


def closest(key: str, keys: list[str]) -> str | None:
    """Return the existing key most similar to this one: in whole, then in its last part."""
    leaves: dict[str, str] = {}
    for candidate in keys:
        leaves.setdefault(candidate.rpartition(".")[2], candidate)
    last = key.rpartition(".")[2]
    if last in leaves:
        return leaves[last]
    for word, words in ((key, list(keys)), (last, list(leaves))):
        if match := difflib.get_close_matches(word, words, n=1, cutoff=0.6):
            return leaves.get(match[0], match[0])
    return None
