"""Create small logs of many kinds, clean ones and ones with a made-up leak.

The thresholds of `audit/leakage.py` were chosen on the half TUNED, and COUNTED was run when they
stood. A clean log holds what resembles a leak: an expert's actions, a controller in proportion to
one measurement, rewards of the state, previous actions, stacked frames, clocks, goals.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from support.logged import Arrays, cart_arrays

from offline_cql.transitions import Spaces, Transitions

Array = Any
Observe = Callable[[Mapping[str, Array]], list[Array]]


# --- Simulation ----------------------------------------------------------------------------------


def simulate(
    start: Callable[[int, np.random.Generator], dict[str, Array]],
    observe: Observe,
    act: Callable[[list[Array], np.random.Generator], Array],
    step: Callable[[dict[str, Array], Array, np.random.Generator], tuple[Any, Array, Any]],
    *,
    seed: int,
    episodes: int = 80,
    horizon: int = 40,
) -> Arrays:
    """Return a log of episodes that are stepped side by side.

    A state is a dict of arrays [E]; it has "t", the number of the step. observe: columns [E] of a
    state; act: actions [E] of such columns; step: next state, rewards [E], terminated [E].
    """
    rng = np.random.default_rng(seed)
    state = {"t": np.zeros(episodes)} | start(episodes, rng)
    alive, rows = np.ones(episodes, bool), []
    for _ in range(horizon):
        columns = observe(state)
        action = act(columns, rng)
        after, reward, terminated = step(state, action, rng)
        after = {"t": state["t"] + 1} | {k: after.get(k, v) for k, v in state.items() if k != "t"}
        terminated = np.zeros(episodes, bool) | terminated
        rows.append(
            {
                "observations": np.column_stack(columns),
                "actions": action,
                "rewards": np.zeros(episodes) + reward,
                "next_observations": np.column_stack(observe(after)),
                "terminated": terminated,
                "episodes": np.arange(episodes),
                "alive": alive,
            }
        )
        alive, state = alive & ~terminated, after
    # [E, T, …], so that the steps of an episode follow each other.
    log = {name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]}
    kept = log.pop("alive")
    return {name: values[kept] for name, values in log.items()}


def pack(log: Arrays, *, actions: int | None = None) -> Transitions:
    """Return the transitions; actions: the number of discrete ones, None for continuous."""
    log = dict(log)
    width = log["observations"].shape[1]
    if actions is None:
        log["actions"] = log["actions"].reshape(len(log["rewards"]), -1)
        bound = (float(np.abs(log["actions"]).max()),) * log["actions"].shape[1]
        log["actions"] = log["actions"] / bound[0]
        spaces = Spaces(width, len(bound), False, tuple(-b for b in bound), bound)
    else:
        spaces = Spaces(width, actions, True, (), ())
    log["terminated"] = log["terminated"].astype(bool)
    return Transitions.pack(**log, spaces=spaces, dataset_id="test/leaks-v0")


def one_hot(values: Array, count: int) -> list[Array]:
    return [(values == k) * 1.0 for k in range(count)]


def bump(values: Array, action: Array, rng: np.random.Generator, noise: float = 0.1) -> Array:
    return 0.95 * values + 0.3 * action + noise * rng.normal(size=len(values))


# --- Worlds --------------------------------------------------------------------------------------


def thermostat(seed: int, act: Any = None) -> Arrays:
    """A controller heats in proportion to the error of the temperature; exactly, without `act`."""

    def start(n: int, rng: Any) -> dict[str, Array]:
        return {"temperature": rng.uniform(14, 24, n), "outside": rng.uniform(-5, 10, n)}

    def observe(s: Any) -> list[Array]:
        hour = 2 * np.pi * s["t"] / 96
        return [s["temperature"], s["outside"], np.sin(hour), np.cos(hour)]

    def step(s: Any, a: Array, rng: Any) -> Any:
        noise = rng.normal(0, 0.1, len(a))
        warmer = s["temperature"] + 0.03 * (s["outside"] - s["temperature"]) + a + noise
        reward = -((s["temperature"] - 20) ** 2) - 0.1 * a
        return {"temperature": warmer}, reward, False

    def proportional(c: list[Array], rng: Any) -> Array:
        return np.clip(0.2 * (21 - c[0]), -1, 1)

    return simulate(start, observe, act or proportional, step, seed=seed, episodes=60, horizon=60)


def pendulum(seed: int, *, noise: float = 0.5, gain: float = 4.0) -> Arrays:
    """A damped pendulum, whose reward is a function of the state; terminates never."""

    def start(n: int, rng: Any) -> dict[str, Array]:
        return {"angle": rng.uniform(-3, 3, n), "speed": rng.normal(size=n)}

    def observe(s: Any) -> list[Array]:
        return [np.cos(s["angle"]), np.sin(s["angle"]), s["speed"]]

    def act(c: list[Array], rng: Any) -> Array:
        torque = -gain * np.arctan2(c[1], c[0]) - c[2]
        return np.clip(torque + noise * rng.normal(size=len(torque)), -2, 2)

    def step(s: Any, a: Array, rng: Any) -> Any:
        speed = s["speed"] + 0.05 * (9.8 * np.sin(s["angle"]) + 3 * a)
        angle = (s["angle"] + 0.05 * speed + np.pi) % (2 * np.pi) - np.pi
        return {"angle": angle, "speed": speed}, -(s["angle"] ** 2) - 0.1 * s["speed"] ** 2, False

    return simulate(start, observe, act, step, seed=seed)


def linear(seed: int, *, noise: float = 0.0, stack: int = 0, zeros: bool = False) -> Arrays:
    """A linear controller of four noisy states; `stack` earlier states are observed, too."""
    rng = np.random.default_rng(seed)
    gain, mix = 0.5 * rng.normal(size=4), 0.2 * rng.normal(size=(4, 4)) + 0.8 * np.eye(4)

    def start(n: int, rng: Any) -> dict[str, Array]:
        state = {f"x{k}": rng.normal(size=n) for k in range(4)}
        past = {f"x{k}_{j}": 0 * state[f"x{k}"] if zeros else state[f"x{k}"]
                for k in range(4) for j in range(1, stack + 1)}  # fmt: skip
        return state | past

    def observe(s: Any) -> list[Array]:
        now = [s[f"x{k}"] for k in range(4)]
        return now + [s[f"x{k}_{j}"] for k in range(4) for j in range(1, stack + 1)]

    def act(c: list[Array], rng: Any) -> Array:
        return np.clip(np.stack(c[:4]).T @ gain + noise * rng.normal(size=len(c[0])), -1, 1)

    def step(s: Any, a: Array, rng: Any) -> Any:
        x = np.stack([s[f"x{k}"] for k in range(4)]).T @ mix.T + 0.1 * rng.normal(size=(len(a), 4))
        x[:, 0] += 0.3 * a
        after = {f"x{k}": x[:, k] for k in range(4)}
        for k in range(4):
            for j in range(1, stack + 1):
                after[f"x{k}_{j}"] = s[f"x{k}" if j == 1 else f"x{k}_{j - 1}"]
        return after, -(x[:, 0] ** 2), np.abs(x[:, 0]) > 4

    return simulate(start, observe, act, step, seed=seed)


def tabular(seed: int, *, states: int = 8, actions: int = 3, follow: float = 0.5) -> Arrays:
    """A random process with one-hot states, whose reward is a table of state and action."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(states, 0.4), (states, actions)).cumsum(axis=2)
    table, best = rng.normal(size=(states, actions)), rng.integers(0, actions, states)

    def act(c: list[Array], rng: Any) -> Array:
        state = np.stack(c).argmax(axis=0)
        drawn = rng.integers(0, actions, len(state))
        return np.where(rng.random(len(state)) < follow, best[state], drawn)

    def step(s: Any, a: Array, rng: Any) -> Any:
        now = s["state"].astype(int)
        after = (rng.random((len(a), 1)) > chances[now, a]).sum(axis=1).clip(max=states - 1)
        return {"state": after}, table[now, a], False

    return simulate(
        lambda n, rng: {"state": rng.integers(0, states, n)},
        lambda s: one_hot(s["state"], states),
        act, step, seed=seed,
    )  # fmt: skip


