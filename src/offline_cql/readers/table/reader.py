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
from typing import Any

import numpy as np

from offline_cql.config import ColumnsConfig, DatasetConfig
from offline_cql.errors import ConfigError, DataError
from offline_cql.features import Features
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
from offline_cql.readers.table.files import (
    Chunk,
    Selection,
    Table,
    find_files,
    match_columns,
    open_tables,
)
from offline_cql.readers.table.missing import IncompleteRows, complete_rows, describe_missing
from offline_cql.readers.table.observations import (
    numeric_columns,
    plain_features,
    read_values,
    refuse_other_types,
    seconds,
    with_categories,
    with_fill,
)
from offline_cql.readers.table.values import MissingValueError, flags, numbers
from offline_cql.readers.writer import CHUNK, TransitionWriter, file_signature
from offline_cql.render.progress import ProgressBar
from offline_cql.transitions import Spaces

ACTION_SPACE_SETTINGS = ("discrete", "action_low")  # of dataset.columns


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
        total = self.selection.count()
        writer.check_disk_space(total)
        if self.mapping.episode:
            is_sorted = self.selection.sort_if_needed(self.mapping.episode, self.mapping.step)
            writer.count_repair("sorted_rows", total * is_sorted)
        timed = self.time_unit is not None
        boundaries = EpisodeBoundaries(self.mapping, times_grow=timed)
        builder = TransitionBuilder(writer)
        incomplete = IncompleteRows(self.missing)
        with ProgressBar(f"reading {self.dataset_id}", total) as bar, self._missing_counted():
            for chunk in self.selection.chunks(self.mapping.names(), self.chunk_size):
                builder.add(self._rows(chunk, boundaries, incomplete))
                bar.advance(chunk.batch.num_rows)
        builder.finish()
        kind = "flagged" if self.missing == "fill" else "filled"
        writer.count_repair(f"{kind}_observations", incomplete.filled)
        writer.count_repair("dropped_incomplete_rows", incomplete.dropped)
        writer.count_repair("episodes_over_two_files", boundaries.over_two_files)

    def first_values(self, features: Features, size: int) -> Array:
        """Return the values [N, C] of the features' columns in the first complete rows."""
        optional = np.array([column["optional"] for column in features.describe()])
        chunk = next(self.selection.chunks(list(features.columns), size))
        values = read_values(chunk, features)
        complete: Array = values[(~np.isnan(values) | optional).all(axis=1)]
        return complete

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
        for table in self.tables:
            for name in mapping.computed():
                table.compute(name)
            if self.condition is not None:
                table.keep_rows(self.condition)
        for table in others:
            if missing := [name for name in mapping.names() if name not in table.columns]:
                raise DataError(f"{table.path} has no column {missing[0]}, unlike {first.path}")
        return mapping

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
        return Selection(self.tables, mapping.names(), numeric - {mapping.step or ""})

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
        return with_fill(features, self.selection.chunks(list(features.columns), self.chunk_size))

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
                if getattr(self.columns, setting) is not None:
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
            optional = self.mapping.next_observation
            names = [name for name in self.mapping.names() if name not in optional]
            counts = self.selection.count_missing(names)
            text = describe_missing(counts, self.selection.count())
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
        next_observations = propensities = None
        if mapping.next_observation:
            features = self.next_features
            values = read_values(chunk, features)[complete]
            next_observations = features.encode(values)
            next_observations[np.isnan(values).all(axis=1)] = np.nan  # not filled: there is none
            if self.missing == "forward":
                absent = np.isnan(next_observations)
                absent &= ~absent.all(axis=1, keepdims=True)  # then there is no next observation
                next_observations = np.where(absent, observations, next_observations)
        chunk = chunk.filter(complete)
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
