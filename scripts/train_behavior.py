"""Train behavior policies for a simulated data set with Stable-Baselines3's soft actor-critic.

    pip install -e '.[behavior]'
    python scripts/train_behavior.py --env Hopper-v5 --keep medium=130000 expert=300000

At each step count of --keep the actor is measured with its exploration noise and written to
`<env>-<level>.npz`, beside a JSON record. `simulation/behavior.py` reads the arrays.
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import SAC

from offline_cql.render.numbers import format_spread
from offline_cql.simulation.behavior import LOG_STD_RANGE, SHIPPED, Network
from offline_cql.simulation.environments import make_environments, spaces_of
from offline_cql.simulation.rollouts import roll_out

EPISODES = 50  # of one measurement


def actor_arrays(agent: SAC) -> dict[str, np.ndarray]:
    """Return the actor's weights as x @ w + b takes them: two hidden layers, two heads."""
    first, second = agent.actor.latent_pi[0], agent.actor.latent_pi[2]
    layers = {"0": first, "1": second, "_mean": agent.actor.mu, "_log_std": agent.actor.log_std}
    arrays = {}
    for name, layer in layers.items():
        arrays[f"w{name}"] = layer.weight.detach().cpu().numpy().T.astype(np.float32)
        arrays[f"b{name}"] = layer.bias.detach().cpu().numpy().astype(np.float32)
    return arrays


def measure(env_id: str, arrays: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """Return the returns of EPISODES episodes of the policy with its noise."""
    environments = make_environments(env_id, 10)
    policy = Network(arrays, spaces_of(environments[0]), np.random.default_rng(seed))
    episodes = roll_out(environments, policy, seed=seed, episodes_each=EPISODES // 10)
    for environment in environments:
        environment.close()
    return np.array([episode.return_ for episode in episodes])


def describe(arguments: argparse.Namespace, level: str, returns: np.ndarray) -> dict[str, Any]:
    """Return the record that stands beside a policy."""
    low, high = LOG_STD_RANGE
    return {
        "environment": arguments.env,
        "level": level,
        "algorithm": "soft actor-critic of Stable-Baselines3, automatic temperature",
        "command": " ".join(["python", *sys.argv]),
        "steps": arguments.keep[level],
        "seed": arguments.seed,
        "noise": f"action = tanh(mean + exp(clip(log_std, {low:g}, {high:g})) * z), "
        "z ~ N(0, I), drawn at every step",
        "return_mean": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "episodes": len(returns),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("stable-baselines3", "torch", "gymnasium")},
        },
    }


def level_and_steps(text: str) -> tuple[str, int]:
    """Return ("medium", 130000) for "medium=130000"."""
    level, _, steps = text.partition("=")
    return level, int(steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", required=True, help="a Gymnasium id with continuous actions")
    parser.add_argument(
        "--keep", nargs="+", type=level_and_steps, required=True, metavar="LEVEL=STEPS"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=128, help="units of each hidden layer")
    parser.add_argument("--to", type=Path, default=SHIPPED, help="folder of the policies")
    arguments = parser.parse_args()
    arguments.keep = dict(sorted(arguments.keep, key=lambda item: item[1]))
    arguments.to.mkdir(parents=True, exist_ok=True)

    agent = SAC(
        *("MlpPolicy", arguments.env),
        policy_kwargs={"net_arch": [arguments.width, arguments.width]},
        seed=arguments.seed,
        device="cpu",
    )
    start = time.monotonic()
    for level, steps in arguments.keep.items():
        agent.learn(steps - agent.num_timesteps, reset_num_timesteps=False)
        arrays = actor_arrays(agent)
        record = describe(arguments, level, measure(arguments.env, arrays, seed=500_000))
        record["training_seconds"] = round(time.monotonic() - start, 1)
        path = arguments.to / f"{arguments.env.split('-')[0].lower()}-{level}.npz"
        np.savez(path, **arrays)
        path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"{path}: {format_spread(record['return_mean'], record['return_std'])}")


if __name__ == "__main__":
    main()
