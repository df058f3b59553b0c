"""Reader of tables of logged steps, one row per step: Parquet, CSV, JSON or NPZ files.

The files are read as one table, in the natural order of their names, sorted by episode and step if
they are not. A first pass over the actions determines their space; a second one reads the
transitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offline_cql.config import ColumnsConfig, DatasetConfig
from offline_cql.errors import ConfigError, DataError
from offline_cql.features import CATEGORY, EXPRESSION, Features
from offline_cql.readers.row_files import Array
from offline_cql.readers.table.actions import (
    Actions,
    continuous_actions,
    discrete_actions,
    is_discrete,
    simulator_actions,
)
from offline_cql.readers.table.columns import Mapping, list_columns, map_columns
from offline_cql.readers.table.episodes import EpisodeBoundaries, Rows, TransitionBuilder
from offline_cql.readers.table.files import Table, find_files, match_columns, open_tables
from offline_cql.readers.table.missing import IncompleteRows, complete_rows, describe_missing
from offline_cql.readers.table.observations import (
    numeric_columns,
    plain_features,
    read_values,
    refuse_not_finite,
    refuse_other_types,
    seconds,
    with_categories,
    with_fill,
)
from offline_cql.readers.table.selection import Chunk, Selection, unify_codes
from offline_cql.readers.table.values import (
    MissingNextError,
    MissingValueError,
    flags,
    numbers,
)
from offline_cql.readers.writer import CHUNK, TransitionWriter, file_signature
from offline_cql.render.progress import ProgressBar
from offline_cql.transitions import Spaces

ACTION_SPACE_SETTINGS = ("discrete", "action_low")  # of dataset.columns


class Sample(NamedTuple):
    """Values [N, C] of columns, and the low and the high of each column of numbers and times."""

    values: Array
    ranges: dict[str, dict[str, float]]


class TableReader:
    """Reader of the files at dataset.path with the columns of dataset.columns.

    one_step: every row is an episode that terminates. encoding: of text that is not UTF-8.
    missing: refuse, drop, fill or forward, for rows with missing values of observations, actions,
    rewards or propensities. condition: SQL for the rows that are read. time_unit: the seconds that
    gamma discounts once, by the times of dataset.columns.step; None: it discounts each step.
    spaces: of the simulator that the data belong to; None: they come from the data. chunk_size:
    rows read at a time. Raises DataError, with the position, for invalid data.
    """

    def __init__(
        self,
        path: str,
        columns: ColumnsConfig,
        *,
        one_step: bool = False,
        encoding: str | None = None,
        missing: str = "refuse",
        condition: str | None = None,
        time_unit: float | None = None,
        spaces: Spaces | None = None,
        chunk_size: int = CHUNK,
    ):
        self.dataset_id = self.path = path
        self.columns, self.one_step, self.encoding = columns, one_step, encoding
        self.missing, self.condition, self.time_unit = missing, condition, time_unit
        self.simulator, self.chunk_size = spaces, chunk_size

    @classmethod
    def of(cls, dataset: DatasetConfig, spaces: Spaces | None) -> TableReader:
        """Return the reader of the section `dataset`. Raises ConfigError without a path."""
        if dataset.path is None or dataset.columns is None:
            raise ConfigError("dataset.path and dataset.columns must be set with dataset=table")
        return cls(
            dataset.path,
            dataset.columns,
            one_step=bool(dataset.one_step),
            encoding=dataset.encoding,
            missing=dataset.missing or "refuse",
            condition=dataset.filter,
            time_unit=dataset.time_unit,
            spaces=spaces,
        )

    def fingerprint(self) -> dict[str, Any]:
        return {
            "files": [file_signature(path) for path in self.paths],
            "columns": self.columns.model_dump(),
            **({} if self.encoding is None else {"encoding": self.encoding}),
            **({} if self.missing == "refuse" else {"missing": self.missing}),
            **({} if self.condition is None else {"filter": self.condition}),
            **({} if self.time_unit is None else {"time_unit": self.time_unit}),
            "one_step": self.one_step,
            "spaces": None if self.simulator is None else asdict(self.simulator),
        }

    def spaces(self) -> Spaces:
        names = self.features.names
        size = len(names)
        if self.simulator is None:
            actions = self.actions
            count = len(actions.categories) if actions.discrete else len(actions.columns)
            return Spaces(size, count, actions.discrete, actions.low, actions.high)
        if size != self.simulator.observation_dim:
            raise DataError(
                f"{self.path}: dataset.columns.observation matches {size} columns "
                f"({', '.join(names)}), the simulator has {self.simulator.observation_dim}: name "
                "as many, set dataset.columns.categories for a state that is a number, or use "
                "env=logged"
            )
        return self.simulator

    def read(self, writer: TransitionWriter) -> None:
        writer.observation_names, writer.action_names = self.features.names, self.actions.names
        writer.features = self.features
        total = self.selection.size
        writer.check_disk_space(total)
        if self.mapping.episode:
            is_sorted = self.selection.sort_if_needed(self.mapping.episode, self.mapping.step)
            writer.count_repair("sorted_rows", total * is_sorted)
        timed = self.time_unit is not None
        boundaries = EpisodeBoundaries(self.mapping, times_grow=timed)
        builder = TransitionBuilder(writer, self.missing)
        incomplete = IncompleteRows(self.missing)
        with ProgressBar(f"reading {self.dataset_id}", total) as bar, self._missing_counted():
            episode, step = self.mapping.episode, self.mapping.step
            for chunk in self.selection.placed_chunks(episode, step, self.chunk_size):
                builder.add(self._rows(chunk, boundaries, incomplete))
                bar.advance(chunk.batch.num_rows)
            splits = {
                "dataset.missing=drop": self.missing == "drop" and incomplete.dropped,
                "dataset.filter": boundaries.split,
            }
            builder.finish([setting for setting, count in splits.items() if count])
        kind = "flagged" if self.missing == "fill" else "filled"
        writer.count_repair(f"{kind}_observations", incomplete.filled)
        writer.count_repair("dropped_incomplete_rows", incomplete.dropped)
        writer.count_repair("episodes_over_two_files", boundaries.over_two_files)
        writer.count_repair("episodes_split_by_filter", boundaries.split)

    def sample(self, features: Features, size: int) -> Sample:
        """Return the first `size` complete rows of the features' columns, and ranges of all."""
        size_of_row = len(features.columns)
        low, high = np.full(size_of_row, np.inf), np.full(size_of_row, -np.inf)
        first = np.empty((0, size_of_row))
        for chunk in self.selection.chunks(list(features.columns), self.chunk_size):
            values = read_values(chunk, features)
            low = np.fmin(low, np.fmin.reduce(values, axis=0))
            high = np.fmax(high, np.fmax.reduce(values, axis=0))
            if len(first) < size:
                complete = values[(~np.isnan(values) | features.optional).all(axis=1)]
                first = np.concatenate([first, complete[: size - len(first)]])
        ranges = {
            name: {"low": float(a), "high": float(b)}
            for (name, kind), a, b in zip(features.columns.items(), low, high, strict=True)
            if kind != CATEGORY
        }
        return Sample(first, ranges)

    @cached_property
    def paths(self) -> list[Path]:
        return find_files(self.path)

    @cached_property
    def tables(self) -> list[Table]:
        return open_tables(self.path, self.encoding)

    @cached_property
    def mapping(self) -> Mapping:
        """The mapping of columns by the first file; the others must have the same columns."""
        first, *others = self.tables
        mapping = map_columns(self.columns, first.schema, self.path, one_step=self.one_step)
        computed = mapping.computed()
        own = [name for name in mapping.names() if name not in computed]
        for table in others:
            if missing := [name for name in own if name not in table.columns]:
                raise DataError(f"{table.path} has no column {missing[0]}, unlike {first.path}")
        for name, as_text in self._codes(mapping).items():
            unify_codes(self.tables, name, as_text=as_text)
        for table in self.tables:
            for name in computed:
                table.compute(name)
            if self.condition is not None:
                table.keep_rows(self.condition)
        return mapping

    def _codes(self, mapping: Mapping) -> dict[str, bool]:
        """Return the columns of episodes, choices and categories, and whether they are text."""
        names = [mapping.episode] if mapping.episode else []
        if self.simulator is None and self.columns.discrete is not False:
            names += mapping.action if len(mapping.action) == 1 or self.columns.discrete else ()
        codes = dict.fromkeys((name for name in names if not name.startswith(EXPRESSION)), False)
        for name, values in self.categories.items():
            codes[name] = isinstance(values, list) and isinstance(values[0], str)
        return codes

    @cached_property
    def is_discrete(self) -> bool:
        """Whether actions are choices: by the simulator, the settings, or the columns' types."""
        if self.simulator is not None:
            return self.simulator.discrete
        return is_discrete(self.columns, self.mapping.action, self._types(self.mapping.action))

    @cached_property
    def selection(self) -> Selection:
        """The mapped columns of all files; those of numbers are of double precision."""
        mapping = self.mapping
        amounts = () if self.is_discrete else mapping.action
        scalars = (mapping.reward, mapping.propensity, mapping.terminated, mapping.truncated)
        features = plain_features(mapping.observation, self.categories)
        numeric = {*numeric_columns(features), *amounts, *filter(None, scalars)}
        if mapping.next_observation:
            numeric |= numeric_columns(self._of_next(features))
        selection = Selection(self.tables, mapping.names(), numeric - {mapping.step or ""})
        if self.condition is not None and selection.size == 0:
            raise DataError(f"{self.path}: dataset.filter={self.condition!r} keeps no row")
        return selection

    @cached_property
    def categories(self) -> dict[str, Any]:
        """The values of columns of categories; None: those of the data."""
        entries = [
            (entry, None) if isinstance(entry, str) else (entry["column"], entry["values"])
            for entry in self.columns.categories or ()
        ]
        names: list[str] = self.tables[0].schema.names
        result: dict[str, Any] = {}
        for pattern, values in entries:
            if not (matches := match_columns(pattern, names)):
                raise DataError(
                    f"{self.path} has no column {pattern} (dataset.columns.categories); "
                    f"{list_columns(names)}"
                )
            result |= dict.fromkeys(matches, values)
        return result

    @cached_property
    def features(self) -> Features:
        """The features of observations; categories and fills may take a pass over the data."""
        plain = plain_features(self.mapping.observation, self.categories)
        refuse_other_types(plain, self.selection, self.path)
        if not self.categories and self.missing != "fill":
            return plain
        features = with_categories(plain, self.selection, self.categories, self.path)
        if self.missing != "fill":
            return features
        following = self._of_next(features) if self.mapping.next_observation else None
        columns = features.columns | ({} if following is None else following.columns)
        chunks = self.selection.chunks(list(columns), self.chunk_size)
        return with_fill(features, following, chunks, self.path)

    @cached_property
    def next_features(self) -> Features:
        return self._of_next(self.features)

    def _of_next(self, features: Features) -> Features:
        """Return the features of next observations: the same, of the columns that are mapped."""
        pairs = zip(features.features, self.mapping.next_observation, strict=True)
        return Features([replace(feature, value=name) for feature, name in pairs])

    @cached_property
    def actions(self) -> Actions:
        """The action columns and their space, which may take a pass over the data."""
        names = self.mapping.action
        if self.simulator is not None:
            for setting in ACTION_SPACE_SETTINGS:
                value = getattr(self.columns, setting)
                fits = setting == "discrete" and value == self.simulator.discrete
                if value is not None and not fits:
                    raise DataError(
                        f"{self.columns.setting(setting)} has no effect with a simulator, which "
                        "defines the action space: leave it null"
                    )
            return simulator_actions(names, self.simulator, self._types(names))
        chunks = self._chunks(names)
        with self._missing_counted():
            if self.is_discrete:
                return discrete_actions(names, chunks, self.path)
            return continuous_actions(self.columns, names, chunks, self.path)

    def _types(self, names: tuple[str, ...]) -> list[Any]:
        return [self.tables[0].columns[name].type for name in names]

    def _chunks(self, names: tuple[str, ...]) -> Iterator[Chunk]:
        """Yield chunks of some columns; nothing is read before the first one."""
        for chunk in self.selection.chunks(names, self.chunk_size):
            yield chunk if self.missing == "refuse" else chunk.filter(complete_rows(chunk, names))

    @contextmanager
    def _missing_counted(self) -> Iterator[None]:
        """Name all columns with missing values, and the remedy, in the error for one of them."""
        try:
            yield
        except MissingValueError as error:
            optional = self.mapping.part("next_observation")
            is_next = isinstance(error, MissingNextError)
            names = [name for name in self.mapping.names() if is_next or name not in optional]
            counts = self.selection.count_missing(names, self.categories)
            text = describe_missing(counts, self.selection.size)
            raise DataError(f"{error}; {text}") from error

    def _rows(
        self, chunk: Chunk, boundaries: EpisodeBoundaries, incomplete: IncompleteRows
    ) -> Rows:
        mapping = self.mapping
        terminated, truncated = flags(chunk, mapping.terminated), flags(chunk, mapping.truncated)
        if self.one_step:
            terminated[:] = True
        starts = boundaries.find_starts(chunk, terminated | truncated)
        others = [*mapping.action, mapping.reward, *filter(None, [mapping.propensity])]
        observed = read_values(chunk, self.features, nullable=self.missing != "refuse")
        observed, starts, complete = incomplete.resolve(chunk, observed, others, starts)
        observations = self.features.encode(observed)
        chunk = chunk.filter(complete)
        refuse_not_finite(chunk, self.features, observations)
        next_observations = has_next = propensities = None
        if mapping.next_observation:
            values = read_values(chunk, self.next_features)
            has_next = ~np.asarray(np.isnan(values).all(axis=1))
            next_observations = self.next_features.encode(values)
            if self.missing == "forward":
                absent = np.isnan(next_observations)
                next_observations = np.where(absent, observations, next_observations)
        if mapping.propensity:
            propensities = numbers(chunk, mapping.propensity)
        return Rows(
            observations=observations,
            actions=self.actions.read(chunk),
            rewards=numbers(chunk, mapping.reward),
            terminated=terminated[complete],
            truncated=truncated[complete],
            starts=starts,
            next_observations=next_observations,
            has_next=has_next,
            propensities=propensities,
            times=None if self.time_unit is None else self._times(chunk, self.time_unit),
        )

    def _times(self, chunk: Chunk, unit: float) -> Array:
        """Return the times [T] of rows in units. Raises DataError without a column of times."""
        if self.mapping.step is None or self.mapping.next_observation:
            raise DataError(
                f"{self.path}: dataset.time_unit needs a column of times as dataset.columns.step, "
                "and none of next observations, whose time is unknown"
            )
        return seconds(chunk, self.mapping.step) / unit
