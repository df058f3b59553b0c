"""Guarantee: a file of another kind or library is named in one line, with what to type next.

Files that are not the data, other separators, JSON, tianshou's and RLlib's names, lists per row;
and `rm` is never proposed for a file that was not downloaded here.
"""

import csv
import gzip
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.table_case import columns_of, load_table, write

from offline_cql.errors import DataError
from offline_cql.readers import load
from offline_cql.readers.d4rl import D4RLReader
from offline_cql.readers.download import file_sha256
from offline_cql.readers.minari.store import MinariReader
from offline_cql.readers.table.files import open_tables
from offline_cql.readers.table.reader import TableReader
from offline_cql.transitions import Transitions

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123456\n"
HTML = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
STEPS, SIZE = 5, 20  # four episodes of five steps


def read(path: Path, *overrides: str) -> Transitions:
    """Read a file as dataset=d4rl or dataset=table does."""
    if path.suffix == ".hdf5":
        return load(D4RLReader(path, "x", simulator=None, episode_length=None))
    return load_table(path, *overrides)


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(DataError) as caught:
        read(path, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def logs(names: dict[str, str]) -> dict[str, Any]:
    """Return 20 steps under the names of a library, by ours; the last of each five terminates."""
    step, rng = np.arange(SIZE) % STEPS, np.random.default_rng(0)
    observations = rng.normal(size=(SIZE, 2))
    values = {
        "observation": observations,
        "action": rng.uniform(-1, 1, (SIZE, 2)),
        "reward": np.arange(SIZE) / 10,
        "terminated": step == STEPS - 1,
        "truncated": np.zeros(SIZE, bool),
        "next_observation": np.concatenate([observations[1:], observations[:1]]),
        "episode": np.arange(SIZE) // STEPS,
        "log_probability": np.full(SIZE, -1.9),
    }
    return {library: values[role] for role, library in names.items()}


def check_transitions(data: Transitions) -> None:
    """All 20 steps in four episodes that terminate, with 0.1 more reward at each."""
    expected = logs({"observation": "o", "next_observation": "n"})
    assert data.ends.tolist() == [5, 10, 15, 20]
    assert data.terminated.sum() == 4
    assert data.rewards == pytest.approx(np.arange(SIZE) / 10)
    assert data.observations == pytest.approx(expected["o"], abs=1e-6)
    assert data.next_observations == pytest.approx(expected["n"], abs=1e-6)


def suggested(message: str) -> list[str]:
    """Return the settings in a message that a table's reader takes, without `dataset.columns.`."""
    settings = message.partition("by their names, set ")[2].partition("; to see why")[0]
    return [setting.removeprefix("dataset.columns.") for setting in shlex.split(settings)]


TIANSHOU = {
    **{"observation": "obs", "action": "act", "reward": "rew", "terminated": "terminated"},
    **{"truncated": "truncated", "next_observation": "obs_next"},
}
RLLIB = {
    **{"observation": "obs", "action": "actions", "reward": "rewards", "episode": "eps_id"},
    **{"terminated": "terminateds", "truncated": "truncateds", "next_observation": "new_obs"},
    "log_probability": "action_logp",
}
OLD_RLLIB = {**RLLIB, "terminated": "dones"}
del OLD_RLLIB["truncated"]


# --- Files that are not the data -----------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "csv", "npz", "hdf5"])
def test_a_pointer_a_page_and_an_empty_file_are_named(suffix: str, tmp_path: Path):
    path = tmp_path / f"my logs.{suffix}"
    path.write_bytes(LFS)
    pull = f"git -C {shlex.quote(str(tmp_path))} lfs pull"
    assert refusal(path).endswith(f"is a pointer of Git LFS, not the data: {pull}")
    path.write_bytes(HTML)
    assert "is a web page, not data" in refusal(path)
    path.write_bytes(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
    assert "is a web page, not data" in refusal(path)
    path.write_bytes(b"")
    assert "is empty (0 bytes)" in refusal(path)


def test_another_format_under_the_name_is_named(tmp_path: Path):
    table = write(tmp_path / "logs.parquet", {"obs_0": [1.0]})
    (tmp_path / "logs.csv").write_bytes(table.read_bytes())
    assert "is a Parquet file by its content: rename it to end in .parquet" in refusal(
        tmp_path / "logs.csv"
    )
    (tmp_path / "zipped.csv").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    assert "rename it to end in .gz" in refusal(tmp_path / "zipped.csv")
    with pytest.raises(DataError, match=r"is a Parquet file by its content: set dataset=table"):
        load(D4RLReader(table, "x", simulator=None, episode_length=None))
    assert "D4RL's layout by dataset=d4rl" in str(_open_error(tmp_path / "logs.h5"))


def _open_error(path: Path) -> DataError:
    path.write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        open_tables(str(path))
    return caught.value


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path):
    path = tmp_path / "logs.csv"
    lines = ["episode,obs_0,action,reward", *(f"{k // 5},{k}.5,{k % 2},1" for k in range(20))]
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    assert len(load_table(path)) == 16  # the last row of each episode has no next observation


# --- Deleting ------------------------------------------------------------------------------------


def test_only_a_downloaded_file_is_deleted(tmp_path: Path):
    """The user's own file is cut in half; then it is one that `download` recorded."""
    path = tmp_path / "logs.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((5_000, 3))
    path.write_bytes(path.read_bytes()[:50_000])
    message = refusal(path)
    assert "rm " not in message
    assert message.endswith("put an intact copy there")
    path.with_name("logs.hdf5.sha256").write_text(f"{file_sha256(path)}  logs.hdf5\n")
    assert f"(rm {path})" in refusal(path)


def test_only_a_recorded_data_set_is_deleted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert MinariReader("sim/hopper/medium-v0").remedy.startswith("delete ")
    assert MinariReader("mine/logs-v0").remedy.startswith("put an intact copy there, or if it was")
    (tmp_path / "mine" / "logs-v0").mkdir(parents=True)
    (tmp_path / "mine" / "logs-v0" / "manifest.json").write_text("{}")
    assert MinariReader("mine/logs-v0").remedy.startswith("delete ")


# --- Conversions ---------------------------------------------------------------------------------


def convert(message: str) -> Path:
    """Run the command of a message as a shell would; return the file that it names."""
    command = re.search(r"convert it by (.*) and set dataset=table (.*)", message)
    assert command is not None
    subprocess.run(["bash", "-c", command[1]], check=True)
    (setting,) = shlex.split(command[2])
    return Path(setting.removeprefix("dataset.path=").strip('"'))


def write_separated(path: Path, separator: str, decimal: str, encoding: str = "utf-8") -> Path:
    """Write 20 steps; the rewards of the first four are -0.25, -1.25, -2.25, -3.25."""
    rows = [["episode", "obs_0", "action", "reward", 'größe; "x", y']]
    rows += [[f"{k // 5}", f"{k}.5", f"{k % 2}", f"-{k}.25", "ä"] for k in range(20)]
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([cell.replace(".", decimal) for cell in row] for row in rows)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [",", "."])
def test_separators_and_decimal_commas_are_read(separator: str, decimal: str, tmp_path: Path):
    """Also with separators inside quotes, and quoted numbers."""
    if separator == decimal:
        pytest.skip("a quoted '1,5' beside commas may be 15: it is text")
    data = load_table(write_separated(tmp_path / "my 'logs'.csv", separator, decimal))
    assert data.rewards[:4].tolist() == [-0.25, -1.25, -2.25, -3.25]
    assert data.observations[:4, 0].tolist() == [0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("compressed", [False, True])
def test_other_encodings_are_read(encoding: str, compressed: bool, tmp_path: Path):
    path = write_separated(tmp_path / "logs.csv", ";", ",", encoding)
    if compressed:
        content = gzip.compress(path.read_bytes())
        path = tmp_path / "logs.csv.gz"
        path.write_bytes(content)
    if encoding == "cp1252":
        assert "is not UTF-8: set dataset.encoding" in refusal(path)
    codec = encoding if encoding.startswith(("cp", "utf-16")) else None
    data = load(TableReader(str(path), columns_of(), encoding=codec))
    assert data.rewards[:4].tolist() == [-0.25, -1.25, -2.25, -3.25]


@pytest.mark.parametrize("layout", ["lines", "list", "batches"])
def test_json_of_rllib_is_read(layout: str, tmp_path: Path):
    """One object per step, a list of them, or RLlib's own batches of ten steps."""
    arrays = {name: values.tolist() for name, values in logs(RLLIB).items()}
    rows = [{name: values[k] for name, values in arrays.items()} | {"infos": {}} for k in range(20)]
    batches = [
        {"type": "SampleBatch"} | {name: values[k : k + 10] for name, values in arrays.items()}
        for k in (0, 10)
    ]
    path = tmp_path / "output.json"
    lines = {"lines": rows, "batches": batches, "list": [rows]}[layout]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check_transitions(load_table(path, *suggested(refusal(path))))


def test_packed_columns_of_rllib_are_told(tmp_path: Path):
    path = tmp_path / "output.json"
    path.write_text(json.dumps({"type": "SampleBatch", "obs": "BCJNGGhAv", "rewards": [1.0]}))
    assert "ray.rllib.offline.json_reader.JsonReader" in refusal(path)


def test_a_flat_file_of_tianshou_is_converted(tmp_path: Path):
    path = tmp_path / "buffer.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in logs(TIANSHOU).items():
            file[name] = values
        file.create_group("info")
    message = refusal(path)
    assert "these are tianshou's: convert it by " in message
    target = convert(message)
    check_transitions(load_table(target, *suggested(refusal(target))))


@pytest.mark.parametrize(
    ("extra", "name"), [("buffers", "VectorReplayBuffer"), ("x", "ReplayBuffer")]
)
def test_a_saved_buffer_of_tianshou_is_read_by_tianshou(extra: str, name: str, tmp_path: Path):
    path = tmp_path / "buffer.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("_meta")["obs"] = np.zeros(3)
        file[extra] = 0
    assert f"from tianshou.data import {name} as B" in refusal(path)


# --- Names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
@pytest.mark.parametrize("names", [TIANSHOU, RLLIB, OLD_RLLIB], ids=["tianshou", "RLlib", "old"])
def test_the_names_of_other_libraries_are_mapped(
    names: dict[str, str], suffix: str, tmp_path: Path
):
    """Arrays [N, D] of an NPZ, and columns of lists in Parquet."""
    columns = {name: list(v) if suffix == "parquet" else v for name, v in logs(names).items()}
    path = write(tmp_path / f"logs.{suffix}", columns)
    message = refusal(path)
    assert "'dataset.columns.observation=[obs_0,obs_1]' " in message.replace('"', "")
    assert message.count("action_logp") <= 1  # among the columns only
    check_transitions(load_table(path, *suggested(message)))


def test_with_single_decisions_no_setting_without_effect_is_suggested(tmp_path: Path):
    path = write(tmp_path / "logs.npz", logs(RLLIB))
    with pytest.raises(DataError) as caught:
        load(TableReader(str(path), columns_of(), one_step=True))
    settings = suggested(str(caught.value))
    assert [setting.partition("=")[0] for setting in settings] == [
        "observation",
        "action",
        "reward",
    ]
    assert len(load(TableReader(str(path), columns_of(*settings), one_step=True))) == 20


def test_logarithms_of_probabilities_are_recognized(tmp_path: Path):
    path = write(tmp_path / "logs.npz", logs(RLLIB))
    settings = [*suggested(refusal(path)), "propensity=action_logp"]
    assert "are not within (0, ∞) (if they are logarithms, take exp)" in refusal(path, *settings)


# --- Lists per row -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2)])
def test_a_list_per_row_is_a_column_per_number(kind: Any, tmp_path: Path):
    """Row k has the observation (k, -k); chunks of 7 rows, row groups of 6."""
    path = tmp_path / "logs.parquet"
    table = {
        "obs": pa.array([[k, -k] for k in range(20)], kind),
        "action": pa.array([[k % 2] for k in range(20)]),  # one number: the column itself
        "reward": np.arange(20.0),
        "episode": np.arange(20) // 10,
    }
    pq.write_table(pa.table(table), path, row_group_size=6)
    data = load_table(path, chunk=7)
    assert data.observation_names == ("obs_0", "obs_1")
    kept = [k for k in range(20) if k % 10 != 9]
    assert data.observations.tolist() == [[k, -k] for k in kept]
    assert data.actions.tolist() == [k % 2 for k in kept]


def test_a_missing_list_is_a_missing_value(tmp_path: Path):
    """A terminated row needs no next observation; an observation has to be there."""
    columns = logs(RLLIB)
    following = [
        None if done else list(row)
        for row, done in zip(columns["new_obs"], columns["terminateds"], strict=True)
    ]
    columns = {name: list(values) for name, values in columns.items()}
    path = write(tmp_path / "logs.parquet", columns | {"new_obs": following})
    assert len(load_table(path, *suggested(refusal(path)))) == 20
    write(path, columns | {"obs": [*columns["obs"][:3], None, *columns["obs"][4:]]})
    assert "at row 3, column obs_0: the value is missing" in refusal(
        path, *suggested(refusal(path))
    )


def test_lists_of_several_lengths_are_refused(tmp_path: Path):
    columns = {"obs": [[1.0, 2.0]] * 8 + [[1.0]], "action": [0, 1, 0] * 3, "reward": [0.0] * 9}
    path = write(tmp_path / "logs.parquet", columns | {"episode": [0] * 9})
    message = refusal(path)
    assert f"{path} at row 8, column obs: 1 numbers, in the first row 2" in message


# --- Many columns --------------------------------------------------------------------------------


def test_ten_thousand_columns_are_read(tmp_path: Path):
    names = [f"c{k}" for k in range(10_000)]
    path = tmp_path / "wide.csv"
    path.write_text(f"{','.join(names)}\n{','.join('1' * 10_000)}\n")
    assert open_tables(str(path))[0].schema.names == names
    path.write_text(f"{','.join([*names, 'c7'])}\n")
    assert "has more than one column 'c7': rename one" in refusal(path)


def test_a_csv_of_more_columns_than_are_read_is_refused(tmp_path: Path):
    path = tmp_path / "wide.csv"
    path.write_text(f"{','.join(f'c{k}' for k in range(100_000))}\n{','.join('1' * 100_000)}\n")
    assert "has 100,000 columns, of a CSV 20,000 are read" in refusal(path)
