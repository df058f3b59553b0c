"""Promise: python audit.py says what is in the data, leaves files, and ends as a script needs it;
a run starts with the short form and keeps it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.config import CONF, composed
from support.train import SIZE, TINY

from offline_cql.commands.audit import audit, following
from offline_cql.config import AuditConfig, typed_as
from offline_cql.errors import ConfigError, DataError
from offline_cql.io import read_json

pytestmark = pytest.mark.usefixtures("recorded")

ROOT = CONF.parent


def entry_point(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python <name>.py <arguments>` in a terminal of 80 columns."""
    return subprocess.run(
        [sys.executable, f"{name}.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
        timeout=300,
        check=False,
    )


def table(folder: Path, *, reward: float | None = None, terminal: bool = False) -> Path:
    """A log of 50 episodes of 30 steps: a number that is pushed; with terminal, all end so."""
    generator = np.random.default_rng(0)
    size = 1_500
    action = generator.uniform(-1, 1, size)
    seen = generator.normal(size=size)
    last = np.arange(size) % 30 == 29
    columns = {
        "obs_x": seen,
        "obs_y": generator.normal(size=size),
        "action": action,
        "reward": np.full(size, reward) if reward is not None else seen - action**2,
        "episode": np.arange(size) // 30,
        "step": np.arange(size) % 30,
        "terminated": last & terminal,
        "truncated": last & (not terminal),
    }
    path = folder / "logs.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def audited(out: Path, *overrides: str) -> dict:
    audit(composed(*overrides, f"out={out}", entry_point="audit"))
    return read_json(out / "audit.json")


# --- The entry_point ------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["pendulum", "cartpole"])
def test_an_simulated_data_set_is_audited(env: str, tmp_path: Path):
    done = entry_point("audit", f"env={env}", f"dataset.size={SIZE}", f"out={tmp_path}/new/{env}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f"audit of sim/{env}/mixed_{SIZE}-v0" in lines[0]
    assert max(len(line) for line in lines if line.startswith(("│", "├", "┌"))) <= 80
    assert lines[-1] == f"next    python train.py env={env} dataset.size={SIZE}"
    found = read_json(tmp_path / "new" / env / "audit.json")
    assert found["identity"]["transitions"] == SIZE
    assert not found["short"]
    assert [f["name"] for f in found["findings"] if f["level"] != "note"] == []
    assert (tmp_path / "new" / env / "audit.html").read_text().startswith("<!DOCTYPE html>")


def test_a_second_audit_takes_a_folder_of_its_own(tmp_path: Path):
    for _ in range(2):
        audited(tmp_path / "out", f"dataset.size={SIZE}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-2"]


def test_data_that_cannot_be_read_are_one_line(tmp_path: Path):
    broken = tmp_path / "logs.parquet"
    broken.write_text("<html>not found</html>")
    done = entry_point("audit", "env=logged", "dataset=table", f"dataset.path={broken}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_error_that_was_found_is_exit_code_2_after_the_page(tmp_path: Path):
    path = table(tmp_path, reward=0.0)
    out = tmp_path / "out"
    done = entry_point("audit", "env=logged", "dataset=table", f"dataset.path={path}", f"out={out}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "1 error, the first: every reward is 0" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (out / "audit.html").exists()


def test_strict_makes_warnings_errors(tmp_path: Path):
    path = table(tmp_path, terminal=True)
    mine = ("env=logged", "dataset=table", f"dataset.path={path}")
    found = audited(tmp_path / "out", *mine)["findings"]
    assert [f["name"] for f in found if f["level"] == "warning"] == ["time_limit_as_terminal"]
    with pytest.raises(DataError, match="1 warning, the first: 50 of 50 episodes end terminal"):
        audited(tmp_path / "strict", *mine, "strict=true")
    assert (tmp_path / "strict" / "audit.json").exists()


def test_columns_have_the_names_of_the_table(tmp_path: Path):
    path = table(tmp_path)
    found = audited(tmp_path / "out", "env=logged", "dataset=table", f"dataset.path={path}")
    assert [c["name"] for c in found["columns"]["columns"]] == ["obs_x", "obs_y"]


def test_infer_prints_a_mapping_and_audits_nothing(tmp_path: Path, capsys):
    path = table(tmp_path)
    mine = ("env=logged", "dataset=table", f"dataset.path={path}")
    audit(composed(*mine, "infer=true", f"out={tmp_path / 'out'}", entry_point="audit"))
    printed = capsys.readouterr().out
    assert "obs_x" in printed
    assert not (tmp_path / "out").exists()


def test_scores_and_split_are_those_of_the_settings(tmp_path: Path):
    found = audited(
        tmp_path / "out", f"dataset.size={SIZE}", "dataset.validation_fraction=0.5", "gamma=0.5"
    )
    assert found["scores"]["reference_max"] == -150.0
    assert found["scores"]["reference_source"] == "random actions and a good controller, rounded"
    split = found["split"]
    assert (
        split["validation_episodes"] + split["training_episodes"] == found["identity"]["episodes"]
    )
    assert found["episodes"]["gamma"] == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("infer=true", "infer=true needs your own file: dataset=table dataset.path=FILE"),
        ("gamma=1", "gamma=1 must be >= 0 and < 1"),
        ("dataset.quality=expert", "dataset.quality=expert must be one of mixed"),
    ],
)
def test_settings_that_cannot_be(override: str, message: str):
    with pytest.raises(ConfigError) as error:
        typed_as(AuditConfig, composed(override, entry_point="audit"))
    assert str(error.value).startswith(message)


# --- The short form ------------------------------------------------------------------------------


def test_a_run_starts_with_the_short_form_and_keeps_it(tmp_path: Path):
    done = entry_point("train", *TINY, "updates=10", f"run_dir={tmp_path}/run")
    assert done.returncode == 0
    first, second, *_ = done.stderr.splitlines()
    assert first == (
        "data     sim/pendulum/mixed_2000-v0 · 2,000 transitions in 30 episodes · "
        "3 numbers → 1 continuous"
    )
    assert second.startswith("         return -")
    found = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert found["short"]
    assert found["identity"]["transitions"] == SIZE
    assert found["neighbors"] is None

    again = entry_point("train", f"resume={tmp_path}/run", "updates=20")
    assert again.returncode == 0
    assert "data  " not in again.stderr


def test_a_grid_says_it_once_and_every_run_keeps_it(tmp_path: Path):
    done = entry_point(
        *("train", "-m", *TINY, "updates=10", "seed=0,1", f"run_dir={tmp_path}/run-${{seed}}"),
        f"hydra.sweep.dir={tmp_path}/grid",
    )
    assert done.returncode == 0
    assert done.stderr.count("data     sim/pendulum") == 1
    for seed in (0, 1):
        assert read_json(tmp_path / f"run-{seed}" / "audit.json")["short"]


def test_warnings_are_said_before_training(tmp_path: Path):
    done = entry_point(
        "train", *TINY, "updates=10", "dataset.reward_scale=1e-6", f"run_dir={tmp_path}/r"
    )
    assert done.returncode == 0
    assert done.stderr.splitlines()[2].startswith("warning  values are of the order of ")


def test_the_next_command_is_what_was_typed_without_the_audits_own_words():
    typed = ["env=logged", "dataset=table", "dataset.path=my logs.parquet", "strict=true", "-m"]
    assert (
        following(typed)
        == "python train.py env=logged dataset=table 'dataset.path=my logs.parquet'"
    )
