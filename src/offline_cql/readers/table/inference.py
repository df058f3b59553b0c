"""A guess at what the columns of a new file are, by their names and types, to be read and pasted.

It reads no values and decides nothing: whoever knows the data checks it. Knows nothing of episodes
or training.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from offline_cql.readers.table.columns import matches
from offline_cql.readers.table.files import files_of, natural, opened
from offline_cql.readers.table.values import is_category, is_text, plain_type

# In the order in which they claim columns: action_probability is a propensity, no action.
WORDS = {
    "reward": "reward rewards rew r payoff profit",
    "terminated": "terminated terminal terminals termination terminations done dones absorbing",
    "truncated": "truncated truncation truncations timeout timeouts",
    "step": "step t timestep tick stage",
    "episode": "episode ep traj trajectory session rollout run trip day date game visit",
    "propensity": "propensity prob probability pscore density likelihood",
    "action": "action act a u control command decision treatment dose setpoint choice arm",
    "observation": "observation obs ob state feature feat features f s x context",
}
SUFFIXES = {"id", "no", "nr", "number", "idx", "index", "key", "time"}
LISTS = ("observation", "action", "next_observation")
OPEN = "FILL_IN"
LONG = 4  # letters from which a word counts inside a longer name: total_reward, is_done


@dataclass(frozen=True)
class Guess:
    """Columns that a part of a step may be, and why; none: nobody can tell."""

    role: str
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Inference:
    """The guesses about a file; found: the types of its columns by name."""

    path: str
    found: dict[str, str]
    guesses: tuple[Guess, ...]

    @property
    def mapping(self) -> dict[str, tuple[str, ...]]:
        """The columns of each part that was found."""
        return {guess.role: guess.names for guess in self.guesses if guess.names}

    def overrides(self) -> list[str]:
        """The settings to type, unquoted."""
        settings = []
        for guess in self.guesses:
            value = ",".join(map(_quoted, self._short(guess.names))) or OPEN
            value = f"[{value}]" if guess.role in LISTS else value
            settings.append(f"dataset.columns.{guess.role}={value}")
        used = {guess.role for guess in self.guesses}
        # A column that has the default's name and was not taken would be taken by its name.
        spared = [role for role in WORDS if role in self.found and role not in used]
        return settings + [f"dataset.columns.{role}=null" for role in spared]

    def text(self) -> str:
        """What each column may be and why, and the command that says so."""
        lines = [f"{self.path}: {len(self.found):,} columns. By their names and types:", ""]
        for guess in self.guesses:
            names = ", ".join(self._short(guess.names)) or "?"
            lines.append(f"  {guess.role:<17}{names}: {guess.reason}")
        used = {name for guess in self.guesses for name in guess.names}
        rest = [f"{name} ({kind})" for name, kind in self.found.items() if name not in used]
        if rest:
            lines.append(f"  {'left out':<17}{', '.join(rest)}")
        command = [
            "python audit.py env=logged dataset=table",
            shlex.quote(f"dataset.path={self.path}"),
        ]
        command += map(shlex.quote, self.overrides())
        lines += ["", "Look through it, mend it, and then:", "", "  " + " \\\n    ".join(command)]
        return "\n".join(lines)

    def _short(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """obs_* for obs_0 … obs_9, where it means exactly these."""
        prefix = re.match(r"\D*", names[0]).group() if names else ""  # type: ignore[union-attr]
        pattern = f"{prefix}*"
        same = len(names) > 2 and prefix and matches(pattern, list(self.found)) == list(names)
        return (pattern,) if same else names


def inferred(path: str) -> Inference:
    """A guess at the mapping of the first of the files. Raises DataError when it is unreadable."""
    schema = opened(files_of(path)[0]).schema
    types = {field.name: plain_type(field.type) for field in schema}
    return Inference(path, {name: str(kind) for name, kind in types.items()}, _guesses(types))


def _guesses(types: dict[str, Any]) -> tuple[Guess, ...]:
    left = {name: kind for name, kind in types.items() if "next" not in _tokens(name)}
    guesses: dict[str, Guess] = {}

    def claim(guess: Guess | None) -> None:
        if guess is not None:
            guesses[guess.role] = guess
            for name in guess.names:
                left.pop(name, None)

    for role, fits in FITTING.items():
        claim(_one(role, {name: kind for name, kind in left.items() if fits(kind)}))
    guesses.setdefault("reward", Guess("reward", (), "no name says so, and there must be one"))
    claim(_actions(left))
    claim(_observations(left))
    claim(_following(guesses["observation"].names, types))
    if not {"episode", "step", "terminated", "truncated"} & set(guesses):
        guesses["episode"] = Guess("episode", (), "no name says where an episode ends")
    return tuple(guesses[role] for role in ROLES if role in guesses)


def _one(role: str, candidates: dict[str, Any]) -> Guess | None:
    """The column whose name is the part's word, else the first with the word in its name."""
    words = WORDS[role].split()
    whole = [name for name in candidates if _core(name, words) in words]
    whole.sort(key=lambda name: words.index(_core(name, words)))
    if whole:
        return Guess(role, (whole[0],), _because(f"it is called {whole[0]}", role))
    if role == "step":
        return None  # steps_walked is none
    for name in candidates:
        if found := [word for word in _tokens(name) if word in words and len(word) >= LONG]:
            return Guess(role, (name,), _because(f"it has {found[0]} in its name", role))
    return None


