"""Guarantee: behavior policies have the shares and the order of returns that their table states."""

import numpy as np
import pytest

from offline_cql.errors import DataError
from offline_cql.simulation.behavior import (
    SCRIPTED,
    TRAINED,
    Network,
    RandomActions,
    load_behavior,
    mixture,
    shipped_levels,
)
from offline_cql.simulation.environments import make_environments, spaces_of
from offline_cql.simulation.rollouts import roll_out
from offline_cql.transitions import Spaces

WIDE = Spaces(2, 2, False, (-2.0, 0.0), (2.0, 5.0))


def sample_actions(policy, count, times, starts=False):
    """Return the actions [times, count, ...] of a policy at zero observations."""
    indices, flags = np.arange(count), np.full(count, starts)
    return np.stack(
        [policy(np.zeros((count, 2), np.float32), indices, flags) for _ in range(times)]
    )


def returns(env_id, component, episodes=10):
    environments = make_environments(env_id, episodes)
    spaces = spaces_of(environments[0])
    policy = component.build(spaces, episodes, np.random.default_rng(0))
    return np.array([e.return_ for e in roll_out(environments, policy, seed=0, episodes_each=1)])


def test_random_actions_span_the_bounds():
    """Uniform on [-2, 2] x [0, 5]: means 0 and 2.5, and both ends are nearly reached."""
    policy = RandomActions(WIDE, 10, np.random.default_rng(0))
    actions = sample_actions(policy, 10, 1000).reshape(-1, 2)
    np.testing.assert_allclose(actions.min(axis=0), [-2, 0], atol=0.01)
    np.testing.assert_allclose(actions.max(axis=0), [2, 5], atol=0.01)
    np.testing.assert_allclose(actions.mean(axis=0), [0, 2.5], atol=0.05)


def test_random_discrete_actions_take_every_value():
    policy = RandomActions(Spaces(2, 3, True, (), ()), 10, np.random.default_rng(0))
    counts = np.bincount(sample_actions(policy, 10, 300).ravel())
    np.testing.assert_allclose(counts / 3000, 1 / 3, atol=0.05)


def test_held_actions_repeat_for_hold_steps_within_an_episode():
    policy = RandomActions(WIDE, 2, np.random.default_rng(0), hold=3)
    actions = sample_actions(policy, 2, 9)[:, :, 0]
    assert [len(set(actions[k : k + 3, 0])) for k in (0, 3, 6)] == [1, 1, 1]
    assert len(set(actions[:, 0])) == 3
    restarted = RandomActions(WIDE, 2, np.random.default_rng(0), hold=3)
    assert len(set(sample_actions(restarted, 2, 4, starts=True)[:, 0, 0])) == 4


@pytest.mark.parametrize("env_name", ["pendulum", "cartpole"])
def test_shares_of_a_mixture_sum_to_one(env_name):
    assert sum(c.share for c in SCRIPTED[env_name, "mixed"]) == pytest.approx(1)


def test_pendulums_mixture_has_a_low_a_middle_and_a_high_return():
    bad, noisy, good = (returns("Pendulum-v1", c).mean() for c in mixture("pendulum", "mixed"))
    assert bad < -900 < -500 < noisy < -230 < good


def test_cartpoles_mixture_has_two_low_returns_and_a_high_one():
    bad, onesided, good = (returns("CartPole-v1", c).mean() for c in mixture("cartpole", "mixed"))
    assert max(bad, onesided) < 80
    assert good > 400


def test_cartpoles_largest_part_pushes_the_wrong_way_when_leaning_left():
    """Leaning left it mostly pushes right and falls; leaning right it pushes right and balances."""
    _, component, _ = mixture("cartpole", "mixed")
    policy = component.build(Spaces(4, 2, True, (), ()), 1000, np.random.default_rng(0))

    def mean_push(angle):
        observations = np.tile(np.array([0, 0, angle, 0], np.float32), (1000, 1))
        return policy(observations, np.arange(1000), np.zeros(1000, bool)).mean()

    assert 0.55 < mean_push(-0.05) < 0.75  # 0.8 * 0.65 + 0.1 = 0.62
    assert 0.85 < mean_push(0.05) < 0.95  # 0.9
    assert component.share > 0.5


def network(**heads):
    arrays = {
        **{"w0": [[1.0, -1.0]], "b0": [0.0, 0.0], "w1": [[2.0, 0.0], [0.0, 1.0]]},
        **{"b1": [0.5, -1.0], "w_mean": [[0.1], [0.0]], "b_mean": [0.2]},
        **{"w_log_std": [[0.0], [0.0]], "b_log_std": [-50.0]},
    }
    return {name: np.array(values, np.float32) for name, values in (arrays | heads).items()}


def test_network_output_by_hand():
    """x = 3: hidden (3, 0), then (6.5, 0), mean 0.85; its noise of e^-5 is added before tanh."""
    policy = Network(network(), Spaces(1, 1, False, (-2.0,), (2.0,)), np.random.default_rng(0))
    actions = policy(np.full((4000, 1), 3, np.float32), np.arange(4000), np.zeros(4000, bool))
    assert actions.shape == (4000, 1)
    pre_tanh = np.arctanh(actions / 2)
    assert pre_tanh.mean() == pytest.approx(0.85, abs=1e-3)
    assert pre_tanh.std() == pytest.approx(np.exp(-5), rel=0.1)


def test_network_noise_has_the_standard_deviation_of_its_head():
    arrays = network(b_log_std=[-1.0])
    policy = Network(arrays, Spaces(1, 1, False, (-1.0,), (1.0,)), np.random.default_rng(0))
    actions = policy(np.zeros((9000, 1), np.float32), np.arange(9000), np.zeros(9000, bool))
    assert np.arctanh(actions).std() == pytest.approx(np.exp(-1), rel=0.05)


def test_shipped_networks_fit_their_environments():
    ids = {"hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5"}
    for name, levels in shipped_levels().items():
        (environment,) = make_environments(ids[name], 1)
        for level in levels:
            policy = load_behavior(name, level, spaces_of(environment), np.random.default_rng(0))
            (episode,) = roll_out([environment], policy, seed=0, steps_each=20)[:1]
            assert np.abs(episode.actions).max() <= 1
        environment.close()


def test_a_level_that_does_not_ship_is_named():
    with pytest.raises(DataError, match="'superb' ships for hopper"):
        load_behavior("hopper", "superb", WIDE, np.random.default_rng(0))


def test_a_network_of_other_sizes_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "hopper-medium.npz", **network())
    monkeypatch.setattr("offline_cql.simulation.behavior.SHIPPED", tmp_path)
    with pytest.raises(DataError, match="maps 1 observations to 1 actions"):
        load_behavior("hopper", "medium", WIDE, np.random.default_rng(0))


@pytest.mark.parametrize(("env", "quality"), [("pendulum", "expert"), ("ant", "medium")])
def test_a_quality_without_a_policy_is_named(env, quality):
    with pytest.raises(DataError, match=f"env={env} dataset.quality={quality}; there are cartpole"):
        mixture(env, quality)


def test_mujoco_recipes_are_equal_parts(tmp_path, monkeypatch):
    (tmp_path / "hopper-medium.npz").touch()
    monkeypatch.setattr("offline_cql.simulation.behavior.SHIPPED", tmp_path)
    for quality, levels in TRAINED.items():
        components = mixture("hopper", quality)
        assert [c.name for c in components] == list(levels)
        assert {c.share for c in components} == {1 / len(levels)}