def grid(seed: int, *, size: int = 5, slip: float = 0.0, coordinates: bool = False,
         explore: float = 0.0) -> Arrays:  # fmt: skip
    """A walk on a grid to a corner by an expert that decides nothing by chance; one-hot states."""
    moves = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    goal = size - 1

    def observe(s: Any) -> list[Array]:
        if coordinates:
            return [s["x"] * 1.0, s["y"] * 1.0, 2.0 * goal - s["x"] - s["y"]]
        return one_hot(s["x"] * size + s["y"], size * size)

    def act(c: list[Array], rng: Any) -> Array:
        x = c[0] if coordinates else np.stack(c).argmax(axis=0) // size
        best = np.where(x < goal, 0, 2)
        return np.where(rng.random(len(best)) < explore, rng.integers(0, 4, len(best)), best)

    def step(s: Any, a: Array, rng: Any) -> Any:
        a = np.where(rng.random(len(a)) < slip, rng.integers(0, 4, len(a)), a)
        x, y = (np.clip(s[k] + moves[a, i], 0, goal) for i, k in enumerate("xy"))
        done = (x == goal) & (y == goal)
        return {"x": x, "y": y}, np.where(done, 10.0, -1.0), done

    def start(n: int, rng: Any) -> dict[str, Array]:
        return {"x": rng.integers(0, goal, n), "y": rng.integers(0, size, n)}

    return simulate(start, observe, act, step, seed=seed, episodes=200)


