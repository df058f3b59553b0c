"""A small Markov decision process with a known value, and logged episodes of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from offline_cql.transitions import Spaces, Transitions

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Process:
    """States are one-hot observations. chance [S, A, S], reward [S, A], start [S], policy [S]."""

    chance: Array
    reward: Array
    start: Array
    policy: npt.NDArray[np.int64]
    gamma: float

    @property
    def truth(self) -> float:
        """The policy's discounted return from the start: (I − gamma P)^-1 r, exactly."""
        states = np.arange(len(self.start))
        chance, reward = self.chance[states, self.policy], self.reward[states, self.policy]
        values = np.linalg.solve(np.eye(len(states)) - self.gamma * chance, reward)
        return float(self.start @ values)


def random_process(seed: int, *, states: int = 10, actions: int = 3, gamma: float = 0.9) -> Process:
    """Sparse random transitions, normal rewards, a random deterministic policy."""
    draw = np.random.default_rng(seed)
    return Process(
        chance=draw.dirichlet(np.full(states, 0.3), (states, actions)),
        reward=draw.normal(size=(states, actions)),
        start=draw.dirichlet(np.ones(states)),
        policy=draw.integers(actions, size=states),
        gamma=gamma,
    )


def logged(
    process: Process, *, seed: int, episodes: int, steps: int = 20, follow: float = 0.3
) -> tuple[Transitions, npt.NDArray[np.float64]]:
    """Episodes of a behavior that follows the policy with chance `follow`, else acts at random.

    Truncated after `steps`. Also the behavior's probability of each logged action, [N].
    """
    draw = np.random.default_rng([seed, 1])
    states, actions = process.reward.shape
    state = draw.choice(states, size=episodes, p=process.start)
    before, taken, reward, after = (
        np.empty((episodes, steps), dtype) for dtype in (int, int, float, int)
    )
    cumulative = process.chance.cumsum(axis=2)
    for step in range(steps):
        greedy = draw.random(episodes) < follow
        action = np.where(greedy, process.policy[state], draw.integers(actions, size=episodes))
        spot = draw.random((episodes, 1))
        following = (spot > cumulative[state, action]).sum(axis=1).clip(max=states - 1)
        before[:, step], taken[:, step], after[:, step] = state, action, following
        reward[:, step] = process.reward[state, action] + 0.5 * draw.normal(size=episodes)
        state = following
    one_hot = np.eye(states, dtype=np.float32)
    data = Transitions.pack(
        observations=one_hot[before.ravel()],
        actions=taken.ravel(),
        rewards=reward.ravel().astype(np.float32),
        next_observations=one_hot[after.ravel()],
        terminated=np.zeros(episodes * steps, bool),
        episodes=np.repeat(np.arange(episodes), steps),
        spaces=Spaces(states, actions, True, (), ()),
        dataset_id="test/process-v0",
    )
    same = taken.ravel() == process.policy[before.ravel()]
    return data, follow * same + (1 - follow) / actions
