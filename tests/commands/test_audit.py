"""Guarantee: python audit.py prints the audit, writes its files and sets the exit code.

A run starts with the short audit and keeps it in its folder.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.config import compose_config, run_entry_point, settings
from support.train import SIZE, TINY, train_run

from offline_cql import Run
from offline_cql.audit.finding import Finding
from offline_cql.commands.audit import audit, next_command, raise_for_findings
from offline_cql.errors import ConfigError, DataError
from offline_cql.io import read_json
from offline_cql.render.terminal import Terminal

pytestmark = pytest.mark.usefixtures("recorded")


def write_table(
    folder: Path, *, reward: float | None = None, terminated: bool = False
) -> tuple[str, ...]:
    """Write a log of 50 episodes of 30 steps that all end terminated or all truncated.

    Returns the overrides that select it.
    """
    generator = np.random.default_rng(0)
    size = 1_500
    action = generator.uniform(-1, 1, size)
    position = generator.normal(size=size)
    last = np.arange(size) % 30 == 29
    columns = {
        "obs_x": position,
        "obs_y": generator.normal(size=size),
        "action": action,
        "reward": np.full(size, reward) if reward is not None else position - action**2,
        "episode": np.arange(size) // 30,
        "step": np.arange(size) % 30,
        "terminated": last & terminated,
        "truncated": last & (not terminated),
    }
    pq.write_table(pa.table(columns), folder / "logs.parquet")
    return ("env=logged", "dataset=table", f"dataset.path={folder}/logs.parquet")


def run_audit(out: Path, *overrides: str) -> dict:
    audit(compose_config(*overrides, f"out={out}", entry_point="audit"))
    return read_json(out / "audit.json")


# --- python audit.py -----------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["pendulum", pytest.param("cartpole", marks=pytest.mark.slow)])
def test_simulated_data_set_has_no_warnings(env: str, tmp_path: Path):
    process = run_entry_point(
        "audit", f"env={env}", f"dataset.size={SIZE}", f"out={tmp_path}/new/{env}"
    )
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert f"audit of sim/{env}/mixed_{SIZE}-v0" in lines[0]
    assert max(len(line) for line in lines if line.startswith(("│", "├", "┌"))) <= 80
    assert lines[-1] == f"next    python train.py env={env} dataset.size={SIZE}"
    content = read_json(tmp_path / "new" / env / "audit.json")
    assert content["identity"]["transitions"] == SIZE
    assert not content["short"]
    assert [f["name"] for f in content["findings"] if f["level"] != "note"] == []
    assert (tmp_path / "new" / env / "audit.html").read_text().startswith("<!DOCTYPE html>")


def test_second_audit_creates_its_own_folder(tmp_path: Path):
    for _ in range(2):
        run_audit(tmp_path / "out", f"dataset.size={SIZE}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-2"]


@pytest.mark.slow
def test_unreadable_data_are_one_line_on_stderr(tmp_path: Path):
    broken = tmp_path / "logs.parquet"
    broken.write_text("<html>not found</html>")
    process = run_entry_point("audit", "env=logged", "dataset=table", f"dataset.path={broken}")
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert process.stdout == ""


def test_error_finding_is_exit_code_2_after_the_page(tmp_path: Path):
    out = tmp_path / "out"
    process = run_entry_point("audit", *write_table(tmp_path, reward=0.0), f"out={out}")
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert "1 error, the first: every reward is 0" in process.stderr
    assert process.stderr.count("\n") == 1
    assert (out / "audit.html").exists()


def test_strict_turns_warnings_into_errors(tmp_path: Path):
    overrides = write_table(tmp_path, terminated=True)
    content = run_audit(tmp_path / "out", *overrides)
    warnings = [f["name"] for f in content["findings"] if f["level"] == "warning"]
    assert warnings == ["time_limit_as_terminated"]
    with pytest.raises(DataError, match="1 warning, the first: 50 of 50 episodes terminate"):
        run_audit(tmp_path / "strict", *overrides, "strict=true")
    assert (tmp_path / "strict" / "audit.json").exists()


def test_columns_keep_the_names_of_the_table(tmp_path: Path):
    content = run_audit(tmp_path / "out", *write_table(tmp_path))
    assert [column["name"] for column in content["observations"]["columns"]] == ["obs_x", "obs_y"]


@pytest.mark.parametrize("discrete", [True, False])
def test_the_policy_of_a_run_is_compared_with_the_logged_actions(
    discrete: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The same figures as the run's policy gives, in the table, the page and the file."""
    data = write_table(tmp_path)
    if discrete:
        sql = "=CASE WHEN action > 0 THEN 'up' ELSE 'down' END"
        data = (*data, f'dataset.columns.action=["{sql}"]')
    without = ("dataset.size", "cql.n_act", "network.actor") if discrete else ("dataset.size",)
    tiny = [setting for setting in TINY if not setting.startswith(without)]
    run = Run(train_run(tmp_path / "run", *tiny, *data, "updates=20"))
    content = run_audit(tmp_path / "audit", *data, f"run={run.folder}")["policy"]
    table = pq.read_table(tmp_path / "logs.parquet").to_pydict()
    observations = np.stack([table["obs_x"], table["obs_y"]], axis=1)
    last = np.arange(len(observations)) % 30 == 29  # without a next observation
    chosen = run.policy().predict(observations[~last])
    logged = np.array(table["action"])[~last]
    printed = capsys.readouterr().out
    if discrete:
        shares = {action["name"]: action["chosen"] for action in content["actions"]}
        assert shares == {"down": (chosen == 0).mean(), "up": (chosen == 1).mean()}
        assert content["agreement"] == ((logged > 0) == chosen).mean()
        assert "up" in printed
    else:
        (dimension,) = content["dimensions"]
        assert dimension["chosen"]["mean"] == pytest.approx(chosen.mean(), abs=1e-6)
        difference = np.abs(chosen[:, 0] - logged).mean()
        assert dimension["difference"] == pytest.approx(difference, abs=1e-6)
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert '<h2 id="policy">Policy</h2>' in page
    with pytest.raises(ConfigError, match="does not fit these data: its observations differ"):
        run_audit(tmp_path / "other", f"run={run.folder}", f"dataset.size={SIZE}")
    if discrete:
        other = (*data[:-1], data[-1].replace("up", "high"))
        with pytest.raises(ConfigError, match="does not fit these data: its actions differ"):
            run_audit(tmp_path / "other", *other, f"run={run.folder}")