def bandit(seed: int, *, greedy: bool = False, count: int = 4, amounts: bool = False) -> Arrays:
    """Single decisions by contexts of numbers and a category; rewards 0 and 1, or amounts."""
    rng = np.random.default_rng(seed)
    weights, n = rng.normal(size=(6, count)), 4_000
    context = np.hstack([rng.normal(size=(n, 3)), np.eye(3)[rng.integers(0, 3, n)]])
    scores = context @ weights
    noise = 0.0 if greedy else rng.gumbel(size=scores.shape)
    actions = (scores + noise).argmax(axis=1)
    chance = 1 / (1 + np.exp(1 - scores[np.arange(n), actions]))
    rewards = (rng.random(n) < chance) * (rng.gamma(2, 1, n) if amounts else 1.0)
    return {
        "observations": context, "actions": actions, "rewards": rewards,
        "next_observations": context, "terminated": np.ones(n, bool), "episodes": np.arange(n),
    }  # fmt: skip


def patients(seed: int, *, risk: bool = False) -> Arrays:
    """Treatments: age, sex and weight stay, two values change, survival is the last reward."""

    def start(n: int, rng: Any) -> dict[str, Array]:
        fixed = {"age": rng.integers(20, 90, n), "sex": rng.integers(0, 2, n)}
        return fixed | {"weight": rng.normal(75, 12, n), "pressure": rng.normal(size=n),
                        "lactate": rng.normal(size=n)}  # fmt: skip

    def observe(s: Any) -> list[Array]:
        columns = [s[k] * 1.0 for k in ("age", "sex", "weight", "pressure", "lactate")]
        score = 1 / (1 + np.exp(-s["lactate"] + s["pressure"] - (s["age"] - 55) / 20))
        return [*columns, score] if risk else columns

    def act(c: list[Array], rng: Any) -> Array:
        return np.where(rng.random(len(c[0])) < 0.8, (c[3] < 0) * 1 + (c[4] > 0.5) * 1,
                        rng.integers(0, 3, len(c[0])))  # fmt: skip

    def step(s: Any, a: Array, rng: Any) -> Any:
        n = len(a)
        after = {"pressure": 0.9 * s["pressure"] + 0.3 * a - 0.3 + 0.3 * rng.normal(size=n),
                 "lactate": 0.9 * s["lactate"] - 0.1 * a + 0.3 * rng.normal(size=n)}  # fmt: skip
        dies = rng.random(n) < 0.01 / (1 + np.exp(-s["lactate"])) * (s["age"] / 40)
        leaves = ~dies & (rng.random(n) < 0.06)
        return after, np.where(dies, -15.0, np.where(leaves, 15.0, 0.0)), dies | leaves

    return simulate(start, observe, act, step, seed=seed, episodes=150, horizon=60)


