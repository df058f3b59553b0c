"""Guarantee: `evaluate.py ope=…` writes an estimate per checkpoint and method to ope.json."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.builders import build, continuous_data, settings
from support.config import compose_config
from support.train import DISCRETE, TINY, train_run

from offline_cql.commands.evaluate import evaluate
from offline_cql.commands.off_policy import internal_policy
from offline_cql.errors import ConfigError, DataError
from offline_cql.io import read_json

pytestmark = pytest.mark.usefixtures("recorded")

SHORT = ("updates=40", "checkpoint_every=20", "evaluation.every=20")
SPLIT = "dataset.validation_fraction=0.4"
FAST = ("ope.updates=20", "ope.ensemble_size=5", "evaluation.episodes=0")


@pytest.fixture(scope="module")
def discrete(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_run(tmp_path_factory.mktemp("discrete") / "run", *DISCRETE, *SHORT, SPLIT)


@pytest.fixture(scope="module")
def continuous(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_run(tmp_path_factory.mktemp("continuous") / "run", *TINY, *SHORT, SPLIT)


def estimate(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run evaluate.py without rollouts and return ope.json."""
    config = compose_config(f"run={folder}", *FAST, *overrides, entry_point="evaluate")
    assert evaluate(config) is None
    return read_json(folder / "ope.json")


def test_each_kept_policy_has_an_estimate(continuous: Path, capsys: Any):
    content = estimate(continuous, "ope=fqe", "checkpoint=all")
    assert list(content["checkpoints"]) == ["20", "40"]
    for (fqe,) in content["checkpoints"].values():
        assert fqe["method"] == "fqe"
        assert fqe["low"] < fqe["value"] < fqe["high"]
    behavior = content["behavior"]
    assert behavior["low"] < behavior["value"] < behavior["high"] < content["best_return"]
    printed = capsys.readouterr().out
    assert "fqe, 40 updates" in printed
    assert "the data cover the actions that the policy takes" in printed


def test_all_methods_estimate_a_discrete_policy_with_fitted_probabilities(discrete: Path):
    estimates = estimate(discrete, "ope=all")["checkpoints"]["40"]
    assert [e["method"] for e in estimates] == ["fqe", "wis", "dr"]
    fitted = "the behavior probabilities were fitted to the data, not logged"
    assert [fitted in e["assumptions"] for e in estimates] == [False, True, True]


def test_estimates_of_other_checkpoints_are_kept(discrete: Path):
    estimate(discrete, "ope=fqe", "checkpoint=20")
    content = estimate(discrete, "ope=fqe", "checkpoint=40")
    assert list(content["checkpoints"]) == ["20", "40"]


def test_discrete_actions_are_compared_with_the_data(discrete: Path, capsys: Any):
    compared = estimate(discrete, "ope=fqe", "checkpoint=all")["actions"]
    assert list(compared) == ["20", "40"]
    assert [action["name"] for action in compared["40"]["actions"]] == ["0", "1"]
    assert sum(action["chosen"] for action in compared["40"]["actions"]) == pytest.approx(1)
    assert sum(region["share"] for region in compared["40"]["regions"]) == pytest.approx(1)
    assert f"Actions in {compared['40']['states']:,} validation states" in capsys.readouterr().out


def test_continuous_actions_are_compared_in_the_environments_units(continuous: Path, capsys: Any):
    """Pendulum's torque is in [-2, 2]."""
    compared = estimate(continuous, "ope=fqe")["actions"]["40"]
    (torque,) = compared["dimensions"]
    assert -2 <= torque["logged"]["low"] < -1.5 < 1.5 < torque["logged"]["high"] <= 2
    assert 0 < torque["difference"] < 4
    assert sum(region["share"] for region in compared["regions"]) == pytest.approx(1)
    assert f"Actions in {compared['states']:,} validation states" in capsys.readouterr().out


def test_importance_sampling_of_continuous_actions_is_rejected(continuous: Path):
    with pytest.raises(ConfigError, match="ope=all needs discrete actions"):
        estimate(continuous, "ope=all")


def test_changed_data_are_rejected(
    continuous: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Recorded with another seed, the same id has other content."""
    from offline_cql.commands.collect import collect

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    size = [key for key in TINY if key.startswith("dataset.size")]
    collect(compose_config("env=pendulum", "seed=1", *size, entry_point="collect"))
    with pytest.raises(DataError, match="has changed since the run was trained"):
        estimate(continuous, "ope=fqe")


def test_continuous_policies_are_evaluated_with_actions_in_the_internal_range():
    """Bounds [0, 4] and [-1, 3]: the internal action is the tanh of the mean."""
    data = continuous_data(low=[0.0, -1.0], high=[4.0, 3.0])
    agent = build(settings(), data.spaces)
    observation = torch.from_numpy(data.observations[:20])
    with torch.no_grad():
        mean, _ = agent.actor(agent.statistics(observation))
        actions = internal_policy(agent)(observation)
    torch.testing.assert_close(actions, torch.tanh(mean), atol=1e-6, rtol=0)