def test_infer_prints_a_mapping_and_writes_nothing(tmp_path: Path, capsys):
    overrides = write_table(tmp_path)
    audit(compose_config(*overrides, "infer=true", f"out={tmp_path / 'out'}", entry_point="audit"))
    printed = capsys.readouterr().out
    assert "obs_x" in printed
    assert not (tmp_path / "out").exists()


def test_scores_and_split_follow_the_settings(tmp_path: Path):
    overrides = (f"dataset.size={SIZE}", "dataset.validation_fraction=0.5", "gamma=0.5")
    content = run_audit(tmp_path / "out", *overrides)
    assert content["scores"]["reference_max"] == -150.0
    assert content["scores"]["reference_source"] == "random actions and a good controller, rounded"
    split = content["split"]
    episodes = split["validation_episodes"] + split["training_episodes"]
    assert episodes == content["identity"]["episodes"]
    assert content["episodes"]["gamma"] == 0.5


def test_infer_needs_a_table():
    message = "infer=true needs your own file: dataset=table dataset.path=FILE"
    with pytest.raises(ConfigError, match=message):
        settings("infer=true", entry_point="audit")


def finding(level: str) -> Finding:
    return Finding(level=level, name="x", message=f"first {level}", remedy="repair it")


def test_exit_depends_on_levels_and_strict():
    raise_for_findings([finding("warning"), finding("note")], "id", strict=False)
    raise_for_findings([finding("note")], "id", strict=True)
    mixed = [finding("error"), finding("warning"), finding("warning")]
    with pytest.raises(DataError, match="id: 1 error, the first: first error; repair it"):
        raise_for_findings(mixed, "id", strict=True)
    with pytest.raises(DataError, match="id: 2 warnings, the first"):
        raise_for_findings(mixed[1:], "id", strict=True)


# --- The short audit of a run --------------------------------------------------------------------


@pytest.mark.slow
def test_run_prints_the_summary_and_keeps_the_short_audit(tmp_path: Path):
    process = run_entry_point("train", *TINY, "updates=10", f"run_dir={tmp_path}/run")
    assert process.returncode == 0
    first, second, *_ = process.stderr.splitlines()
    assert first == (
        "data     sim/pendulum/mixed_2000-v0 · 2,000 transitions in 30 episodes · "
        "3 columns → 1 continuous dimension"
    )
    assert second.startswith("         behavior return -")
    content = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert content["short"]
    assert content["identity"]["transitions"] == SIZE
    assert content["neighbors"] is None

    resumed = run_entry_point("train", f"resume={tmp_path}/run", "updates=20")
    assert resumed.returncode == 0
    assert "data  " not in resumed.stderr


@pytest.mark.slow
def test_grid_prints_the_summary_once_and_every_run_keeps_the_audit(tmp_path: Path):
    process = run_entry_point(
        *("train", "-m", *TINY, "updates=10", "seed=0,1", f"run_dir={tmp_path}/run-${{seed}}"),
        f"hydra.sweep.dir={tmp_path}/grid",
    )
    assert process.returncode == 0
    assert process.stderr.count("data     sim/pendulum") == 1
    for seed in (0, 1):
        assert read_json(tmp_path / f"run-{seed}" / "audit.json")["short"]


@pytest.mark.slow
def test_warnings_are_printed_before_training(tmp_path: Path):
    process = run_entry_point(
        "train", *TINY, "updates=10", "dataset.reward_scale=1e-6", f"run_dir={tmp_path}/r"
    )
    assert process.returncode == 0
    assert process.stderr.splitlines()[2].startswith("warning  critic values are of the order of ")


@pytest.mark.slow
def test_rewards_of_any_size_are_no_problem_in_units_of_the_returns(tmp_path: Path):
    unit = ("cql.alpha_unit=return", "dataset.reward_scale=1e-6", f"run_dir={tmp_path}/r")
    process = run_entry_point("train", *TINY, "updates=10", *unit)
    assert process.returncode == 0
    assert "critic values" not in process.stderr
    findings = read_json(tmp_path / "r" / "audit.json")["findings"]
    assert "reward_scale" not in [finding["name"] for finding in findings]


def test_next_command_repeats_the_arguments_without_the_keys_of_audit():
    typed = ["env=logged", "dataset=table", "dataset.path=my logs.parquet", "strict=true", "-m"]
    command = "python train.py env=logged dataset=table 'dataset.path=my logs.parquet'"
    assert next_command(typed) == command


def test_next_command_is_printed_with_its_brackets():
    """rich would take [x,y] for markup and drop it."""
    file = io.StringIO()
    command = next_command(["dataset=table", "dataset.columns.observation=[x,y]"])
    Terminal(file=file, width=20).print_line(command)
    expected = "python train.py dataset=table 'dataset.columns.observation=[x,y]'\n"
    assert file.getvalue() == expected