def inventory(seed: int, *, pipeline: int = 0, explore: float = 0.3) -> Arrays:
    """Orders up to a level against random demand; with a pipeline they arrive steps later."""

    def observe(s: Any) -> list[Array]:
        coming = [s[f"coming_{k}"] for k in range(pipeline)]
        return [s["stock"], s["demand"], *coming, *one_hot(s["t"] % 7, 7)]

    def start(n: int, rng: Any) -> dict[str, Array]:
        return {"stock": rng.uniform(0, 20, n), "demand": rng.poisson(5, n) * 1.0} | {
            f"coming_{k}": rng.uniform(0, 9, n) for k in range(pipeline)
        }

    def act(c: list[Array], rng: Any) -> Array:
        n = len(c[0])
        order = np.clip(15 - c[0], 0, 10)
        return np.where(rng.random(n) < explore, rng.uniform(0, 10, n), order)

    def step(s: Any, a: Array, rng: Any) -> Any:
        demand = rng.poisson(5, len(a)) * 1.0
        arrives = s["coming_0"] if pipeline else a
        stock = np.maximum(s["stock"] + arrives - demand, 0)
        after = {f"coming_{k}": s.get(f"coming_{k + 1}", a) for k in range(pipeline)}
        sold = s["stock"] + arrives - stock
        return after | {"stock": stock, "demand": demand}, 2 * sold - 0.3 * stock - a, False

    return simulate(start, observe, act, step, seed=seed)


def queue(seed: int) -> Arrays:
    """Servers for a queue, in four levels; the reward is minus the length that is observed."""

    def step(s: Any, a: Array, rng: Any) -> Any:
        length = np.maximum(s["length"] + rng.poisson(8, len(a)) - rng.poisson(4 + 2 * a), 0)
        return {"length": length, "arrivals": rng.poisson(8, len(a))}, -s["length"], False

    def act(c: list[Array], rng: Any) -> Array:
        level = np.clip(c[0] / 15 + rng.normal(0, 0.5, len(c[0])), 0, 3)
        return level.astype(int)

    return simulate(
        lambda n, rng: {"length": rng.poisson(10, n), "arrivals": rng.poisson(8, n)},
        lambda s: [s["length"] * 1.0, s["arrivals"] * 1.0, s["t"] % 24],
        act, step, seed=seed,
    )  # fmt: skip


def market(seed: int, *, lagged: bool = True, reactive: bool = True, forecast: bool = False,
           ) -> Arrays:  # fmt: skip
    """A price that no action changes, held positions, the profit as the reward."""

    def start(n: int, rng: Any) -> dict[str, Array]:
        price = rng.normal(100, 3, n)
        return {"price": price, "last": price + rng.normal(size=n), "next": rng.normal(size=n),
                "held": np.zeros(n), "error": rng.normal(size=n)}  # fmt: skip

    def observe(s: Any) -> list[Array]:
        columns = [s["price"], s["held"], (s["t"] % 5) / 5]
        columns += [s["last"]] if lagged else []
        return [*columns, s["price"] + s["next"] + 0.3 * s["error"]] if forecast else columns

    def act(c: list[Array], rng: Any) -> Array:
        n = len(c[0])
        trend = c[0] - c[3] if lagged and reactive else 0.0
        return np.clip(0.3 * trend + 0.5 * rng.normal(size=n), -1, 1)

    def step(s: Any, a: Array, rng: Any) -> Any:
        n = len(a)
        price = s["price"] + s["next"]
        reward = a * (price - s["price"])
        after = {"price": price, "last": s["price"], "held": a, "next": rng.normal(size=n)}
        return after | {"error": rng.normal(size=n)}, reward, False

    return simulate(start, observe, act, step, seed=seed)


def goals(seed: int, *, targets: int = 0) -> Arrays:
    """A point that is driven to the goal of its episode: two numbers, or one of the targets."""
    places = np.random.default_rng(seed).uniform(-3, 3, (max(targets, 1), 2))

    def start(n: int, rng: Any) -> dict[str, Array]:
        target = rng.integers(0, max(targets, 1), n)
        goal = places[target] if targets else rng.uniform(-3, 3, (n, 2))
        x = rng.normal(size=(n, 2))
        return {"x": x[:, 0], "y": x[:, 1], "gx": goal[:, 0], "gy": goal[:, 1], "target": target}

    def observe(s: Any) -> list[Array]:
        goal = one_hot(s["target"], targets) if targets else [s["gx"], s["gy"]]
        return [s["x"], s["y"], *goal]

    def act(c: list[Array], rng: Any) -> Array:
        goal = places[np.stack(c[2:]).argmax(axis=0)] if targets else np.stack(c[2:]).T
        move = 0.5 * (goal - np.stack(c[:2]).T)
        return np.clip(move + 0.2 * rng.normal(size=move.shape), -1, 1)

    def step(s: Any, a: Array, rng: Any) -> Any:
        x, y = s["x"] + 0.3 * a[:, 0], s["y"] + 0.3 * a[:, 1]
        distance = np.hypot(x - s["gx"], y - s["gy"])
        return {"x": x, "y": y}, -distance, distance < 0.1

    return simulate(start, observe, act, step, seed=seed)


