"""Serve a policy that export.py wrote; needs only onnxruntime and NumPy.

    python examples/serve_policy.py RUN/policy.onnx

Reads one observation per line from stdin, in the environment's units: a JSON list of numbers, or an
object {"age": 71, "mode": "auto"} where the columns of the data have names; null is a missing
value. Writes one answer per line to stdout: {"action": [0.3]}, {"action": 1, "name": "right"}, or
{"error": "..."} for an invalid observation, or one that the policy has no action for. A list of
observations has a list of answers. "support" says from 0 to 1 how well the training data support
the action (policy.json says by which measure); where it is below 0.01, or the observation is far
outside the training data, there is a "warning". The random numbers of a sampled policy are drawn
here. examples/serve_http.py answers over HTTP.
"""

import argparse
import hashlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime

FORMAT = 2  # the newest that is read
LONGEST_LINE = 2**20  # bytes
RARE = 0.01  # of the support of an action, which is in [0, 1]


class ServedPolicy:
    """policy.onnx with the policy.json beside it. Raises ValueError when they do not match."""

    def __init__(self, path: Path, seed: int | None = None):
        self.description = read_description(path.with_suffix(".json"))
        content = read_file(path)
        if hashlib.sha256(content).hexdigest() != self.description["sha256"]:
            raise ValueError(f"{path} is not the file that policy.json describes; export it again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # faster for a small network
        try:
            self.session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own have no common class
            reason = printable(str(error).partition("\n")[0])
            raise ValueError(f"{path} cannot be loaded ({reason}); export it again") from error
        self.generator = np.random.default_rng(seed)
        # A policy of a table with categories or computed numbers takes the columns by name.
        columns = self.description.get("columns") or []
        inputs = self.description["inputs"]
        self.columns = columns if inputs[0]["name"] != "observation" else []
        widths = {"observation": (self.description["observation"]["size"],)}
        self.input_names = [entry["name"] for entry in inputs][: len(self.columns)]
        widths = dict.fromkeys(self.input_names, ()) or widths
        widths |= self.random_input()
        inputs = {node.name: tuple(node.shape[1:]) for node in self.session.get_inputs()}
        outputs = [node.name for node in self.session.get_outputs()]
        expected = ["action", "support"] if self.description.get("support") else ["action"]
        if inputs != widths or outputs != expected:
            raise ValueError(f"{path} is not the policy of policy.json; export it again")

    def answer(self, request: object) -> dict[str, object] | list[dict[str, object]]:
        """Return the answer to one observation, or the answers to a list of them, with errors."""
        if isinstance(request, list) and request and isinstance(request[0], list | dict):
            return self.answer_batch(request)
        return self.answer_batch([request])[0]

    def answer_batch(self, observations: list[object]) -> list[dict[str, object]]:
        """Return one answer per observation; an invalid one does not affect the others."""
        answers, rows = [], {}
        for number, observation in enumerate(observations):
            answers.append({})
            try:
                rows[number] = self.validate(observation)
            except (ValueError, OverflowError) as error:
                answers[number] = {"error": str(error)}
        if rows:
            inputs = self.inputs([*rows.values()]) | self.draw_random_input(len(rows))
            actions, *support = self.session.run(None, inputs)
            supports = support[0].tolist() if support else [None] * len(rows)
            for number, action, share in zip(rows, actions, supports, strict=True):
                try:
                    answers[number] = self.describe(action, rows[number], share)
                except ValueError as error:
                    answers[number] = {"error": str(error)}
        return answers

    def act(self, observation: object) -> dict[str, object]:
        """Return the answer to one observation. Raises ValueError for an invalid one."""
        (answer,) = self.answer_batch([observation])
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def describe(
        self, action: np.ndarray, row: np.ndarray, support: float | None
    ) -> dict[str, object]:
        """Return the answer with an action. Raises ValueError where there is none.

        The file answers with NaN, or the index -1, where its numbers overflow.
        """
        size, discrete = (self.description["action"][key] for key in ("size", "discrete"))
        if not (0 <= action < size if discrete else np.isfinite(action).all()):
            raise ValueError("the policy has no action: its numbers overflow at this observation")
        names, warning = self.description["action"]["names"], self.far_outside(row)
        if support is not None and support < RARE and not warning:
            warning = "the training data hardly show this action in such a state"
        if discrete:
            answer = {"action": int(action)} | ({"name": names[action]} if names else {})
        else:
            answer = {"action": action.tolist()} | ({"names": names} if names else {})
        answer |= {} if support is None else {"support": round(support, 4)}
        return answer | ({"warning": warning} if warning else {})

    def inputs(self, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs of the file for validated rows."""
        if not self.columns:
            return {"observation": np.stack(rows)}
        texts = [isinstance(column.get("categories", [0])[0], str) for column in self.columns]
        return {
            name: np.array(values, object if is_text else np.float64)
            for name, values, is_text in zip(
                self.input_names, zip(*rows, strict=True), texts, strict=True
            )
        }

    def far_outside(self, row: np.ndarray) -> str | None:
        """Return which number is farther outside the training data than these are wide.

        None also where the data were not there when the policy was exported.
        """
        described, names = self.description["observation"], None
        low, high = described.get("low", []), described.get("high", [])
        if self.columns:
            pairs = zip(self.columns, row, strict=True)
            numbers = [(column, value) for column, value in pairs if "low" in column]
            names, row = [c["name"] for c, _ in numbers], np.array([v for _, v in numbers], float)
            low, high = ([c[key] for c, _ in numbers] for key in ("low", "high"))
        low, high = np.array(low, np.float64), np.array(high, np.float64)
        if not low.size:
            return None
        excess = np.nan_to_num(np.maximum(low - row, row - high) - (high - low), nan=-1.0)
        index = int(excess.argmax())
        if excess[index] <= 0:
            return None
        name = names[index] if names else self.name(index)
        limits = f"{low[index]:.6g} to {high[index]:.6g}"
        return f"{name} is {row[index]:.6g}, in the training data {limits}"

    def name(self, index: int) -> str:
        """Return the name of a number of the observation."""
        names = self.description["observation"]["names"]
        return names[index] if names else f"number {index}"

    def validate(self, observation: object) -> np.ndarray:
        """Return the observation as finite float32 numbers [D], or the values of the columns."""
        if self.columns:
            return self.column_values(observation)
        types = {int, float}
        if isinstance(observation, dict):
            observation, types = self.in_order(observation), {bool, int, float}
        if not isinstance(observation, list) or {*map(type, observation)} - types:
            raise ValueError("an observation must be a list of numbers")
        size = self.description["observation"]["size"]
        if len(observation) != size:
            raise ValueError(f"the observation has {len(observation)} numbers, expected {size}")
        with np.errstate(over="ignore"):  # overflow becomes infinity, which is rejected below
            row = np.array(observation, dtype=np.float64).astype(np.float32)
        if not np.isfinite(row).all():
            raise ValueError(f"{self.name(int(np.isfinite(row).argmin()))} is not finite")
        return row

    def column_values(self, observation: object) -> np.ndarray:
        """Return the values of the columns of a table in the policy's order."""
        names = [column["name"] for column in self.columns]
        if not isinstance(observation, dict):
            raise ValueError(f"an observation must be an object with {', '.join(names)}")
        values = self.in_order(observation, names)
        pairs = zip(self.columns, values, strict=True)
        return np.array([column_value(column, value) for column, value in pairs], object)

    def in_order(
        self, observation: dict[str, object], names: list[str] | None = None
    ) -> list[object]:
        """Return the named values in the order of the names; None: of the numbers."""
        names = self.description["observation"]["names"] if names is None else names
        if not names:
            raise ValueError("the numbers of this policy have no names: send them as a list")
        found = set(observation)
        if missing := sorted(set(names) - found):
            raise ValueError(f"the observation does not have {', '.join(missing)}")
        if unknown := sorted(found - set(names)):
            raise ValueError(f"the observation has the unknown {', '.join(unknown)}")
        return [observation[name] for name in names]

    def random_input(self) -> dict[str, tuple[int, ...]]:
        """Return name and width of the second input of a sampled policy; empty for another."""
        if not self.description["sampled"]:
            return {}
        action = self.description["action"]
        return {"uniform": ()} if action["discrete"] else {"noise": (action["size"],)}

    def draw_random_input(self, count: int) -> dict[str, np.ndarray]:
        """Draw the second input of a sampled policy; empty for a deterministic one."""
        draw = {"uniform": self.generator.random, "noise": self.generator.standard_normal}
        inputs = self.random_input().items()
        return {name: draw[name]((count, *width), dtype=np.float32) for name, width in inputs}


def column_value(column: dict, value: object) -> object:
    """Return the value of a column as the file takes it; NaN, or "", where it is missing.

    column: its name, kind (number, category, time), categories, and whether it is optional.
    """
    name, categories = column["name"], column.get("categories")
    is_empty = value == "" and column["kind"] == "category"
    if value is None or is_empty:
        if not column["optional"]:
            raise ValueError(f"{name} is missing: send a value")
        return "" if categories and isinstance(categories[0], str) else np.nan
    if categories is not None:
        if isinstance(value, bool) or value not in categories:
            shown = ", ".join(map(str, categories[:10])) + (", …" if len(categories) > 10 else "")
            raise ValueError(f"{name} is {value!r:.40}, in the training data: {shown}")
        return value
    if column["kind"] == "time" and isinstance(value, str):
        try:
            time = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    numbers = (int, float) if column["kind"] == "time" else (bool, int, float)
    if type(value) not in numbers or not np.isfinite(number := float(value)):
        raise ValueError(f"{name} is {value!r:.40}, expected a number")
    return number


def read_file(path: Path) -> bytes:
    """Return the content of a regular file: a pipe could be waited for without end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file; export it again")
    return path.read_bytes()


def read_description(path: Path) -> dict:
    """Return policy.json. Raises ValueError for anything else."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; name the policy.onnx beside it")
    content = read_file(path)
    try:
        description = json.loads(content)
        is_valid = is_description(description) and summarize(description)
    except (ValueError, KeyError, TypeError, RecursionError):
        is_valid = False
    if not is_valid:
        raise ValueError(f"{path} is not a description of a policy; export it again")
    if description["format"] > FORMAT:
        raise ValueError(f"{path} has format {description['format']}; this script reads {FORMAT}")
    return description


def is_description(content: dict) -> bool:
    """Return whether what is read of policy.json fits together; may raise for other content."""
    observation, action = content["observation"], content["action"]
    size, estimate = observation["size"], content["estimate"]
    ranges = np.array([observation.get(key, []) for key in ("low", "high")], np.float64)
    return (
        isinstance(content["format"], int)
        and {type(content["sampled"]), type(action["discrete"])} == {bool}
        and {type(size), type(action["size"])} == {int}
        and len(observation["names"]) in (0, size)
        and are_columns(content.get("columns") or [])
        and isinstance(content["inputs"][0]["name"], str)
        and len(action["names"]) in (0, action["size"])
        and ranges.shape in ((2, 0), (2, size))
        and bool(np.isfinite(ranges).all())
        and (estimate is None or isinstance(estimate["value"], int | float))
    )


def are_columns(columns: list) -> bool:
    """Return whether columns are described as `column_value` needs it."""
    return all(
        isinstance(column["name"], str)
        and isinstance(column["optional"], bool)
        and column["kind"] in ("number", "category", "time")
        and len(column.get("categories", [0])) > 0
        and bool(np.isfinite([column.get("low", 0.0), column.get("high", 0.0)]).all())
        for column in columns
    )


def summarize(description: dict) -> str:
    """Return one line on the policy for the log."""
    estimate, text = description["estimate"], "no estimate of its return"
    if estimate is not None:
        text = f"estimated discounted return {estimate.get('text', estimate['value'])}"
    return printable(
        f"{description['env']['name']}, {description['algorithm']} after "
        f"{description['updates']:,} updates on {description['dataset']['id']}; {text}"
    )


def printable(text: str) -> str:
    """Return text of others for a terminal, which obeys escape sequences."""
    return "".join(c if c.isprintable() else "?" for c in text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("policy", type=Path, help="policy.onnx, with policy.json beside it")
    parser.add_argument("--seed", type=int, help="seed of a sampled policy")
    arguments = parser.parse_args()
    policy = open_policy(arguments.policy, arguments.seed)
    print(summarize(policy.description), file=sys.stderr)
    try:
        answer_lines(policy)
    except BrokenPipeError:  # the reader has ended
        sys.stdout = None
    except KeyboardInterrupt:
        sys.exit(130)


def open_policy(path: Path, seed: int | None) -> ServedPolicy:
    """Return the policy of a file, or end with a line that says why there is none."""
    try:
        return ServedPolicy(path, seed)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def answer_lines(policy: ServedPolicy) -> None:
    """Write an answer for each line of stdin."""
    while line := sys.stdin.buffer.readline(LONGEST_LINE):
        rest = line
        while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
            rest = sys.stdin.buffer.readline(LONGEST_LINE)
        try:
            if rest is not line:
                raise ValueError(f"the line is longer than {LONGEST_LINE:,} bytes")
            answer = policy.answer(json.loads(line))
        except (ValueError, OverflowError, RecursionError) as error:  # json.loads raises them too
            answer = {"error": str(error)}
        print(json.dumps(answer, allow_nan=False), flush=True)


if __name__ == "__main__":
    main()
