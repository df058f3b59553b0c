"""Guarantee: an estimate never rests on rows that its policy was learned from, and says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import discrete_data, image_data, settings
from support.config import compose_config
from support.run_dirs import write_run
from support.train import TINY, train_run

from offline_cql.commands import evaluate as module
from offline_cql.commands.evaluate import evaluate
from offline_cql.commands.load_run import load_config
from offline_cql.config import EvaluateConfig, validate_config
from offline_cql.data.split import episode_rows, split_episodes
from offline_cql.errors import ConfigError
from offline_cql.io import read_json, write_json
from offline_cql.ope.behavior import CONTINUED, behavior_value
from offline_cql.ope.episodes import select_episodes, validation_episodes
from offline_cql.ope.estimate import UNSEEN
from offline_cql.ope.fqe import BEYOND, FittedQEvaluation
from offline_cql.ope.importance import doubly_robust
from offline_cql.report.load_runs import load_runs
from offline_cql.report.messages import commands, export_command, sentences
from offline_cql.report.model_selection import Limits, Selection
from offline_cql.report.summary import summarize
from offline_cql.transitions import Spaces, Transitions

FAST = ("ope=fqe", "ope.updates=20", "ope.ensemble_size=5", "evaluation.episodes=0")
SHORT = ("updates=20", "checkpoint_every=20", "evaluation.every=20")


def selection_of(folder: Path) -> Selection:
    """Return the recommendation of report.py for the runs below a folder."""
    limits = Limits(above_best_share=0.05, bc_margin=0.1)
    summary = summarize(load_runs(str(folder)), limits, resamples=10, seed=0)
    (selection,) = summary.selections.values()
    return selection


# --- The episodes --------------------------------------------------------------------------------


def test_selected_episodes_keep_their_rows_and_ends():
    """Episodes 1 and 3 of four with 16 steps: rows 16 to 31 and 48 to 63, ends 16 and 32."""
    data = discrete_data(64)
    part = select_episodes(data, np.array([1, 3]))
    assert part.ends.tolist() == [16, 32]
    expected = np.concatenate([data.rows[16:32], data.rows[48:64]])
    assert np.array_equal(part.rows, expected)


def test_selected_episodes_keep_their_images_and_propensities():
    """Row r has propensity r / 64: those of episode 2 begin at 32 / 64."""
    data = image_data(64)
    object.__setattr__(data, "propensities", (np.arange(64) / 64).astype(np.float32))
    part = select_episodes(data, np.array([2]))
    assert part.images is not None
    assert part.propensities is not None
    assert np.array_equal(part.images, data.images[32:48])  # type: ignore[index]
    assert part.propensities[0] == 0.5


def test_estimates_read_none_of_the_training_rows(recorded: Path, tmp_path: Path):
    """Training rewards of 1,000,000, put in after the training, change no estimate."""
    folder = train_run(tmp_path / "run", *TINY, *SHORT, "dataset.validation_fraction=0.4")
    config = compose_config(f"run={folder}", *FAST, entry_point="evaluate")
    evaluate(config)
    before = read_json(folder / "ope.json")

    def poisoned(*arguments: Any) -> Any:
        data = load_run_data(*arguments)
        rows = np.array(data.rows)
        training = split_episodes(data, load_config(folder).dataset).training
        rows[episode_rows(data, training), data.columns.reward] = 1e6
        object.__setattr__(data, "rows", rows)
        return data

    load_run_data = module.load_run_data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_run_data", poisoned)
        evaluate(config)
    after = read_json(folder / "ope.json")
    assert after["checkpoints"] == before["checkpoints"]
    assert after["behavior"] == before["behavior"]
    assert after["validation_episodes"] == before["validation_episodes"] == 12


def test_the_behavior_beside_them_is_of_the_same_episodes():
    """Rewards 0 in training and 1 in validation episodes, gamma 0.5: 16 steps earn 2 − 2**-15."""
    data = discrete_data(160)
    part = validation_episodes(data, settings("dataset.validation_fraction=0.2").dataset)
    assert len(part.ends) == 2
    part.rows[:, part.columns.reward] = 1.0
    part.rows[part.ends - 1, part.columns.terminated] = 1.0
    assert behavior_value(part, gamma=0.5, seed=0).value == pytest.approx(2 - 2**-15)


# --- What is printed -----------------------------------------------------------------------------


def test_the_assumption_is_printed_with_the_estimates(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = train_run(tmp_path / "run", *TINY, *SHORT, "dataset.validation_fraction=0.4")
    evaluate(compose_config(f"run={folder}", *FAST, entry_point="evaluate"))
    assert f"assumes {UNSEEN}" in capsys.readouterr().out


def test_without_validation_episodes_there_is_no_estimate(recorded: Path, tmp_path: Path):
    folder = train_run(tmp_path / "run", *TINY, *SHORT)
    message = "has no validation episodes, .* train again with dataset.validation_fraction=0.2"
    with pytest.raises(ConfigError, match=message):
        evaluate(compose_config(f"run={folder}", *FAST, entry_point="evaluate"))
    assert not (folder / "ope.json").exists()


def test_without_validation_episodes_there_is_no_ship(tmp_path: Path):
    """The estimate 60 to 70 is above the data's 50, but is from the training episodes."""
    without = {"dataset.validation_fraction": 0.0}
    folder = write_run(tmp_path / "run", bounds={200: (60, 70)}, settings=without)
    content = read_json(folder / "ope.json")
    del content["validation_episodes"]  # as written before estimates had to be unseen
    write_json(folder / "ope.json", content)
    selection = selection_of(tmp_path)
    assert selection.ship is None
    verdict = sentences(selection)[0]
    assert verdict.startswith("No recommendation: all episodes were trained on")
    assert verdict.endswith("train again with dataset.validation_fraction=0.2")
    assert commands(selection) == []
    assert export_command(selection) is None