def countdown(seed: int, *, varying: bool) -> Arrays:
    """A random walk that must stay inside, 1 per step; the steps left until the deadline."""

    def start(n: int, rng: Any) -> dict[str, Array]:
        left = rng.integers(15, 40, n) if varying else np.full(n, 30)
        return {"x": rng.normal(size=n), "left": left * 1.0}

    def step(s: Any, a: Array, rng: Any) -> Any:
        x = s["x"] + 0.5 * (a - 1) + 0.3 * rng.normal(size=len(a))
        outside = np.abs(x) > (2.5 if varying else 99)
        return {"x": x, "left": s["left"] - 1}, 1.0, outside | (s["left"] == 1)

    return simulate(
        start, lambda s: [s["x"], s["left"]],
        lambda c, rng: rng.integers(0, 3, len(c[0])), step, seed=seed, episodes=150,
    )  # fmt: skip


def held(seed: int, *, steps: int = 10) -> Arrays:
    """Random actions that are held for `steps` steps, with the previous action and reward."""

    def start(n: int, rng: Any) -> dict[str, Array]:
        return {"x": rng.normal(size=n), "v": np.zeros(n), "action": np.zeros(n),
                "reward": np.zeros(n), "drawn": rng.uniform(-1, 1, n)}  # fmt: skip

    def step(s: Any, a: Array, rng: Any) -> Any:
        v = 0.9 * s["v"] + 0.1 * a
        x = s["x"] + 0.1 * v + 0.01 * rng.normal(size=len(a))
        drawn = np.where((s["t"] + 1) % steps == 0, rng.uniform(-1, 1, len(a)), s["drawn"])
        return (
            {"x": x, "v": v, "action": a, "reward": -np.abs(x), "drawn": drawn},
            -np.abs(x),
            False,
        )

    log = simulate(
        start, lambda s: [s["x"], s["v"], s["action"], s["reward"], s["drawn"]],
        lambda c, rng: c[4], step, seed=seed,
    )  # fmt: skip
    for name in ("observations", "next_observations"):
        log[name] = log[name][:, :4]
    return log


def sparse(seed: int) -> Arrays:
    """A reward in one of a hundred steps, the previous reward, and alarms that are as rare."""

    def step(s: Any, a: Array, rng: Any) -> Any:
        n = len(a)
        found = (rng.random(n) < 0.01) * 1.0
        alarm = (rng.random(n) < 0.01) * 1.0
        return {"x": bump(s["x"], a - 1, rng), "reward": found, "alarm": alarm}, found, False

    return simulate(
        lambda n, rng: {"x": rng.normal(size=n), "reward": np.zeros(n), "alarm": np.zeros(n)},
        lambda s: [s["x"], s["reward"], s["alarm"]],
        lambda c, rng: rng.integers(0, 3, len(c[0])), step, seed=seed,
    )  # fmt: skip


def switch(seed: int) -> Arrays:
    """A heater with two states: on below 19 degrees, off above 21, nothing by chance."""

    def step(s: Any, a: Array, rng: Any) -> Any:
        warmer = s["t_in"] + 0.5 * a - 0.05 * (s["t_in"] - 15) + 0.1 * rng.normal(size=len(a))
        return {"t_in": warmer, "on": a * 1.0}, -np.abs(warmer - 20) - 0.1 * a, False

    def act(c: list[Array], rng: Any) -> Array:
        return np.where(c[0] < 19, 1, np.where(c[0] > 21, 0, c[1])).astype(int)

    return simulate(
        lambda n, rng: {"t_in": rng.uniform(17, 23, n), "on": np.zeros(n)},
        lambda s: [s["t_in"], s["on"]], act, step, seed=seed,
    )  # fmt: skip


