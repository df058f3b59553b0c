"""Guarantee: a run, its checkpoints and its ONNX file answer with the same actions."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from support.train import DISCRETE, TINY, train_run

from offline_cql import CheckpointError, ConfigError, DataError, Run, load_policy

OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 3))
STATES = np.random.default_rng(0).normal(size=(5, 4))


@pytest.fixture(scope="module")
def run(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run with continuous actions."""
    return Run(train_run(tmp_path_factory.mktemp("runs") / "run", *TINY, "updates=20"))


def test_run_checkpoint_and_file_give_the_same_actions(run: Run):
    policy = load_policy(run.folder)
    actions = policy.predict(OBSERVATIONS)
    assert actions.shape == (5, 1)
    assert np.abs(actions).max() <= 2  # the bounds of the environment
    single = policy.predict(OBSERVATIONS[0])
    assert single.shape == (1,)
    np.testing.assert_allclose(single, actions[0], atol=1e-6)
    checkpoints = run.folder / "checkpoints"
    for path in (checkpoints / "20.ckpt", checkpoints / "resume" / "20.ckpt"):
        np.testing.assert_array_equal(load_policy(path).predict(OBSERVATIONS), actions)
    np.testing.assert_array_equal(run.policy(20).predict(OBSERVATIONS), actions)
    exported = load_policy(run.export(["support=false"]))
    np.testing.assert_allclose(exported.predict(OBSERVATIONS), actions, atol=1e-5)
    for each in (policy, exported):
        assert each.predict(np.zeros((0, 3))).shape == (0, 1)
        copy = pickle.loads(pickle.dumps(each))
        np.testing.assert_array_equal(copy.predict(OBSERVATIONS), each.predict(OBSERVATIONS))


def test_a_sampled_file_draws_with_its_seed(run: Run):
    path = run.export(["sampled=true", "support=false"])
    one, other = (load_policy(path, seed=seed).predict(OBSERVATIONS) for seed in (0, 0))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, load_policy(path, seed=1).predict(OBSERVATIONS))


def test_discrete_actions_are_integers(recorded: Path, tmp_path: Path):
    run = Run(train_run(tmp_path / "run", *DISCRETE, "updates=20"))
    for policy in (load_policy(run.folder), load_policy(run.export(["support=false"]))):
        actions = policy.predict(STATES)
        assert actions.dtype == np.int64
        assert actions.shape == (5,)
        assert policy.predict(STATES[0]) == actions[0] in (0, 1)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (OBSERVATIONS[:, :2], r"has shape \(5, 2\), expected \[3\] or \[B, 3\]"),
        (0.5, r"has shape \(\), expected"),
        (["a", "b", "c"], "expected numbers"),
        ([0, np.nan, 0], "number 1 of the observation is not finite"),
        ({"angle": 1.0}, r"is a dictionary.*spaces\.flatten\(env\.observation_space"),
    ],
)
def test_other_observations_are_refused(run: Run, observation: object, message: str):
    for policy in (load_policy(run.folder), load_policy(run.export(["support=false"]))):
        with pytest.raises(DataError, match=message):
            policy.predict(observation)


def test_what_is_no_policy_is_refused(run: Run, tmp_path: Path):
    with pytest.raises(ConfigError, match="is not a run folder"):
        load_policy(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        load_policy(tmp_path / "policy.onnx")
    stray = tmp_path / "20.ckpt"
    for suffix in ("", ".sha256"):
        content = (run.folder / "checkpoints" / f"20.ckpt{suffix}").read_bytes()
        stray.with_name(f"20.ckpt{suffix}").write_bytes(content)
    with pytest.raises(ConfigError, match="is in no run folder"):
        load_policy(stray)
    stray.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is corrupt"):
        load_policy(stray)
    with pytest.raises(ConfigError, match="must be one of last, 20"):
        run.policy(5)
