"""Guarantee: rows are lost only in small shares, or with the share, the reason and the remedy.

Logs of single decisions, short episodes without marks of their ends, time limits in every row.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.config import settings
from support.logged import cart_data, statistics_of
from support.table_case import Columns, columns_of, episodes, load_table, write

from offline_cql.audit.finding import Finding
from offline_cql.audit.rules import apply_rules
from offline_cql.errors import ConfigError, DataError
from offline_cql.readers import load
from offline_cql.readers.d4rl import D4RLReader
from offline_cql.readers.table.reader import TableReader
from offline_cql.transitions import Transitions


def decisions(n: int = 600) -> Columns:
    """Return a bandit's log: three contexts, three choices, no next observation, no end."""
    rng = np.random.default_rng(0)
    context, choice = rng.integers(0, 3, (2, n))
    return {
        **{f"obs_{k}": (context == k) * 1.0 for k in range(3)},
        "action": choice,
        "reward": (rng.random(n) < 0.3).astype(int),
        "round": np.arange(n),
    }


def findings_of(data: Transitions) -> dict[str, Finding]:
    """Return the findings of a full audit by name."""
    return {finding.name: finding for finding in apply_rules(statistics_of(data))}


def load_decisions(path: Path, *overrides: str) -> Transitions:
    return load(TableReader(str(path), columns_of(*overrides), one_step=True))


def test_single_decisions_without_an_end_are_refused_with_the_remedy(tmp_path: Path):
    """Each of 600 rows is an episode and has no next observation: all would be dropped."""
    path = write(tmp_path / "bandit.csv", decisions())
    with pytest.raises(DataError) as caught:
        load_table(path, "episode=round")
    message = str(caught.value)
    assert message.startswith(f"{path}: 600 of 600 rows (100%) would be dropped: ")
    assert "has no next observation" in message
    assert "dataset.columns.terminated" in message
    assert "dataset.columns.truncated" in message
    assert "dataset.one_step=true" in message


def test_a_log_that_names_no_ends_is_told_of_single_decisions(tmp_path: Path):
    path = write(tmp_path / "bandit.csv", decisions())
    with pytest.raises(DataError, match=r"ends of episodes are unknown.*dataset\.one_step=true"):
        load_table(path)


@pytest.mark.parametrize("ends", [{}, {"terminated": [0] * 600, "episode": [7] * 600}])
def test_one_step_uses_every_row(ends: Columns, tmp_path: Path):
    """600 episodes of one step, all terminated; columns with usual names change nothing."""
    columns = decisions() | ends
    data = load_decisions(write(tmp_path / "bandit.csv", columns))
    assert len(data) == len(data.ends) == 600
    assert data.terminated.all()
    assert not data.truncated.any()
    assert data.rewards.tolist() == columns["reward"].tolist()
    assert data.actions.tolist() == columns["action"].tolist()
    assert data.repairs == {}


@pytest.mark.parametrize(
    "override",
    [
        "episode=round",
        "step=round",
        "terminated=done",
        "truncated=done",
        "next_observation=[next_*]",
    ],
)
def test_columns_of_longer_episodes_are_refused_with_one_step(override: str):
    table = ("env=logged", "dataset=table", "dataset.path=x", "dataset.one_step=true")
    with pytest.raises(ConfigError, match=r"has no effect with dataset\.one_step=true"):
        settings(*table, f"dataset.columns.{override}")


@pytest.mark.parametrize(
    ("length", "end", "lost"),
    [(2, "", "40 of 80 rows (50%)"), (4, "", "40 of 160 rows (25%)"), (1, "U", "40 of 40")],
)
def test_short_episodes_without_a_next_observation_are_refused(
    length: int, end: str, lost: str, tmp_path: Path
):
    """40 episodes lose their last row each: an error above a fifth, if no column says why."""
    columns = episodes([length] * 40, [end] * 40)
    path = write(tmp_path / "logs.parquet", columns | {"action_0": columns["action_1"]})
    with pytest.raises(DataError) as caught:
        load_table(path)
    assert f"{lost}" in str(caught.value)
    assert "would be dropped" in str(caught.value)


@pytest.mark.parametrize(
    ("length", "end", "share", "level"),
    [(4, "U", "25%", "warning"), (10, "", "10%", "warning"), (50, "", "2%", "note")],
)
def test_smaller_losses_are_said_by_their_share(
    length: int, end: str, share: str, level: str, tmp_path: Path
):
    """One row of each episode of 4, 10 or 50: 25, 10 and 2 %; a warning above 5 %."""
    path = write(tmp_path / "logs.parquet", episodes([length] * 40, [end] * 40))
    finding = findings_of(load_table(path))["repaired_dropped_last_steps"]
    assert finding.level == level
    assert finding.message == f"40 last steps had no next observation and were dropped ({share})"
    assert ("terminated" in finding.remedy) == (level == "warning")


def test_terminated_rows_of_single_decisions_are_kept(tmp_path: Path):
    columns = decisions() | {"terminated": np.ones(600, int)}
    data = load_table(write(tmp_path / "bandit.parquet", columns))
    assert len(data) == 600
    assert data.repairs == {}
    assert findings_of(data)["single_step_episodes"].level == "note"


def test_a_file_of_d4rl_with_time_limits_everywhere_is_refused(tmp_path: Path):
    """7 of the 9 rows before the last are at timeouts and dropped, as D4RL's reader does."""
    timeouts = np.arange(10) % 5 != 0
    arrays: dict[str, Any] = {
        "observations": np.zeros((10, 2)),
        "actions": np.zeros((10, 1)),
        "rewards": np.zeros(10),
        "terminals": np.zeros(10, bool),
        "timeouts": timeouts,
    }
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    reader = D4RLReader(tmp_path / "log.hdf5", "log", simulator=None, episode_length=None)
    with pytest.raises(DataError, match=r"log: 7 of 9 rows .78%. would be dropped: .*time limit"):
        load(reader)


# --- Copies --------------------------------------------------------------------------------------


def test_copies_of_single_decisions_are_not_to_be_removed(tmp_path: Path):
    """3 contexts × 3 choices × 2 rewards: at most 18 different rows among 600."""
    data = load_decisions(write(tmp_path / "bandit.csv", decisions()))
    finding = findings_of(data)["duplicate_episodes"]
    assert finding.level == "note"
    assert "582 of 600 episodes are copies" in finding.message
    assert "3 different observations" in finding.remedy
    assert "remove" not in finding.remedy


def test_copies_of_rare_observations_are_to_be_removed():
    """60 episodes of real numbers, written twice."""

    def twice(log: dict[str, Any]) -> dict[str, Any]:
        joined = {name: np.concatenate([values, values]) for name, values in log.items()}
        joined["episodes"] = np.concatenate([log["episodes"], log["episodes"] + 60])
        return joined

    finding = findings_of(cart_data(twice))["duplicate_episodes"]
    assert finding.level == "warning"
    assert "remove the copies" in finding.remedy