def _because(reason: str, role: str) -> str:
    both = "; if it also marks time limits, they must be told apart" if role == "terminated" else ""
    return reason + both


def _actions(left: dict[str, Any]) -> Guess:
    names = _several("action", {n: k for n, k in left.items() if _is_number(k) or is_text(k)})
    texts = [name for name, kind in left.items() if is_text(kind)]
    if names:
        reason = "their names say so" if len(names) > 1 else "its name says so"
    elif len(texts) == 1:
        names, reason = tuple(texts), "the only text"
    else:
        maybe = "and take it out of the observations"
        return Guess("action", (), f"no name says so: choose, {maybe}")
    if len(names) > 1 or not is_category(left[names[0]]):
        return Guess("action", names, f"{reason}; amounts")
    other = "" if is_text(left[names[0]]) else ", or amounts with dataset.columns.discrete=false"
    return Guess("action", names, f"{reason}; each value is an action to choose{other}")


def _observations(left: dict[str, Any]) -> Guess:
    numeric = {name: kind for name, kind in left.items() if _is_number(kind)}
    if names := _several("observation", numeric):
        return Guess("observation", names, "their names say so")
    if numeric:
        return Guess("observation", tuple(numeric), "numbers that are nothing else")
    return Guess("observation", (), "no numbers are left, and there must be some")


def _following(observation: tuple[str, ...], types: dict[str, Any]) -> Guess | None:
    """A next column for each observation, or none."""
    partner = {}
    for name in types:
        tokens = _tokens(name)
        if "next" in tokens:
            partner[tuple(token for token in tokens if token != "next")] = name
    names = tuple(partner.get(tuple(_tokens(name)), "") for name in observation)
    if not names or "" in names:
        return None
    return Guess("next_observation", names, "next and an observation's name")


def _several(role: str, candidates: dict[str, Any]) -> tuple[str, ...]:
    """The columns named by one of the words, numbered or not: obs_3, s3, heating_command."""
    words = WORDS[role].split()
    short = {word for word in words if len(word) < 3}
    found = []
    for name in candidates:
        tokens = [token.rstrip("0123456789") for token in _tokens(name)]
        tokens = [token for token in tokens if token]
        alone = len(tokens) == 1 and tokens[0] in words
        if alone or any(token in words and token not in short for token in tokens):
            found.append(name)
    return tuple(sorted(found, key=natural))


def _tokens(name: str) -> list[str]:
    """nextObs_3 as next, obs, 3."""
    spread = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return [token for token in re.split(r"[^a-z0-9]+", spread) if token]


def _core(name: str, words: list[str]) -> str:
    """trajectory_id as trajectory, time_step as step, TimeOut as timeout."""
    tokens = _tokens(name)
    whole = "".join(tokens)
    return whole if whole in words else "".join(t for t in tokens if t not in SUFFIXES)


def _is_number(kind: Any) -> bool:
    known = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return bool(known or pa.types.is_boolean(kind))


def _is_whole(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _tells_apart(kind: Any) -> bool:
    known = pa.types.is_integer(kind) or is_text(kind)
    return bool(known or pa.types.is_date(kind) or pa.types.is_timestamp(kind))


FITTING: dict[str, Callable[[Any], bool]] = {
    "reward": _is_number,
    "terminated": _is_number,
    "truncated": _is_number,
    "step": _is_whole,
    "episode": _tells_apart,
    "propensity": lambda kind: bool(pa.types.is_floating(kind)),
}
ROLES = (*("observation", "action", "next_observation"), *FITTING)


def _quoted(name: str) -> str:
    """A name as Hydra reads it back."""
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*\*?", name, re.ASCII)
    if plain and name.lower() not in {"true", "false", "null", "nan", "inf"}:
        return name
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', name)
    return f'"{escaped}"'
