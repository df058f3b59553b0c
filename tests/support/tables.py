"""Solve a small tabular Markov decision process exactly and log episodes of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_cql.transitions import Spaces, Transitions

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Process:
    """A process with S states (one-hot observations), A actions and a deterministic policy.

    transition [S, A, S], reward [S, A], start [S] (probabilities), policy [S].
    """

    transition: Array
    reward: Array
    start: Array
    policy: npt.NDArray[np.int64]
    gamma: float

    @property
    def value(self) -> float:
        """The policy's exact discounted return from the start: (I − gamma P)^-1 r."""
        transition, reward = self.policy_dynamics()
        identity = np.eye(len(self.start))
        values = np.linalg.solve(identity - self.gamma * transition, reward)
        return float(self.start @ values)

    def finite_value(self, steps: int) -> float:
        """Return the policy's discounted return over so many steps, by backward recursion."""
        transition, reward = self.policy_dynamics()
        values = np.zeros(len(self.start))
        for _ in range(steps):
            values = reward + self.gamma * transition @ values
        return float(self.start @ values)

    def policy_dynamics(self) -> tuple[Array, Array]:
        """Return the transition matrix [S, S] and the rewards [S] under the policy."""
        states = np.arange(len(self.start))
        return self.transition[states, self.policy], self.reward[states, self.policy]


def random_process(seed: int, *, states: int = 10, actions: int = 3, gamma: float = 0.9) -> Process:
    """Draw sparse transitions, normal rewards and a deterministic policy."""
    rng = np.random.default_rng(seed)
    return Process(
        transition=rng.dirichlet(np.full(states, 0.3), (states, actions)),
        reward=rng.normal(size=(states, actions)),
        start=rng.dirichlet(np.ones(states)),
        policy=rng.integers(actions, size=states),
        gamma=gamma,
    )


def log_episodes(
    process: Process, *, seed: int, episodes: int, steps: int = 20, follow: float = 0.3
) -> tuple[Transitions, npt.NDArray[np.float64]]:
    """Sample episodes of a behavior policy, truncated after `steps`.

    It follows the process's policy with probability `follow` and acts uniformly otherwise. Returns
    the data and the behavior's probability of each logged action, [N].
    """
    rng = np.random.default_rng([seed, 1])
    n_states, n_actions = process.reward.shape
    state = rng.choice(n_states, size=episodes, p=process.start)
    states, actions, rewards, next_states = (
        np.empty((episodes, steps), dtype) for dtype in (int, int, float, int)
    )
    cumulative = process.transition.cumsum(axis=2)
    for step in range(steps):
        greedy = rng.random(episodes) < follow
        action = np.where(greedy, process.policy[state], rng.integers(n_actions, size=episodes))
        uniform = rng.random((episodes, 1))
        next_state = (uniform > cumulative[state, action]).sum(axis=1).clip(max=n_states - 1)
        states[:, step], actions[:, step], next_states[:, step] = state, action, next_state
        rewards[:, step] = process.reward[state, action] + 0.5 * rng.normal(size=episodes)
        state = next_state
    one_hot = np.eye(n_states, dtype=np.float32)
    data = Transitions.pack(
        observations=one_hot[states.ravel()],
        actions=actions.ravel(),
        rewards=rewards.ravel().astype(np.float32),
        next_observations=one_hot[next_states.ravel()],
        terminated=np.zeros(episodes * steps, bool),
        episodes=np.repeat(np.arange(episodes), steps),
        spaces=Spaces(n_states, n_actions, True, (), ()),
        dataset_id="test/process-v0",
    )
    followed = actions.ravel() == process.policy[states.ravel()]
    return data, follow * followed + (1 - follow) / n_actions
