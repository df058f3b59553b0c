"""Write and load a small table with predictable values, in every format of dataset=table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from support.config import settings

from offline_cql.config import ColumnsConfig
from offline_cql.readers import load
from offline_cql.readers.table.reader import TableReader
from offline_cql.transitions import Spaces, Transitions

Columns = dict[str, Any]
FORMATS = ("parquet", "csv", "csv.gz", "jsonl", "npz")


def columns_of(*overrides: str) -> ColumnsConfig:
    """Return the mapping of `dataset=table <overrides>`; keys are below dataset.columns."""
    prefixed = [f"dataset.columns.{text}" for text in overrides]
    dataset = settings("env=logged", "dataset=table", "dataset.path=x", *prefixed).dataset
    assert dataset.columns is not None
    return dataset.columns


def episodes(lengths: list[int], ends: list[str]) -> Columns:
    """Return the columns of episodes; each of `ends` is T (terminated), U (truncated) or empty.

    Observations are (episode, step), the two actions grow with them, rewards are 100 * episode +
    step.
    """
    number = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    last = step == np.repeat(lengths, lengths) - 1
    end = np.array(ends)[number]
    return {
        "obs_0": number.astype(np.float64),
        "obs_1": step.astype(np.float64),
        "action_0": (step / 10).astype(np.float64),
        "action_1": number / 10 + step / 100,
        "reward": 100.0 * number + step,
        "episode": number,
        "step": step,
        "terminated": last & (end == "T"),
        "truncated": last & (end == "U"),
    }


def write(path: Path, columns: Columns) -> Path:
    """Write the columns in the format of the suffix; return the path."""
    kind = path.name.partition(".")[2]
    if kind == "npz":
        np.savez(path, **{name: np.asarray(values) for name, values in columns.items()})
        return path
    table = pa.table(columns)
    if kind == "parquet":
        # Small row groups: a batch may end anywhere.
        pa.parquet.write_table(table, path, row_group_size=7)
    elif kind in ("json", "jsonl"):
        lines = [json.dumps(row, default=str) for row in table.to_pylist()]
        path.write_text("\n".join(lines))
    else:
        with pa.output_stream(path, compression="gzip" if kind == "csv.gz" else None) as file:
            pa.csv.write_csv(table, file)
    return path


def load_table(
    path: Path | str, *overrides: str, spaces: Spaces | None = None, chunk: int = 65_536
) -> Transitions:
    """Return the transitions of files, read through the writer and the cache."""
    return load(TableReader(str(path), columns_of(*overrides), spaces=spaces, chunk_size=chunk))
