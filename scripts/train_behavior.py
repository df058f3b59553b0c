"""Train and export the behavior policies that the recorded data sets come from.

``train`` runs soft actor-critic (layer-normalized twin critics, automatic temperature, one update
per environment step; the update is ``sac_core.cpp``, built with g++ when a run starts) and saves
the actor every ``--every`` steps to a scratch directory.  ``export`` picks snapshots of such a run
by step, measures each on fresh episodes with the noise it records with, and writes
``<env>-<level>.npz`` and ``.json``.

    python scripts/train_behavior.py train --env Hopper-v5 --steps 300000 --out /tmp/hopper
    python scripts/train_behavior.py export --run /tmp/hopper --pick medium=60000 expert=250000
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np

Arrays = dict[str, np.ndarray]
NAMES = ("w0", "b0", "w1", "b1", "w_mean", "b_mean", "w_log_std", "b_log_std")
HEAD = 16  # columns of the actor's output in sac_core.cpp
LOG_STD_RANGE = (-5.0, 2.0)
NOISE = "action = tanh(mean + exp(clip(log_std, -5, 2)) * z), z ~ N(0, I), drawn at every step"
REFERENCE = {  # D4RL's reference returns: random policy, expert policy
    "Hopper-v5": (-20.272305, 3234.3),
    "HalfCheetah-v5": (-280.178953, 12135.0),
    "Walker2d-v5": (1.629008, 4592.3),
}
CORE = Path(__file__).with_name("sac_core.cpp")
DATA = Path(__file__).resolve().parents[1] / "src" / "offline_cql" / "simulation" / "behaviors"


def normalized(environment: str, value: float) -> float:
    """D4RL's normalized score of a return."""
    low, high = REFERENCE[environment]
    return 100.0 * (value - low) / (high - low)