def test_estimates_from_training_episodes_are_made_again(tmp_path: Path):
    """The run has validation episodes; its ope.json is older: evaluate.py is proposed."""
    folder = write_run(tmp_path / "run", bounds={200: (60, 70)})
    content = read_json(folder / "ope.json")
    del content["validation_episodes"]
    write_json(folder / "ope.json", content)
    selection = selection_of(tmp_path)
    assert selection.ship is None
    assert "learned from, which are too high: they are not used." in " ".join(selection.notes)
    (command,) = commands(selection)
    assert command.startswith(f"python evaluate.py run={folder} ope=fqe")


@pytest.mark.parametrize("source", ["table dataset.path=logs.csv", "minari dataset.id=a/b-v0"])
def test_without_a_simulator_a_fifth_is_kept_out_of_training(source: str):
    """env=logged: 0.2; a task with a simulator: 0."""
    logged = compose_config("env=logged", *f"dataset={source}".split())
    assert logged.dataset.validation_fraction == 0.2
    assert compose_config(*f"dataset={source}".split()).dataset.validation_fraction == 0.0


# --- Logs that end by truncation -----------------------------------------------------------------


def one_step_log(*, terminated: bool) -> Transitions:
    """Return 40 episodes of two steps with reward 1 each and one of two actions."""
    size = 80
    return Transitions.pack(
        observations=np.zeros((size, 1)),
        actions=np.arange(size) // 2 % 2,
        rewards=np.ones(size),
        next_observations=np.zeros((size, 1)),
        terminated=(np.arange(size) % 2 == 1) & terminated,
        episodes=np.arange(size) // 2,
        spaces=Spaces(1, 2, True, (), ()),
        dataset_id="test/two-steps-v0",
    )


def test_the_behavior_value_tells_what_was_observed():
    """Rewards 1, 1 and gamma 0.5: 1.5 observed; continued at 1 it is 2, of which 0.5 is not."""
    value = behavior_value(one_step_log(terminated=False), gamma=0.5, seed=0)
    assert (value.value, value.observed, value.extrapolated) == (2.0, 1.5, 0.5)
    assert value.assumptions == (CONTINUED,)


def test_nothing_is_extrapolated_where_every_episode_terminated():
    value = behavior_value(one_step_log(terminated=True), gamma=0.5, seed=0)
    assert (value.value, value.extrapolated, value.assumptions) == (1.5, 0.0, ())


@pytest.mark.parametrize(("terminated", "extrapolated"), [(True, 0.0), (False, 0.5)])
def test_fitted_q_evaluation_tells_what_it_extrapolates(terminated: bool, extrapolated: float):
    """The value of a state is 1 / (1 − 0.5) = 2: beyond two steps 0.5² · 2 = 0.5."""
    config = compose_config("run=x", "ope=fqe", "ope.updates=400", entry_point="evaluate")
    ope = validate_config(EvaluateConfig, config).ope
    data = one_step_log(terminated=terminated)
    fqe = FittedQEvaluation(data, lambda x: torch.zeros(len(x), dtype=torch.int64), ope, gamma=0.5)
    estimate = fqe.fit().estimate()
    assert estimate.extrapolated == pytest.approx(extrapolated, abs=0.03)
    assert (BEYOND in estimate.assumptions) == (not terminated)


def test_doubly_robust_counts_what_follows_a_truncated_episode():
    """On-policy weights, exact values 2, gamma 0.5: 2 in all, of which 0.5² · 2 is extrapolated."""
    data, twos = one_step_log(terminated=False), np.full(80, 2.0)
    ones = np.ones(80)
    estimate = doubly_robust(
        *(data.rewards, ones, ones, data.ends),
        q_logged=twos,
        v=twos,
        v_end=np.full(40, 2.0),
        gamma=0.5,
        seed=0,
    )
    assert (estimate.value, estimate.observed) == (pytest.approx(2.0), pytest.approx(1.5))


def test_the_report_tells_both_parts_apart(tmp_path: Path):
    """Of 65, 5 is extrapolated; of the data's 50, 20."""
    folder = write_run(tmp_path / "run", bounds={200: (60, 70)})
    content = read_json(folder / "ope.json")
    content["checkpoints"]["200"][0]["extrapolated"] = 5.0
    content["behavior"]["extrapolated"] = 20.0
    write_json(folder / "ope.json", content)
    text = " ".join(sentences(selection_of(tmp_path)))
    assert "the policy earns 60 and the data 30; beyond them 5 and 20 are extrapolated" in text
