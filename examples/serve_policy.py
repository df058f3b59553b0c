"""Serves a policy that export.py wrote, with onnxruntime and NumPy alone.

    python examples/serve_policy.py RUN/policy.onnx

One observation a line comes in on stdin, a list of numbers in the environment's units; one answer
a line goes out on stdout: {"action": [0.3]} or {"action": 1, "name": "right"}, or {"error": "..."}
for what is no observation of this policy. A sampled policy's random numbers are drawn here.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

FORMAT = 1


class ServedPolicy:
    """policy.onnx and the policy.json beside it. Raises ValueError when they do not fit."""

    def __init__(self, path: Path, seed: int | None = None):
        self.about = json.loads(path.with_suffix(".json").read_text())
        if self.about["format"] > FORMAT:
            raise ValueError(
                f"policy.json has format {self.about['format']}, {FORMAT} is known here"
            )
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.about["sha256"]:
            raise ValueError(f"{path} is not the file that policy.json describes: export it again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a small network: threads would wait for each other
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.generator = np.random.default_rng(seed)

    def act(self, observation: object) -> dict[str, object]:
        """The answer to one observation. Raises ValueError for what is none."""
        inputs = {"observation": self.checked(observation)[None], **self.random()}
        action = self.session.run(["action"], inputs)[0][0]
        names = self.about["action"]["names"]
        if not self.about["action"]["discrete"]:
            return {"action": action.tolist()} | ({"names": names} if names else {})
        return {"action": int(action)} | ({"name": names[action]} if names else {})

    def checked(self, observation: object) -> np.ndarray:
        """The observation as a row of finite float32 numbers."""
        if not isinstance(observation, list) or {*map(type, observation)} - {int, float}:
            raise ValueError("an observation is a list of numbers")
        size = self.about["observation"]["size"]
        if len(observation) != size:
            raise ValueError(f"the observation has {len(observation)} numbers, expected {size}")
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            row = np.array(observation, dtype=np.float64).astype(np.float32)
        if not np.isfinite(row).all():
            place = int(np.isfinite(row).argmin())
            names = self.about["observation"]["names"]
            which = names[place] if names else f"number {place}"
            raise ValueError(f"{which} of the observation is not finite")
        return row

    def random(self) -> dict[str, np.ndarray]:
        """The second input of a sampled policy; nothing for a deterministic one."""
        if not self.about["sampled"]:
            return {}
        if self.about["action"]["discrete"]:
            return {"uniform": self.generator.random(1, dtype=np.float32)}
        size = self.about["action"]["size"]
        return {"noise": self.generator.standard_normal((1, size), dtype=np.float32)}


def introduction(about: dict) -> str:
    """Which policy this is, for the log of whoever serves it."""
    estimate = about["estimate"]
    worth = "no estimate of its return"
    if estimate is not None:
        low, high = estimate["low"], estimate["high"]
        worth = f"estimated return {estimate['value']:.1f} [{low:.1f}, {high:.1f}], discounted"
    return (
        f"{about['env']['name']}, {about['algorithm']} after {about['updates']:,} updates on "
        f"{about['dataset']['id']}; {worth}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("policy", type=Path, help="policy.onnx, with policy.json beside it")
    parser.add_argument("--seed", type=int, help="of a sampled policy's random numbers")
    arguments = parser.parse_args()
    try:
        policy = ServedPolicy(arguments.policy, arguments.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(introduction(policy.about), file=sys.stderr)
    for line in filter(str.strip, sys.stdin):
        try:
            answer = policy.act(json.loads(line))
        except (ValueError, OverflowError, RecursionError) as error:  # of JSON too
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