def threshold(seed: int) -> Arrays:
    """The sign of one number decides the action; its square is the reward."""

    def step(s: Any, a: Array, rng: Any) -> Any:
        after = {"x": bump(s["x"], 1.0 - 2 * a, rng, 0.5), "noise": rng.normal(size=len(a))}
        return after, -(s["x"] ** 2), np.abs(s["x"]) > 6

    return simulate(
        lambda n, rng: {"x": rng.normal(size=n), "noise": rng.normal(size=n)},
        lambda s: [s["x"], s["noise"]],
        lambda c, rng: (c[0] > 0).astype(int), step, seed=seed,
    )  # fmt: skip


def cards(seed: int) -> Arrays:
    """A card game of whole numbers: another card, or stop; the result is the last reward."""

    def step(s: Any, a: Array, rng: Any) -> Any:
        total = s["total"] + np.where(a == 1, rng.integers(1, 11, len(a)), 0)
        dealer = 17 + rng.integers(0, 6, len(a))
        bust, stops = total > 21, a == 0
        won = stops & ((dealer > 21) | (total > dealer))
        reward = np.where(bust, -1.0, np.where(stops, np.where(won, 1.0, -1.0), 0.0))
        return {"total": total}, reward, bust | stops

    return simulate(
        lambda n, rng: {"total": rng.integers(4, 21, n), "shown": rng.integers(1, 11, n)},
        lambda s: [s["total"] * 1.0, s["shown"] * 1.0],
        lambda c, rng: np.where(rng.random(len(c[0])) < 0.2, rng.integers(0, 2, len(c[0])),
                                c[0] < 16).astype(int),
        step, seed=seed, episodes=600,
    )  # fmt: skip


def walk(seed: int) -> Arrays:
    """One long episode of a walk with the number of the step."""

    def step(s: Any, a: Array, rng: Any) -> Any:
        return {"x": bump(s["x"], a, rng)}, -np.abs(s["x"]), False

    return simulate(
        lambda n, rng: {"x": rng.normal(size=n)}, lambda s: [s["x"], s["t"]],
        lambda c, rng: rng.uniform(-1, 1, len(c[0])), step, seed=seed, episodes=1, horizon=3_000,
    )  # fmt: skip


def customers(seed: int) -> Arrays:
    """Discounts for customers of a segment (text, one-hot) and an age, who buy or leave."""

    def start(n: int, rng: Any) -> dict[str, Array]:
        return {"segment": rng.integers(0, 4, n), "age": rng.integers(18, 80, n),
                "visits": np.zeros(n), "basket": rng.gamma(2, 10, n)}  # fmt: skip

    def step(s: Any, a: Array, rng: Any) -> Any:
        n = len(a)
        buys = rng.random(n) < 0.2 + 0.1 * a + 0.05 * s["segment"]
        after = {"visits": s["visits"] + buys, "basket": rng.gamma(2, 10, n)}
        return after, buys * s["basket"] * (1 - 0.1 * a), rng.random(n) < 0.08

    return simulate(
        start, lambda s: [*one_hot(s["segment"], 4), s["age"] * 1.0, s["visits"], s["basket"]],
        lambda c, rng: (c[1] + c[2] + rng.integers(0, 2, len(c[0]))).astype(int), step, seed=seed,
        episodes=150,
    )  # fmt: skip


def sensors(seed: int) -> Arrays:
    """Three switches of a machine as numbers 0 and 1, a policy of them with one error in ten."""

    def step(s: Any, a: Array, rng: Any) -> Any:
        after = {k: np.where(rng.random(len(a)) < 0.3, 1 - s[k], s[k]) for k in "abc"}
        after["a"] = np.where(a == 1, 1, after["a"])
        return after, s["a"] + 0.5 * s["b"] - s["c"] + 0.1 * rng.normal(size=len(a)), False

    def act(c: list[Array], rng: Any) -> Array:
        best = (c[0] == 0) & (c[1] == 1)
        return np.where(rng.random(len(best)) < 0.1, 1 - best, best).astype(int)

    return simulate(
        lambda n, rng: {k: rng.integers(0, 2, n) for k in "abc"},
        lambda s: [s[k] * 1.0 for k in "abc"], act, step, seed=seed,
    )  # fmt: skip


