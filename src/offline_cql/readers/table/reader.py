"""Reader of tables of logged steps, one row per step: Parquet, CSV or NPZ files.

The files are read as one table, in the natural order of their names. A first pass over the actions
determines their space; a second one reads the transitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from offline_cql.config import ColumnsConfig
from offline_cql.errors import DataError
from offline_cql.readers.table.actions import (
    Actions,
    continuous_actions,
    discrete_actions,
    is_discrete,
    simulator_actions,
)
from offline_cql.readers.table.columns import Mapping, map_columns
from offline_cql.readers.table.episodes import EpisodeBoundaries, Rows, TransitionBuilder
from offline_cql.readers.table.files import Chunk, TableFile, find_files, open_table, read_chunks
from offline_cql.readers.table.values import flags, matrix, numbers
from offline_cql.readers.writer import CHUNK, TransitionWriter, file_signature
from offline_cql.render.progress import ProgressBar
from offline_cql.transitions import Spaces

ACTION_SPACE_SETTINGS = ("discrete", "action_low")  # of dataset.columns


class TableReader:
    """Reader of the files at dataset.path with the columns of dataset.columns.

    one_step: every row is an episode that terminates. spaces: of the simulator that the data
    belong to; None: they come from the data. chunk_size: rows read at a time. Raises DataError,
    with the position, for invalid data.
    """

    def __init__(
        self,
        path: str,
        columns: ColumnsConfig,
        *,
        one_step: bool = False,
        spaces: Spaces | None = None,
        chunk_size: int = CHUNK,
    ):
        self.dataset_id = self.path = path
        self.columns, self.one_step = columns, one_step
        self.simulator, self.chunk_size = spaces, chunk_size

    def fingerprint(self) -> dict[str, Any]:
        return {
            "files": [file_signature(path) for path in self.paths],
            "columns": self.columns.model_dump(),
            "one_step": self.one_step,
            "spaces": None if self.simulator is None else asdict(self.simulator),
        }

    def spaces(self) -> Spaces:
        size = len(self.mapping.observation)
        if self.simulator is None:
            actions = self.actions
            count = len(actions.categories) if actions.discrete else len(actions.columns)
            return Spaces(size, count, actions.discrete, actions.low, actions.high)
        if size != self.simulator.observation_dim:
            raise DataError(
                f"{self.path}: dataset.columns.observation matches {size} columns "
                f"({', '.join(self.mapping.observation)}), the simulator has "
                f"{self.simulator.observation_dim}: name as many, or use env=logged"
            )
        return self.simulator

    def read(self, writer: TransitionWriter) -> None:
        writer.observation_names, writer.action_names = self.mapping.observation, self.actions.names
        sizes = [file.rows for file in self.files]
        total = None if None in sizes else sum(size for size in sizes if size is not None)
        if total is not None:
            writer.check_disk_space(total)
        boundaries, builder = EpisodeBoundaries(self.mapping), TransitionBuilder(writer)
        with ProgressBar(f"reading {self.dataset_id}", total) as bar:
            for chunk in self._chunks(self.mapping.names(), self._numeric_columns()):
                builder.add(self._rows(chunk, boundaries))
                bar.advance(chunk.batch.num_rows)
        boundaries.finish()
        builder.finish()
        writer.count_repair("episodes_over_two_files", boundaries.over_two_files)

    @cached_property
    def paths(self) -> list[Path]:
        return find_files(self.path)

    @cached_property
    def files(self) -> list[TableFile]:
        return [open_table(path) for path in self.paths]

    @cached_property
    def mapping(self) -> Mapping:
        """The mapping of columns by the first file; the others must have the same columns."""
        schema = self.files[0].schema
        mapping = map_columns(self.columns, schema, self.path, one_step=self.one_step)
        for file in self.files[1:]:
            existing = set(file.schema.names)
            if missing := [name for name in mapping.names() if name not in existing]:
                raise DataError(
                    f"{file.path} has no column {missing[0]}, unlike {self.files[0].path}"
                )
        return mapping

    @cached_property
    def actions(self) -> Actions:
        """The action columns and their space, which may take a pass over the data."""
        names = self.mapping.action
        types = [self.files[0].schema.field(name).type for name in names]
        if self.simulator is not None:
            for setting in ACTION_SPACE_SETTINGS:
                if getattr(self.columns, setting) is not None:
                    raise DataError(
                        f"{self.columns.setting(setting)} has no effect with a simulator, which "
                        "defines the action space: leave it null"
                    )
            return simulator_actions(names, self.simulator, types)
        if is_discrete(self.columns, names, types):
            return discrete_actions(names, self._chunks(list(names), ()), self.path)
        numeric = self._chunks(list(names), names)
        return continuous_actions(self.columns, names, numeric, self.path)

    def _chunks(self, names: list[str], numeric: Sequence[str]) -> Iterator[Chunk]:
        for file in self.files:
            yield from read_chunks(file, names, numeric=numeric, size=self.chunk_size)

    def _numeric_columns(self) -> list[str]:
        """Return the columns that are read as floats even if a CSV file starts with integers."""
        mapping = self.mapping
        actions = () if self.actions.discrete else mapping.action
        vectors = {*mapping.observation, *mapping.next_observation, *actions}
        numeric = {*vectors, mapping.reward, mapping.propensity}
        return [name for name in mapping.names() if name in numeric]

    def _rows(self, chunk: Chunk, boundaries: EpisodeBoundaries) -> Rows:
        mapping = self.mapping
        terminated, truncated = flags(chunk, mapping.terminated), flags(chunk, mapping.truncated)
        if self.one_step:
            terminated[:] = True
        next_observations = propensities = None
        if mapping.next_observation:
            next_observations = matrix(chunk, mapping.next_observation, nullable=True)
        if mapping.propensity:
            propensities = numbers(chunk, mapping.propensity)
        return Rows(
            observations=matrix(chunk, mapping.observation),
            actions=self.actions.read(chunk),
            rewards=numbers(chunk, mapping.reward),
            terminated=terminated,
            truncated=truncated,
            starts=boundaries.find_starts(chunk, terminated | truncated),
            next_observations=next_observations,
            propensities=propensities,
        )
