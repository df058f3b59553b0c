"""Suggested mapping of a new file's columns, from names, types and first rows, to review and paste.

Someone who knows the data has to review it: a column's values do not say when they were known.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from offline_cql.config.data import LISTS, SEQUENCE
from offline_cql.features import EXPRESSION
from offline_cql.readers.table.actions import may_be_choices
from offline_cql.readers.table.arrow_types import (
    is_category,
    is_integer_or_float,
    is_number,
    is_text,
    is_time,
)
from offline_cql.readers.table.files import Table, match_columns, natural_key, open_tables
from offline_cql.readers.table.profiles import Profile, marks_last_rows, profiles
from offline_cql.readers.table.selection import Selection
from offline_cql.readers.table.values import nullable_numbers
from offline_cql.readers.writer import CHUNK, FEW_VALUES, few_values
from offline_cql.render.command import command, hydra_value, shell_word
from offline_cql.render.message import printable

# In the order in which they claim columns: action_probability is a propensity, not an action.
WORDS = {
    "reward": "reward rewards rew r payoff profit",
    "terminated": "terminated terminateds terminal terminals termination terminations done dones "
    "absorbing",
    "truncated": "truncated truncateds truncation truncations timeout timeouts",
    "step": "step t timestep tick stage",
    "episode": "episode ep traj trajectory session rollout run trip day date game visit eps unroll "
    "stay admission encounter patient subject",
    "propensity": "propensity prob probability pscore density likelihood",
    "action": "action actions act a u control command decision treatment dose setpoint choice arm",
    "observation": "observation observations obs ob state states feature feat features f s x "
    "context",
}
# Names of RLlib, d3rlpy, tianshou, LeRobot and Open Bandit that their words do not give.
LIBRARIES = {
    "next.reward": ("reward", "LeRobot's name"),
    "next.done": ("terminated", "LeRobot's name; true at time limits too"),
    "frame_index": ("step", "LeRobot's name"),
    "episode_index": ("episode", "LeRobot's name"),
    "item_id": ("action", "Open Bandit's name"),
    "click": ("reward", "Open Bandit's name"),
}
INDEX = {"", "index", "unnamed: 0", "__index_level_0__", "rownames", "row_id"}
# Words in names of what is known after the action only; the outcomes may be a reward.
OUTCOMES = {"outcome", "revenue", "profit", "conversion", "converted", "click", "clicked", "sales"}
AFTER = OUTCOMES | {"success", "returns", "advantages", "targets", "vf", "future", "purchased"}
BEFORE = {"last", "lag", "lagged", "prev", "previous", "past", "before"}  # sales_last_week
SUFFIXES = {"id", "no", "nr", "number", "idx", "index", "key", "time"}
NEXT = ("next", "new")  # RLlib's new_obs
NO_ACTION = {"logp", "log", "dist", "prev", "previous", "mask"}  # action_logp, prev_actions
MAY_LACK = ("observation", "action", "reward", "propensity")  # values, with dataset.missing
PLACEHOLDER = "FILL_IN"
LONGEST_SETTINGS = 600  # characters in a message
MOST_TEXTS = 50  # different ones of a category
MIN_LENGTH = 4  # of words that count inside a longer name: total_reward, is_done


@dataclass(frozen=True)
class Guess:
    """Suggested columns for a role, and the reason; no names: no suggestion."""

    role: str
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Inference:
    """The suggestions for a file; types: those of its columns by name.

    left_out: reasons by column. ambiguous: action columns of few whole numbers, which need
    dataset.columns.discrete.
    """

    path: str
    types: dict[str, str]
    guesses: tuple[Guess, ...]
    left_out: dict[str, str]
    ambiguous: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()  # observed columns of text
    gaps: tuple[str, ...] = ()  # mapped columns that lack values

    @property
    def mapping(self) -> dict[str, tuple[str, ...]]:
        """The suggested columns by role."""
        return {guess.role: guess.names for guess in self.guesses if guess.names}

    def overrides(self) -> list[str]:
        """Return the settings for the command line, without shell quotes."""
        settings = []
        for guess in self.guesses:
            value = ",".join(map(hydra_value, self._short(guess.names))) or PLACEHOLDER
            value = f"[{value}]" if guess.role in LISTS else value
            settings.append(f"dataset.columns.{guess.role}={value}")
        if self.categories:
            names = ",".join(map(hydra_value, self._short(self.categories)))
            settings.append(f"dataset.columns.categories=[{names}]")
        if self.gaps:
            settings.append("dataset.missing=fill")
        if self.ambiguous:
            settings.append(f"dataset.columns.discrete={PLACEHOLDER}")
        used = {guess.role for guess in self.guesses}
        # An unused column with the default name of a role would otherwise be used by default.
        unused = [role for role in WORDS if role in self.types and role not in used]
        return settings + [f"dataset.columns.{role}=null" for role in unused]

    @classmethod
    def of(cls, path: str, schema: Any, table: Table | None = None) -> Inference:
        """Return the suggestions for an Arrow schema, and the values of a table."""
        types = {field.name: field.type for field in schema}
        guessing = _Guesses(types, profiles(table) if table else {}, table)
        guesses, left_out = guessing.all()
        texts = [name for name in guessing.mapped("observation") if is_text(types[name])]
        named = {name: str(kind) for name, kind in types.items()}
        used = [name for role in MAY_LACK for name in guessing.mapped(role)]
        gaps = tuple(n for n in used if n in guessing.profiles and guessing.profiles[n].missing)
        return cls(path, named, guesses, left_out, categories=tuple(texts), gaps=gaps)

    def settings(self, *, one_step: bool) -> list[str] | None:
        """Return the settings for a message; None if they are incomplete or too long.

        one_step: without those of columns that say how rows follow each other.
        """
        settings = [
            setting
            for setting in self.overrides()
            if not (one_step and setting.partition("=")[0].rpartition(".")[2] in SEQUENCE)
        ]
        text = " ".join(settings)
        return None if PLACEHOLDER in text or len(text) > LONGEST_SETTINGS else settings

    def text(self) -> str:
        """Return the suggestions with their reasons, and the command with the settings."""
        used = {name for guess in self.guesses for name in guess.names}
        rows = {
            guess.role: f"{', '.join(self._short(guess.names)) or '?'}: {guess.reason}"
            for guess in self.guesses
        }
        if self.ambiguous:
            few = ", ".join(self._short(self.ambiguous))
            rows["discrete"] = f"?: true for choices, false for amounts; few whole numbers in {few}"
        if self.categories:
            shown = ", ".join(self._short(self.categories))
            rows["categories"] = f"{shown}: few different texts, one-hot encoded"
        if self.gaps:
            shown = ", ".join(self._short(self.gaps))
            rows["missing"] = f"fill: {shown} lack values; or drop, forward, or leave them out"
        used |= self.left_out.keys()
        if self.left_out:
            reasons = self.left_out.items()
            rows["left out"] = ", ".join(f"{name or '(unnamed)'} ({why})" for name, why in reasons)
        if unused := [f"{name} ({kind})" for name, kind in self.types.items() if name not in used]:
            rows["unused"] = ", ".join(unused)
        head = command("audit.py", "env=logged", "dataset=table")
        path = f"dataset.path={hydra_value(self.path)}"
        settings = map(shell_word, [path, *self.overrides()])
        return "\n".join(
            [
                f"{printable(self.path)}: {len(self.types):,} columns. "
                "Suggested mapping, by names, types and first rows:",
                "",
                *(f"  {role:<17}{printable(text)}" for role, text in rows.items()),
                *("", "Review and edit the mapping, then run:", ""),
                "  " + " \\\n    ".join([head, *settings]),
            ]
        )

    def _short(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return obs_* for obs_0 … obs_9 if the pattern matches exactly these columns."""
        prefix = re.match(r"\D*", names[0]).group() if names else ""  # type: ignore[union-attr]
        pattern = f"{prefix}*"
        same = len(names) > 2 and prefix and match_columns(pattern, list(self.types)) == list(names)
        return (pattern,) if same else names


