"""Names of run folders: what was typed, in characters that Hydra and the shell take unquoted."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

LONGEST_LABEL, LONGEST_NAME = 40, 100  # characters
PATHS = ("dataset.path",)  # named by the file alone
# In the folders above, at the end, or of no influence on what is learned.
ELSEWHERE = ("env", "dataset", "dataset.name", "dataset.quality", "algorithm", "seed")
NEUTRAL = ("run_dir", "resume", "log_every", "checkpoint_every", "logger", "hardware", "evaluation")


def label(*values: Any) -> str:
    """Return the first value that is not null as part of a path; of a path the file's name."""
    for value in values:
        for part in reversed(PurePath(str(value)).parts if value is not None else ()):
            if text := _plain(PurePath(part).stem):
                return text
    return "unnamed"


def typed_name(seed: int) -> str:
    """Return `alpha_0.1-seed_0`: the overrides of this job, and the seed."""
    if not HydraConfig.initialized():
        return run_name([], seed=seed)
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return run_name(cast("list[str]", overrides), seed=seed)


def run_name(overrides: Sequence[str], *, seed: int) -> str:
    """Return a name of at most LONGEST_NAME characters; overrides beyond it are left out."""
    typed = [text.lstrip("+~").partition("=") for text in overrides]
    pairs = [(key, value) for key, _, value in typed if key not in ELSEWHERE]
    pairs = [pair for pair in pairs if pair[0].partition(".")[0] not in (*NEUTRAL, "hydra")]
    last = Counter(key.rpartition(".")[2] for key, _ in pairs)
    items: list[str] = []
    end = f"seed_{seed}"
    for key, value in pairs:
        name = key.rpartition(".")[2]
        shown = key if last[name] > 1 else name
        item = label(value) if key in PATHS else f"{_plain(shown)}_{_plain(value)}"
        if len("-".join([*items, item, end])) > LONGEST_NAME:
            break
        items.append(item)
    return "-".join([*items, end])


def _plain(text: str) -> str:
    """Return text in letters, digits and the signs . _ - that need no quotes anywhere."""
    return re.sub(r"[^A-Za-z0-9.\-]+", "_", text).strip("_.-")[:LONGEST_LABEL]


OmegaConf.register_new_resolver("label", label, replace=True)
OmegaConf.register_new_resolver("typed", typed_name, replace=True)