def act(policy: Arrays, observation: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """The policy's action in float32 NumPy: a tanh-Gaussian sample, or tanh(mean) if no rng."""
    hidden: np.ndarray = observation.astype(np.float32)
    hidden = np.maximum(hidden @ policy["w0"] + policy["b0"], 0.0)
    hidden = np.maximum(hidden @ policy["w1"] + policy["b1"], 0.0)
    mean = hidden @ policy["w_mean"] + policy["b_mean"]
    if rng is not None:
        log_std = hidden @ policy["w_log_std"] + policy["b_log_std"]
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        mean = mean + np.exp(np.clip(log_std, *LOG_STD_RANGE)) * noise
    action: np.ndarray = np.tanh(mean)
    return action


def measure(
    environment: str, policy: Arrays, episodes: int, seed: int, noise: bool = True
) -> np.ndarray:
    """Returns of fresh episodes, seeded ``seed``, ``seed + 1``, ..."""
    env = gym.make(environment)
    rng = np.random.default_rng(seed) if noise else None
    returns = np.zeros(episodes)
    for episode in range(episodes):
        observation, _ = env.reset(seed=seed + episode)
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(act(policy, observation, rng))
            returns[episode] += float(reward)
            over = terminated or truncated
    env.close()
    return returns


class Learner:
    """Soft actor-critic in ``sac_core.cpp``: its replay rows, its updates, its current policy."""

    def __init__(self, args: argparse.Namespace, n_obs: int, n_act: int) -> None:
        args.out.mkdir(parents=True, exist_ok=True)
        library = args.out / "sac_core.so"
        build = ["g++", "-Ofast", "-march=native", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run([*build, str(CORE)], check=True)
        self.core = ctypes.CDLL(str(library))
        pointer, integer, number = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
        self.core.sac_new.restype = self.core.sac_actor.restype = pointer
        self.core.sac_new.argtypes = [integer] * 5 + [number] * 3 + [ctypes.c_uint64]
        self.core.sac_actor.argtypes = self.core.sac_alpha.argtypes = [pointer]
        self.core.sac_alpha.restype = self.core.sac_update.restype = number
        self.core.sac_update.argtypes = [pointer, pointer, integer, integer]
        width = args.actor_width
        sizes = (n_obs, n_act, args.batch, width, args.critic_width)
        alpha = args.reward_scale
        self.state = self.core.sac_new(*sizes, args.lr, args.entropy * n_act, alpha, args.seed)
        # One row per transition: observation, action, next observation, reward, discount.
        self.rows = np.zeros((args.steps, 2 * n_obs + n_act + 2), np.float32)
        size = n_obs * width + width + width * width + width + width * HEAD + HEAD
        actor = ctypes.cast(self.core.sac_actor(self.state), ctypes.POINTER(number))
        flat = np.ctypeslib.as_array(actor, (size,))
        shapes = [(n_obs, width), (width,), (width, width), (width,), (width, HEAD), (HEAD,)]
        cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
        parts = [x.reshape(y) for x, y in zip(np.split(flat, cuts), shapes, strict=True)]
        heads = [parts[4][:, :n_act], parts[5][:n_act]]
        heads += [parts[4][:, n_act : 2 * n_act], parts[5][n_act : 2 * n_act]]
        self.policy: Arrays = dict(zip(NAMES, [*parts[:4], *heads], strict=True))  # live views

    def update(self, filled: int, improve: bool) -> None:
        """One critic step on a batch of the first ``filled`` rows, and an actor step if asked."""
        self.core.sac_update(self.state, self.rows.ctypes.data, filled, int(improve))


def train(args: argparse.Namespace) -> None:
    """Soft actor-critic; snapshots and a log of their noisy returns go to ``args.out``."""
    rng = np.random.default_rng(args.seed)
    env = gym.make(args.env)
    assert isinstance(env.observation_space, gym.spaces.Box)
    assert isinstance(env.action_space, gym.spaces.Box)
    n_act = env.action_space.shape[0]
    learner = Learner(args, env.observation_space.shape[0], n_act)
    log: list[dict[str, float]] = []
    start = time.time()
    observation, _ = env.reset(seed=args.seed)
    for step in range(1, args.steps + 1):
        if step <= args.warmup:
            action = rng.uniform(-1.0, 1.0, n_act).astype(np.float32)
        else:
            action = act(learner.policy, observation, rng)
        after, reward, terminated, truncated, _ = env.step(action)
        discount = 0.0 if terminated else args.gamma  # a truncated episode still bootstraps
        tail = [args.reward_scale * float(reward), discount]
        learner.rows[step - 1] = np.concatenate([observation, action, after, tail])
        observation = env.reset()[0] if terminated or truncated else after
        if step > args.warmup:
            learner.update(step, improve=step % args.policy_every == 0)
        if step % args.every == 0:
            alpha = float(learner.core.sac_alpha(learner.state))
            log.append({"step": step, "alpha": alpha, "seconds": round(time.time() - start, 1)})
            snapshot(args, learner.policy, log)


def snapshot(args: argparse.Namespace, policy: Arrays, log: list[dict[str, float]]) -> None:
    """Save the policy; add its noisy returns to the last entry of the log, and write that."""
    step = int(log[-1]["step"])
    returns = measure(args.env, policy, 3, 10_000 + step)
    log[-1] |= {"return": returns.mean(), "least": returns.min()}
    log[-1]["normalized"] = normalized(args.env, returns.mean())
    print(" ".join(f"{k}={v:.5g}" for k, v in log[-1].items()), flush=True)
    np.savez(args.out / f"{step}.npz", **policy)  # type: ignore[arg-type]
    settings = {k: str(v) for k, v in vars(args).items() if k not in ("call", "out")}
    (args.out / "run.json").write_text(json.dumps({"settings": settings, "log": log}, indent=1))


def export(args: argparse.Namespace) -> None:
    """Measure the picked snapshots of a run and write them, with their records, to the package."""
    run = json.loads((args.run / "run.json").read_text())
    settings = run["settings"]
    environment = settings["env"]
    short = environment.split("-")[0].lower()
    flags = ("env", "steps", "seed", "lr", "batch", "actor_width", "critic_width", "entropy",
             "policy_every", "reward_scale", "warmup", "gamma", "every")  # fmt: skip
    command = "python scripts/train_behavior.py train " + " ".join(
        f"--{k.replace('_', '-')} {settings[k]}" for k in flags
    )
    version = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True)
    compiler = version.stdout.splitlines()[0]
    args.to.mkdir(parents=True, exist_ok=True)
    for pick in args.pick:
        level, step = pick.split("=")
        with np.load(args.run / f"{step}.npz", allow_pickle=False) as file:
            policy = {k: file[k].astype(np.float32) for k in NAMES}
        returns = measure(environment, policy, args.episodes, 500_000)
        plain = measure(environment, policy, max(args.episodes // 5, 5), 600_000, noise=False)
        record = {
            "environment": environment,
            "level": level,
            "algorithm": "soft actor-critic, layer-normalized twin critics, automatic temperature",
            "command": f"{command} --out runs/{short} && python scripts/train_behavior.py export"
            f" --run runs/{short} --pick {pick}",
            "steps": int(step),
            "seed": int(settings["seed"]),
            "noise": NOISE,
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "return_min": float(returns.min()),
            "episodes": args.episodes,
            "normalized_score": normalized(environment, float(returns.mean())),
            "return_mean_without_noise": float(plain.mean()),
            "episodes_without_noise": len(plain),
            "training_seconds": next(r["seconds"] for r in run["log"] if r["step"] == int(step)),
            "versions": {
                "python": platform.python_version(),
                "compiler": compiler,
                **{m: __import__(m).__version__ for m in ("gymnasium", "mujoco", "numpy")},
            },
        }
        stem = args.to / f"{short}-{level}"
        np.savez(f"{stem}.npz", **policy)
        Path(f"{stem}.json").write_text(json.dumps(record, indent=2) + "\n")
        print(f"{stem.name} step {step}: {returns.mean():.1f} +- {returns.std():.1f}, normalized "
              f"{record['normalized_score']:.1f}, without noise {plain.mean():.1f}")  # fmt: skip


def main() -> None:
    """Parse the command line and run one of the two steps."""
    parser = argparse.ArgumentParser(description="train and export behavior policies")
    steps = parser.add_subparsers(required=True)
    training = steps.add_parser("train", help="run soft actor-critic, keeping snapshots")
    training.set_defaults(call=train)
    training.add_argument("--env", choices=sorted(REFERENCE), required=True)
    training.add_argument("--steps", type=int, default=300_000)
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--out", type=Path, required=True, help="directory of the snapshots")
    training.add_argument("--lr", type=float, default=7e-4)
    training.add_argument("--batch", type=int, default=256)
    training.add_argument("--actor-width", type=int, default=128)
    training.add_argument("--critic-width", type=int, default=256)
    training.add_argument("--entropy", type=float, default=-1.0, help="target, per action")
    training.add_argument("--reward-scale", type=float, default=0.1)
    training.add_argument("--policy-every", type=int, default=1, help="critic steps per actor step")
    training.add_argument("--warmup", type=int, default=5_000, help="uniformly random steps")
    training.add_argument("--gamma", type=float, default=0.99)
    training.add_argument("--every", type=int, default=10_000, help="steps between snapshots")
    exporting = steps.add_parser("export", help="measure snapshots and write the shipped files")
    exporting.set_defaults(call=export)
    exporting.add_argument("--run", type=Path, required=True)
    exporting.add_argument("--pick", nargs="+", required=True, metavar="LEVEL=STEP")
    exporting.add_argument("--episodes", type=int, default=50)
    exporting.add_argument("--to", type=Path, default=DATA)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