def infer_columns(path: str, encoding: str | None = None) -> Inference:
    """Suggest a mapping for the first of the files. Raises DataError if it is unreadable."""
    table = open_tables(path, encoding)[0]
    inference = Inference.of(path, table.schema, table)
    actions = inference.mapping.get("action", ())
    types = [table.columns[name].type for name in actions]
    if not all(map(is_number, types)) or (len(types) == 1 and is_category(types[0])):
        return inference  # text, or choices by the type
    return replace(inference, ambiguous=_ambiguous(table, actions))


def _ambiguous(table: Table, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that hold few whole numbers in the first rows."""
    distinct = dict.fromkeys(names, np.empty(0))
    rows = 0
    for chunk in Selection([table], names, names).chunks(names, CHUNK) if names else ():
        for name, known in distinct.items():
            values = nullable_numbers(chunk, name)
            distinct[name] = few_values(known, values[~np.isnan(values)])
        rows += chunk.batch.num_rows
        if rows >= CHUNK:
            break
    return tuple(name for name, values in distinct.items() if may_be_choices(values))


class _Guesses:
    """Assigns columns to roles: by the names of libraries, by words, then by values."""

    def __init__(self, types: dict[str, Any], profiles: dict[str, Profile], table: Table | None):
        self.types, self.profiles, self.table = types, profiles, table
        self.unclaimed = dict(types)
        self.left_out: dict[str, str] = {}
        self.guesses: dict[str, Guess] = {}

    def all(self) -> tuple[tuple[Guess, ...], dict[str, str]]:
        """Return the guesses in the order of the roles, and the columns left out with reasons."""
        for name in self.types:
            role, reason = LIBRARIES.get(name.lower(), ("", ""))
            if role and role not in self.guesses:
                self._claim(Guess(role, (name,), reason))
        self._leave_out_expressions()
        self._leave_out_later_columns()
        for role, fits in TYPE_CHECKS.items():
            if role not in self.guesses:
                fitting = {name: kind for name, kind in self.unclaimed.items() if fits(kind)}
                self._claim(_guess_one(role, fitting))
        self._guess_by_values()
        self._leave_out_what_follows()
        if "reward" not in self.guesses:
            self._claim(Guess("reward", (), "no name suggests it; required"))
        if "action" not in self.guesses:
            self._claim(_guess_actions(self.unclaimed, self._choices()))
        self._claim(_guess_observations(self.unclaimed, self._few_texts()))
        self._claim(_guess_next_observations(self.guesses["observation"].names, self.types))
        for name in self.mapped("next_observation"):
            self.left_out.pop(name, None)
        if not {"episode", "step", "terminated", "truncated"} & set(self.guesses):
            reason = "no column says where episodes end; dataset.one_step=true instead if every "
            self._claim(Guess("episode", (), f"{reason}row is a decision of its own"))
        return tuple(self.guesses[role] for role in ROLES if role in self.guesses), self.left_out

    def mapped(self, role: str) -> tuple[str, ...]:
        """Return the columns that a role has so far."""
        return self.guesses[role].names if role in self.guesses else ()

    def _claim(self, guess: Guess | None) -> None:
        if guess is not None:
            self.guesses[guess.role] = guess
            for name in guess.names:
                self.unclaimed.pop(name, None)

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        self.unclaimed.pop(name, None)

    def _leave_out_expressions(self) -> None:
        for name in [name for name in self.unclaimed if name.startswith(EXPRESSION)]:
            self._leave_out(name, "its name begins with =, as expressions do: rename it")

    def _leave_out_later_columns(self) -> None:
        later = set(_next_columns(self.types).values())
        for name in list(self.unclaimed):
            if name in later or NEXT[0] in _tokens(name):
                self._leave_out(name, "of the next step")

    def _guess_by_values(self) -> None:
        """Claim columns for roles without a name that suggests one."""
        named = _select("observation", self.unclaimed)
        free = {n: p for n, p in self.profiles.items() if n in self.unclaimed and n not in named}
        for name, profile in free.items():
            if name.lower() in INDEX or profile.numbers_rows:
                self._leave_out(name, "numbers the rows")
        texts = [n for n, p in free.items() if is_text(self.types[n]) and p.stays]
        if texts and "episode" not in self.guesses:
            name = max(texts, key=lambda n: free[n].runs)
            reason = f"its text stays for runs of rows, {free[name].runs:,} in the first rows"
            self._claim(Guess("episode", (name,), reason))
        episode = self.profiles.get(next(iter(self.mapped("episode")), ""))
        steps = [
            name
            for name, p in free.items()
            if name in self.unclaimed
            and pa.types.is_integer(self.types[name])
            and p.starts_again(episode.runs if episode else None)
        ]
        if "step" not in self.guesses and steps:
            self._claim(
                Guess("step", (steps[0],), "grows by one and starts again; it may be observed too")
            )
        times = [name for name, kind in self.unclaimed.items() if is_time(kind)]
        if "step" not in self.guesses and len(times) == 1 and self.mapped("episode"):
            self._claim(Guess("step", (times[0],), "the only column of times"))
        if "terminated" not in self.guesses:
            self._claim(self._guess_end([n for n in free if n in self.unclaimed]))

    def _guess_end(self, names: list[str]) -> Guess | None:
        """Suggest the flag that is true on last rows of episodes only, on most of them."""
        flags = [n for n in names if is_number(self.types[n]) and self.profiles[n].distinct == 2]
        marks = self.guesses.get("episode") or self.guesses.get("step")
        if self.table is None or not flags or marks is None or not marks.names:
            return None
        are_ends = marks_last_rows(self.table, marks.names[0], marks.role == "step", flags)
        for name, is_end in zip(flags, are_ends, strict=True):
            if is_end:
                reason = "true on last rows; time limits must be marked as truncated instead"
                return Guess("terminated", (name,), reason)
        return None

    def _leave_out_what_follows(self) -> None:
        """Leave out what is known after the action, except for a reward that has no other name."""
        follows = [
            name
            for name in self.unclaimed
            if AFTER.intersection(_tokens(name)) and BEFORE.isdisjoint(_tokens(name))
        ]
        rewards = [
            name
            for name in follows
            if OUTCOMES.intersection(_tokens(name)) and is_number(self.types[name])
        ]
        if rewards and "reward" not in self.guesses:
            others = f", as are {', '.join(rewards[1:])}: choose one" if rewards[1:] else ""
            self._claim(Guess("reward", (rewards[0],), f"known after the action{others}"))
        for name in follows:
            if name in self.unclaimed:
                self._leave_out(name, "known after the action only")
        for role in ("reward", "terminated", "truncated"):
            words = WORDS[role].split()
            for name in [name for name in self.unclaimed if _core(name, words) in words]:
                self._leave_out(name, f"named like {role}, of the same step")

    def _few_texts(self) -> list[str]:
        """Return the columns with few different texts, of which most come back."""
        return [
            name
            for name, p in self.profiles.items()
            if name in self.unclaimed
            and is_text(self.types[name])
            and 2 <= p.distinct <= min(MOST_TEXTS, p.rows / 2)
        ]

    def _choices(self) -> list[str]:
        """Return the columns of few different values that change within episodes."""
        named = _select("observation", self.unclaimed)
        return [
            name
            for name, p in self.profiles.items()
            if name in self.unclaimed
            and name not in named
            and is_category(self.types[name])
            and 2 <= p.distinct <= FEW_VALUES
            and p.runs > p.distinct
        ]


def _guess_one(role: str, candidates: dict[str, Any]) -> Guess | None:
    """Suggest the column whose name is a word of the role, or the first that contains one."""
    words = WORDS[role].split()
    hint = "; time limits must be marked as truncated instead" if role == "terminated" else ""
    whole = [name for name in candidates if _core(name, words) in words]
    whole.sort(key=lambda name: words.index(_core(name, words)))
    if whole:
        return Guess(role, (whole[0],), f"named {whole[0]}{hint}")
    if role == "step":
        return None  # steps_walked is not a step
    for name in candidates:
        if hits := [word for word in _tokens(name) if word in words and len(word) >= MIN_LENGTH]:
            return Guess(role, (name,), f"{hits[0]} is in its name{hint}")
    return None


def _guess_actions(unclaimed: dict[str, Any], choices: Sequence[str]) -> Guess:
    """Suggest actions by name, or a column of few values; choices: those that have them."""
    candidates = {
        name: kind
        for name, kind in unclaimed.items()
        if (is_number(kind) or is_text(kind)) and NO_ACTION.isdisjoint(_tokens(name))
    }
    names = _select("action", candidates)
    texts = [name for name, kind in unclaimed.items() if is_text(kind)]
    if names:
        reason = "by name"
    elif len(texts) == 1:
        names, reason = tuple(texts), "the only column of text"
    elif len(choices) == 1:
        names, reason = tuple(choices), "few different values"
    else:
        few = f" ({', '.join(choices)} have few different values)" if choices else ""
        hint = f"choose one and remove it from the observations{few}"
        return Guess("action", (), f"no name suggests it: {hint}")
    if len(names) > 1 and all(is_text(unclaimed[name]) for name in names):
        return Guess("action", names, f"{reason}; discrete, one action per combination")
    if len(names) > 1 or not is_category(unclaimed[names[0]]):
        return Guess("action", names, f"{reason}; continuous")
    hint = "" if is_text(unclaimed[names[0]]) else "; continuous: dataset.columns.discrete=false"
    return Guess("action", names, f"{reason}; discrete, one action per value{hint}")


def _guess_observations(unclaimed: dict[str, Any], texts: Sequence[str]) -> Guess:
    """Suggest columns of numbers, and those of few different texts."""
    numeric = {name: kind for name, kind in unclaimed.items() if is_number(kind)}
    if names := _select("observation", numeric):
        return Guess("observation", names, "by name")
    others = [name for name in unclaimed if name in numeric or name in texts]
    if others:
        reason = "all other numbers" if len(others) == len(numeric) else "numbers and categories"
        return Guess("observation", tuple(others), reason)
    return Guess("observation", (), "no numeric column is left; required")


def _guess_next_observations(observation: tuple[str, ...], types: dict[str, Any]) -> Guess | None:
    """Suggest the columns named next + an observation's name, if each observation has one."""
    next_columns = _next_columns(types)
    names = tuple(next_columns.get(name, "") for name in observation)
    if not names or "" in names:
        return None
    return Guess("next_observation", names, "next + an observation's name")


def _next_columns(types: dict[str, Any]) -> dict[str, str]:
    """Return the columns named next or new + another column's name, by that name."""
    by_tokens = {_tokens(name): name for name in types}
    result = {}
    for tokens, name in by_tokens.items():
        current = by_tokens.get(tuple(token for token in tokens if token not in NEXT))
        if current not in (None, name):
            result[current] = name
    return result


def _select(role: str, candidates: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns named by a word of the role: obs_3, s3, heating_command."""
    words = WORDS[role].split()
    short = {word for word in words if len(word) < 3}
    names = []
    for name in candidates:
        tokens = [token.rstrip("0123456789") for token in _tokens(name)]
        tokens = [token for token in tokens if token]
        is_word = len(tokens) == 1 and tokens[0] in words
        if is_word or any(token in words and token not in short for token in tokens):
            names.append(name)
    return tuple(sorted(names, key=natural_key))


@functools.cache  # every role looks at every name: tables may have 100,000 columns
def _tokens(name: str) -> tuple[str, ...]:
    """Split nextObs_3 into next, obs, 3."""
    spread = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return tuple(token for token in re.split(r"[^a-z0-9]+", spread) if token)


def _core(name: str, words: list[str]) -> str:
    """Reduce a name to its word: trajectory_id, time_step, TimeOut to trajectory, step, timeout."""
    tokens = _tokens(name)
    whole = "".join(tokens)
    return whole if whole in words else "".join(t for t in tokens if t not in SUFFIXES)


def _is_episode_id(kind: Any) -> bool:
    plain = pa.types.is_integer(kind) or is_text(kind)
    return bool(plain or is_time(kind))


TYPE_CHECKS: dict[str, Callable[[Any], bool]] = {
    "reward": is_number,
    "terminated": is_number,
    "truncated": is_number,
    "step": is_integer_or_float,
    "episode": _is_episode_id,
    "propensity": lambda kind: bool(pa.types.is_floating(kind)),
}
ROLES = (*LISTS, *TYPE_CHECKS)
