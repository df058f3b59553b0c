"""A table of logged steps, one row each: Parquet, CSV or NPZ files as a source.

The files are read as one table, in the natural order of their names, episode by episode and step
by step. Two passes: the first over the actions alone, for their space. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from offline_cql.config import ColumnsConfig
from offline_cql.errors import DataError
from offline_cql.readers.table import actions as table_actions
from offline_cql.readers.table.actions import Actions
from offline_cql.readers.table.columns import Mapping, mapped
from offline_cql.readers.table.episodes import Beginnings, Following, Rows
from offline_cql.readers.table.files import Piece, TableFile, files_of, opened, pieces
from offline_cql.readers.table.values import flags, numbers, table
from offline_cql.readers.writer import CHUNK, TransitionWriter, file_signature
from offline_cql.render.progress import ProgressBar
from offline_cql.transitions import Spaces

SIMULATOR_DECIDES = ("discrete", "action_low")


class TableReader:
    """The files behind dataset.path, their columns as dataset.columns says.

    spaces: of a simulator that the data belong to; None: they come from the data. chunk: rows
    that are read at a time. Raises DataError for whatever cannot be learned from, with the place.
    """

    def __init__(
        self,
        path: str,
        columns: ColumnsConfig,
        *,
        spaces: Spaces | None = None,
        chunk: int = CHUNK,
    ):
        self.dataset_id = self.path = path
        self.columns, self.simulator, self.chunk = columns, spaces, chunk

    def fingerprint(self) -> dict[str, Any]:
        return {
            "files": [file_signature(path) for path in self.paths],
            "columns": self.columns.model_dump(),
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
                f"{self.path}: dataset.columns.observation gives {size} columns "
                f"({', '.join(self.mapping.observation)}), the simulator has "
                f"{self.simulator.observation_dim}: name as many, or use env=logged"
            )
        return self.simulator

    def read(self, writer: TransitionWriter) -> None:
        writer.observation_names, writer.action_names = self.mapping.observation, self.actions.names
        sizes = [file.rows for file in self.files]
        known = [size for size in sizes if size is not None]
        total = sum(known) if len(known) == len(sizes) else None
        if total is not None:
            writer.check_disk_space(total)
        beginnings, following = Beginnings(self.mapping), Following(writer)
        with ProgressBar(f"reading {self.dataset_id}", total) as bar:
            for piece in self._pieces(self.mapping.names(), self._amounts()):
                following.add(self._rows(piece, beginnings))
                bar.advance(piece.batch.num_rows)
        following.finish()
        beginnings.finish()
        writer.count_repair("episodes_over_two_files", beginnings.over_two_files)

    @cached_property
    def paths(self) -> list[Path]:
        return files_of(self.path)

    @cached_property
    def files(self) -> list[TableFile]:
        return [opened(path) for path in self.paths]

    @cached_property
    def mapping(self) -> Mapping:
        """By the first file; each other one must have the same columns."""
        mapping = mapped(self.columns, self.files[0].schema.names, self.path)
        for file in self.files[1:]:
            if missing := [name for name in mapping.names() if name not in file.schema.names]:
                raise DataError(f"{file.path} has no column {missing[0]}, as {self.files[0].path}")
        return mapping

    @cached_property
    def actions(self) -> Actions:
        """The action space, after a pass over the actions if need be."""
        names = self.mapping.action
        kinds = [self.files[0].schema.field(name).type for name in names]
        if self.simulator is not None:
            for setting in SIMULATOR_DECIDES:
                if getattr(self.columns, setting) is not None:
                    raise DataError(
                        f"{self.columns.setting(setting)} has no effect with a simulator, which "
                        "has an action space: leave it null"
                    )
            return table_actions.of_simulator(names, self.simulator, kinds)
        if table_actions.chosen_kind(self.columns, names, kinds):
            choices = self._pieces([names[0]], ())
            return table_actions.categories(names[0], choices, self.path)
        amounts = self._pieces(list(names), names)
        return table_actions.bounds(self.columns, names, amounts, self.path)

    def _pieces(self, names: list[str], numeric: Sequence[str]) -> Iterator[Piece]:
        for file in self.files:
            yield from pieces(file, names, numeric=numeric, size=self.chunk)

    def _amounts(self) -> list[str]:
        """The columns that are numbers whatever a CSV file begins with."""
        part = self.mapping
        actions = () if self.actions.discrete else part.action
        found = {*part.observation, *part.next_observation, *actions, part.reward, part.propensity}
        return [name for name in part.names() if name in found]

    def _rows(self, piece: Piece, beginnings: Beginnings) -> Rows:
        part = self.mapping
        terminated, truncated = flags(piece, part.terminated), flags(piece, part.truncated)
        following, own = part.next_observation, part.propensity
        next_observations = table(piece, following, missing=True) if following else None
        return Rows(
            observations=table(piece, part.observation),
            actions=self.actions.read(piece),
            rewards=numbers(piece, part.reward),
            terminated=terminated,
            truncated=truncated,
            begins=beginnings.of(piece, terminated | truncated),
            next_observations=next_observations,
            propensities=numbers(piece, own) if own else None,
        )