# --- Leaks ---------------------------------------------------------------------------------------


def ends_of(log: Arrays) -> Array:
    return np.append(np.diff(log["episodes"]) != 0, True)


def per_episode(log: Arrays, reduce: Callable[[Array], float], name: str = "rewards") -> Array:
    """Return a number per episode, repeated for its rows."""
    numbers = np.cumsum(np.append(0, np.diff(log["episodes"]) != 0))
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    parts = np.split(log[name], starts[1:])
    return np.array([float(reduce(part)) for part in parts])[numbers]


def to_go(log: Arrays) -> Array:
    """Return the sum of the rewards from each row to the end of its episode."""
    result, total = np.zeros(len(log["rewards"])), 0.0
    for row in range(len(result) - 1, -1, -1):
        total = log["rewards"][row] + (0.0 if ends_of_row(log, row) else total)
        result[row] = total
    return result


def ends_of_row(log: Arrays, row: int) -> bool:
    episodes = log["episodes"]
    return bool(row + 1 == len(episodes) or episodes[row + 1] != episodes[row])


def steps_left(log: Arrays) -> Array:
    return to_go({"rewards": np.ones(len(log["rewards"])), "episodes": log["episodes"]})


def noise_of(log: Arrays, seed: int = 9) -> Array:
    return np.random.default_rng(seed).normal(size=len(log["rewards"]))


def leak(log: Arrays, *columns: Array) -> Arrays:
    """Return the log with further observation columns; the next row's values follow."""
    log, last = dict(log), ends_of(log)
    for values in columns:
        values = np.asarray(values, float)
        after = np.where(last, values, np.append(values[1:], values[-1]))
        log["observations"] = np.column_stack([log["observations"], values])
        log["next_observations"] = np.column_stack([log["next_observations"], after])
    return log


def flat_actions(log: Arrays) -> Array:
    return log["actions"].reshape(len(log["rewards"]), -1)[:, 0]


Case = Callable[[], Transitions]

TUNED_CLEAN: dict[str, Case] = {
    "random actions": lambda: pack(cart_arrays()),
    "random discrete actions": lambda: pack(cart_arrays(discrete=True), actions=3),
    "pendulum": lambda: pack(pendulum(1)),
    "proportional controller": lambda: pack(thermostat(2)),
    "bandit": lambda: pack(bandit(3), actions=4),
    "table of rewards": lambda: pack(tabular(4, follow=1.0), actions=3),
    "expert in a grid": lambda: pack(grid(5), actions=4),
    "inventory": lambda: pack(inventory(6)),
    "stacked frames": lambda: pack(linear(7, stack=1, noise=0.3)),
    "held actions": lambda: pack(held(8)),
    "fixed horizon": lambda: pack(countdown(9, varying=False), actions=3),
    "goals": lambda: pack(goals(10)),
    "sparse rewards": lambda: pack(sparse(11), actions=3),
    "text categories": lambda: pack(customers(12), actions=4),
    "threshold": lambda: pack(threshold(13), actions=2),
    "lagged price": lambda: pack(market(14)),
    "expert with a distance": lambda: pack(grid(15, coordinates=True), actions=4),
    "one long episode": lambda: pack(walk(16)),
    "patients": lambda: pack(patients(17), actions=3),
    "queue": lambda: pack(queue(18), actions=4),
}


def next_value(log: Arrays, column: int) -> Array:
    return log["next_observations"][:, column]


def _discrete_leak(make: Callable[[], Arrays], columns: Callable[[Arrays], Any], n: int) -> Case:
    def case() -> Transitions:
        log = make()
        return pack(leak(log, *columns(log)), actions=n)

    return case


def _continuous_leak(make: Callable[[], Arrays], columns: Callable[[Arrays], Any]) -> Case:
    def case() -> Transitions:
        log = make()
        return pack(leak(log, *columns(log)))

    return case


