"""Guarantee: a served action is a number within its bounds, or the answer is an error.

Numbers beyond float32 are refused, in the observation and on the way to the action; the file alone
says NaN, or the index -1, there. Weights that are not finite are never loaded.
"""

import functools
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from support.config import ROOT, compose_config
from support.train import BC, DISCRETE, TINY, train_run

from offline_cql.commands import export as command
from offline_cql.commands.load_run import load_agent
from offline_cql.errors import CheckpointError
from offline_cql.io import read_json, write_json
from offline_cql.runs.checkpoint import load_state, write_policy

pytestmark = pytest.mark.usefixtures("recorded")

EXAMPLE = ROOT / "examples" / "serve_policy.py"
SHORT = ("updates=20", "checkpoint_every=20")
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "continuous": ((*TINY, *SHORT), ()),
    "continuous, sampled": ((*TINY, *SHORT), ("sampled=true",)),
    "discrete": ((*DISCRETE, *SHORT), ()),
    "discrete, sampled": ((*BC, "env=cartpole", *SHORT), ("sampled=true",)),
}
HUGE = 3e38  # a float32; its products with weights are not


def example() -> Any:
    """Import examples/serve_policy.py."""
    spec = importlib.util.spec_from_file_location("serve_policy", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that trains and exports a kind of policy once."""
    base = tmp_path_factory.mktemp("serving")

    @functools.cache
    def export_once(kind: str) -> Path:
        training, exporting = KINDS[kind]
        folder = train_run(base / kind.replace(", ", "-"), *training)
        command.export(compose_config(f"run={folder}", *exporting, entry_point="export"))
        return folder

    return export_once


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_whose_numbers_overflow_has_no_action(kind: str, exported: Callable[[str], Path]):
    """The observation is a float32, the sums in the network are not: inf - inf is NaN."""
    folder = exported(kind)
    policy = example().ServedPolicy(folder / "policy.onnx", seed=0)
    size = policy.description["observation"]["size"]
    row = [HUGE * (-1) ** k for k in range(size)]
    with pytest.raises(ValueError, match="the policy has no action: its numbers overflow"):
        policy.act(row)
    assert "action" in policy.act([0.0] * size)
    inputs = {"observation": np.array([row, [0.0] * size], np.float32)}
    for name, values in policy.draw_random_input(1).items():
        inputs[name] = np.concatenate([values, values])
    session = onnxruntime.InferenceSession(folder / "policy.onnx")
    (action,) = session.run(["action"], inputs)
    if action.ndim == 1:
        assert action[0] == -1
        assert action[1] in (0, 1)
    else:
        assert np.isnan(action[0]).all()
        assert np.isfinite(action[1]).all()


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_weights_that_are_not_finite_are_not_loaded(
    kind: str, exported: Callable[[str], Path], tmp_path: Path
):
    """A checkpoint whose checksum fits, with one NaN: else argmax would choose an action by it."""
    folder = Path(shutil.copytree(exported(kind), tmp_path / "run"))
    state = load_state(folder, "last")
    name = next(key for key in state["agent"] if key.endswith("weights.0"))
    state["agent"][name].view(-1)[0] = torch.nan
    write_policy(folder, state)
    with pytest.raises(CheckpointError, match=f"{name} is not finite"):
        load_agent(folder, str(state["updates"]))


# --- The example ------------------------------------------------------------------------------


def serve(path: Path, content: bytes) -> "subprocess.CompletedProcess[bytes]":
    """Run the example over the lines."""
    command = [sys.executable, str(EXAMPLE), str(path)]
    return subprocess.run(command, input=content, capture_output=True, timeout=60, check=False)


def test_each_line_has_an_answer_of_json(exported: Callable[[str], Path]):
    """Bytes that are no text, numbers that are no float32, text of any kind: errors, in order."""
    path = exported("continuous") / "policy.onnx"
    lines = (
        *(b"[1e39, 0, 0]", b"[1e999, 0, 0]", b"[NaN, 0, 0]", b"[-Infinity, 0, 0]"),
        *(b"[%d, 0, 0]" % 10**400, b"[3e38, -3e38, 3e38]", b"[true, 0, 0]", b"[null, 0, 0]"),
        *(b'["0", 0, 0]', b"[]", b"{}", b"0", b"[" * 100_000, b"\xff\xfe", b"\x00"),
        *(b'{"observation": [0, 0, 0]}', b"[0, 0, 0", b"[" + b"0," * 10_000 + b"0]"),
    )
    process = serve(path, b"\n".join((*lines, b"[0, 0, 0]")))
    assert process.returncode == 0
    assert b"Traceback" not in process.stderr
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert [list(answer) for answer in answers] == [["error"]] * len(lines) + [
        ["action", "support"]
    ]
    assert b"NaN" not in b"".join(process.stdout.splitlines()[-1:])


@pytest.mark.parametrize("line", [b"[0,0,0]" + b" " * (2**20 - 7) + b"[1,1,1]", b"", b"0" * 2**22])
def test_a_line_has_one_answer(line: bytes, exported: Callable[[str], Path]):
    """Also one without text, or longer than is read at once: answers are told apart by order."""
    process = serve(exported("continuous") / "policy.onnx", line + b"\n[0, 0, 0]\n")
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert [list(answer) for answer in answers] == [["error"], ["action", "support"]]


DAMAGED = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "nothing": b"{}",
    "deep": b"[" * 100_000,
}
WRONG: dict[str, tuple[str, ...]] = {
    "format": ('"two"', "null", "2.5"),
    "sha256": ("1", "null"),
    "sampled": ("1", "null"),
    "observation": ("null", "[]", '{"size": 3}', '{"size": 2, "names": [], "low": [], "high": []}'),
    "action": ("null", '{"size": 1, "discrete": null, "names": []}', '{"size": "1"}'),
    "estimate": ("1", '{"value": null}'),
    "env": ("null", "[]"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_description_is_refused(
    name: str, exported: Callable[[str], Path], tmp_path: Path
):
    shutil.copy(exported("continuous") / "policy.onnx", tmp_path)
    (tmp_path / "policy.json").write_bytes(DAMAGED[name])
    with pytest.raises(ValueError, match=r"policy.json is not a description of a policy"):
        example().ServedPolicy(tmp_path / "policy.onnx")


@pytest.mark.parametrize(
    ("key", "value"), [(k, value) for k, row in WRONG.items() for value in row]
)
def test_a_description_with_a_wrong_value_is_refused(
    key: str, value: str, exported: Callable[[str], Path], tmp_path: Path
):
    shutil.copy(exported("continuous") / "policy.onnx", tmp_path)
    description = read_json(exported("continuous") / "policy.json")
    write_json(
        tmp_path / "policy.json",
        description | {key: json.loads(value) if value != "two" else value},
    )
    with pytest.raises(ValueError, match=r"export it again"):
        example().ServedPolicy(tmp_path / "policy.onnx")


def test_another_model_of_the_right_checksum_is_refused(
    exported: Callable[[str], Path], tmp_path: Path
):
    """Whoever writes both files can make the checksum fit: the inputs must fit too."""
    description = read_json(exported("continuous") / "policy.json")
    for content in (b"no model", (exported("discrete") / "policy.onnx").read_bytes()):
        (tmp_path / "policy.onnx").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        write_json(tmp_path / "policy.json", description | {"sha256": digest})
        with pytest.raises(ValueError, match=r"export it again"):
            example().ServedPolicy(tmp_path / "policy.onnx")


def test_numbers_and_names_of_a_stranger_are_refused_without_effect(
    exported: Callable[[str], Path], tmp_path: Path
):
    """A noise of 4 TB is not drawn; a pipe is not waited for; a terminal gets no escape."""
    onnx = pytest.importorskip("onnx")
    shutil.copy(exported("continuous, sampled") / "policy.onnx", tmp_path)
    path, description_path = tmp_path / "policy.onnx", tmp_path / "policy.json"
    description = read_json(exported("continuous, sampled") / "policy.json")
    action = description["action"] | {"size": 10**12, "names": []}
    write_json(description_path, description | {"action": action})
    assert b"is not the policy of policy.json" in one_line(serve(path, b""))
    model = onnx.load(path)
    model.graph.node[0].op_type = "\x1b]0;owned\x07"
    path.write_bytes(model.SerializeToString())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(description_path, description | {"sha256": digest})
    assert b"\x1b" not in one_line(serve(path, b""))
    description_path.unlink()
    os.mkfifo(description_path)
    assert b"is not a regular file" in one_line(serve(path, b""))


def one_line(process: "subprocess.CompletedProcess[bytes]") -> bytes:
    """Return the only line of an error."""
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    return line


@pytest.mark.parametrize("how", ["the reader ends", "Ctrl-C"])
def test_the_end_of_the_example_is_no_traceback(how: str, exported: Callable[[str], Path]):
    """Its reader closes the pipe, or the user stops it: exit code 0 or 130."""
    words = [sys.executable, str(EXAMPLE), str(exported("continuous") / "policy.onnx")]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # A shell starts what runs in the background with Ctrl-C ignored, tests included.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(words, preexec_fn=heed, **pipes) as process:
        process.stdin.write(b"[0, 0, 0]\n")
        process.stdin.flush()
        assert b"action" in process.stdout.readline()
        if how == "Ctrl-C":
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGINT)
        else:
            process.stdout.close()
            process.stdin.write(b"[0, 0, 0]\n")
            process.stdin.close()
        code = process.wait(60)
        errors = process.stderr.read()
    assert (code, b"Traceback" in errors) == (130 if how == "Ctrl-C" else 0, False), errors