# Name: (kind, case).
TUNED_LEAKS: dict[str, tuple[str, Case]] = {
    "copy of the action": ("action", _continuous_leak(
        cart_arrays, lambda log: [log["actions"][:, 0]])),
    "other codes of the actions": ("action", _discrete_leak(
        lambda: tabular(30), lambda log: [np.array([5, 2, 9])[log["actions"]]], 3)),
    "one-hot action": ("action", _discrete_leak(
        lambda: bandit(31), lambda log: one_hot(log["actions"], 4), 4)),
    "reward in other units": ("reward", _continuous_leak(
        lambda: pendulum(32), lambda log: [100 * log["rewards"] + 10 + noise_of(log)])),
    "conversion": ("reward", _discrete_leak(
        lambda: bandit(33, amounts=True), lambda log: [log["rewards"] > 0], 4)),
    "survived": ("outcome", _discrete_leak(
        lambda: patients(34), lambda log: [per_episode(log, lambda r: r[-1] > 0)], 3)),
    "return to go": ("outcome", _continuous_leak(lambda: pendulum(35), lambda log: [to_go(log)])),
    "steps left": ("outcome", _discrete_leak(
        lambda: patients(36), lambda log: [steps_left(log)], 3)),
    "next speed": ("future", _continuous_leak(
        cart_arrays, lambda log: [next_value(log, 1)])),
    "row number": ("identifier", _continuous_leak(
        cart_arrays, lambda log: [np.arange(len(log["rewards"]))])),
}  # fmt: skip


COUNTED_CLEAN: dict[str, Case] = {
    "hysteresis": lambda: pack(switch(40), actions=2),
    "greedy bandit": lambda: pack(bandit(41, greedy=True), actions=4),
    "amounts": lambda: pack(bandit(42, amounts=True), actions=4),
    "slippery grid": lambda: pack(grid(43, size=4, slip=0.3), actions=4),
    "risk score": lambda: pack(patients(44, risk=True), actions=3),
    "four stacked frames": lambda: pack(linear(45, stack=3, zeros=True)),
    "linear controller": lambda: pack(linear(46)),
    "deadlines": lambda: pack(countdown(47, varying=True), actions=3),
    "targets": lambda: pack(goals(48, targets=4)),
    "held for long": lambda: pack(held(49, steps=20)),
    "stochastic table": lambda: pack(tabular(50, states=5, actions=4, follow=0.3), actions=4),
    "explored grid": lambda: pack(grid(51, coordinates=True, explore=0.3, slip=0.1), actions=4),
    "orders on their way": lambda: pack(inventory(52, pipeline=2)),
    "forecast of a price": lambda: pack(market(53, lagged=False, forecast=True)),
    "switches": lambda: pack(sensors(54), actions=2),
    "cards": lambda: pack(cards(55), actions=2),
    "noiseless pendulum": lambda: pack(pendulum(56, noise=0.0, gain=6.0)),
}

COUNTED_LEAKS: dict[str, tuple[str, Case]] = {
    "noisy action in other units": ("action", _continuous_leak(
        lambda: goals(60), lambda log: [40 - 15 * flat_actions(log) + 0.3 * noise_of(log)])),
    "levels of the action": ("action", _discrete_leak(
        lambda: queue(61), lambda log: [50.0 + 25 * log["actions"]], 4)),
    "reward in cents": ("reward", _continuous_leak(
        lambda: inventory(62), lambda log: [100 * log["rewards"]])),
    "click": ("reward", _discrete_leak(
        lambda: bandit(63, greedy=True), lambda log: [log["rewards"] == 1], 4)),
    "return of the episode": ("outcome", _continuous_leak(
        lambda: thermostat(64, lambda c, rng: rng.uniform(-1, 1, len(c[0]))),
        lambda log: [per_episode(log, np.sum)])),
    "died": ("outcome", _discrete_leak(
        lambda: patients(65, risk=True), lambda log: [per_episode(log, lambda r: r[-1] < 0)], 3)),
    "length of the episode": ("outcome", _continuous_leak(
        lambda: goals(66), lambda log: [per_episode(log, len)])),
    "next temperature": ("future", _continuous_leak(
        lambda: thermostat(67, lambda c, rng: rng.uniform(-1, 1, len(c[0]))),
        lambda log: [next_value(log, 0)])),
    "time stamp": ("identifier", _continuous_leak(
        lambda: linear(68, noise=0.3), lambda log: [1e5 + np.cumsum(60 * np.abs(noise_of(log)))])),
    "number of the patient": ("identifier", _discrete_leak(
        lambda: patients(69),
        lambda log: [np.random.default_rng(1).permutation(999)[log["episodes"]]], 3)),
}  # fmt: skip
