"""Guarantee: the exported file computes the checkpoint's policy in the environment's units.

It is checked before it is written, described by policy.json, and served without torch.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.builders import build, continuous_data, settings
from support.config import CONF, compose_config
from support.train import BC, DISCRETE, TINY, train_run

from offline_cql.commands import export as command
from offline_cql.commands.load_run import load_agent, load_config
from offline_cql.errors import ConfigError, ExportError
from offline_cql.export.onnx_file import check_onnx, onnx_bytes
from offline_cql.export.policy import exportable_policy
from offline_cql.io import read_json, write_json
from offline_cql.readers.table.inference import infer_columns
from offline_cql.runs.checkpoint import load_state
from offline_cql.simulation.rollouts import Array

pytestmark = pytest.mark.usefixtures("recorded")

ROOT = CONF.parent
SHORT = ("updates=40", "checkpoint_every=20", "evaluation.every=20")
KINDS = {
    "cql-continuous": (*TINY, *SHORT),
    "cql-averaged": (*TINY, *SHORT, "network.policy_ema=0.9"),
    "cql-discrete": (*DISCRETE, *SHORT),
    "bc-continuous": (*BC, *SHORT),
    "bc-discrete": (*BC, "env=cartpole", *SHORT),
}
SAMPLED = ("cql-continuous", "bc-discrete")


@pytest.fixture(scope="module")
def exported(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that exports a run per kind and overrides; its folders are shared."""
    base = tmp_path_factory.mktemp("runs")

    @functools.cache
    def train_once(kind: str) -> Path:
        return train_run(base / "runs" / kind, *KINDS[kind])

    @functools.cache
    def export_once(kind: str, *overrides: str) -> Path:
        folder = base / f"{kind}-{len(overrides)}"
        shutil.copytree(train_once(kind), folder)
        export(folder, *overrides)
        return folder

    return export_once


@pytest.fixture
def run(exported: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a copy of an exported run of continuous CQL, which the test may change."""
    return Path(shutil.copytree(exported("cql-continuous"), tmp_path / "run"))


def export(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run export.py, without support=true unless it is typed, and return policy.json."""
    support = () if "support=true" in overrides else ("support=false",)
    command.export(compose_config(f"run={folder}", *support, *overrides, entry_point="export"))
    return read_json(folder / "policy.json")


def onnx_actions(folder: Path, **inputs: Array) -> Array:
    session = onnxruntime.InferenceSession(
        folder / "policy.onnx", providers=["CPUExecutionProvider"]
    )
    (action,) = session.run(["action"], inputs)
    return action


def agent_of(folder: Path, checkpoint: str = "last") -> Any:
    return load_agent(folder, checkpoint)[1]


def agent_actions(agent: Any, observations: Array) -> Array:
    with torch.no_grad():
        return np.asarray(agent.act(torch.from_numpy(observations)))


def random_observations(agent: Any, size: int) -> Array:
    shape = (size, agent.spaces.observation_dim)
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


# --- The file computes the policy ------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 500])
def test_a_batch_of_any_size_gives_the_agents_actions(
    exported: Callable[..., Path], kind: str, size: int
):
    folder = exported(kind)
    agent = agent_of(folder)
    observations = random_observations(agent, size)
    actions = onnx_actions(folder, observation=observations)
    expected = agent_actions(agent, observations)
    assert (actions.dtype, actions.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_a_kept_checkpoint_is_exported_with_its_own_weights(run: Path):
    description = export(run, "checkpoint=20")
    assert (description["checkpoint"], description["updates"]) == ("20", 20)
    observations = random_observations(agent_of(run), 7)
    actions = onnx_actions(run, observation=observations)
    kept, last = (agent_actions(agent_of(run, name), observations) for name in ("20", "last"))
    np.testing.assert_allclose(actions, kept, atol=1e-5)
    assert np.abs(actions - last).max() > 1e-4


def test_actions_never_exceed_the_bounds():
    """Where tanh saturates, the map to bounds like -0.4 and 0.3 rounds past some of them."""
    low, high = np.random.default_rng(0).uniform((-3, 0.1), (-0.1, 3), (100, 2)).T.tolist()
    agent = build(settings(), continuous_data(low=low, high=high).spaces)
    policy = exportable_policy(agent, sampled=False)
    action = policy(1e6 * torch.from_numpy(random_observations(agent, 100)))
    assert (action == torch.tensor(high)).any()
    assert (action <= torch.tensor(high)).all()
    assert (action >= torch.tensor(low)).all()


def test_a_bf16_run_is_exported_in_float32(tmp_path: Path):
    folder = train_run(tmp_path / "run", *KINDS["cql-continuous"], "hardware.precision=bf16")
    assert export(folder)["precision"] == "bf16"
    agent = agent_of(folder)
    observations = random_observations(agent, 100)
    actions = onnx_actions(folder, observation=observations)
    in_bf16 = agent_actions(agent, observations)
    agent.actor.mlp.bf16 = False
    np.testing.assert_allclose(actions, agent_actions(agent, observations), atol=1e-5)
    assert np.abs(actions - in_bf16).max() > 1e-5


def test_the_bytes_are_reproducible_and_name_no_path_of_this_machine(run: Path):
    content = (run / "policy.onnx").read_bytes()
    description = export(run)
    assert (run / "policy.onnx").read_bytes() == content
    assert description["sha256"] == hashlib.sha256(content).hexdigest()
    assert str(ROOT).encode() not in content


# --- Sampled policies ------------------------------------------------------------------------


def test_noise_moves_the_action_by_standard_deviations_before_tanh(exported: Callable[..., Path]):
    folder = exported("cql-continuous", "sampled=true")
    agent = agent_of(folder)
    observations, noise = random_observations(agent, 7), np.full((7, 1), 0.5, np.float32)
    assert read_json(folder / "policy.json")["inputs"][1] == {
        "name": "noise",
        "shape": ["batch", 1],
        "distribution": "standard normal",
    }
    with torch.no_grad():
        mean, log_std = agent.actor(agent.statistics(torch.from_numpy(observations)))
    expected = 2.0 * torch.tanh(mean + 0.5 * log_std.exp())  # Pendulum's torque is within ±2
    actions = onnx_actions(folder, observation=observations, noise=noise)
    np.testing.assert_allclose(actions, expected, atol=1e-5)
    mode = onnx_actions(folder, observation=observations, noise=0 * noise)
    np.testing.assert_allclose(mode, agent_actions(agent, observations), atol=1e-5)


def test_uniform_numbers_choose_actions_with_the_softmax_probabilities(
    exported: Callable[..., Path],
):
    folder = exported("bc-discrete", "sampled=true")
    agent = agent_of(folder)
    observations = np.repeat(random_observations(agent, 1), 1_000, axis=0)
    uniform = (np.arange(1_000, dtype=np.float32) + 0.5) / 1_000
    actions = onnx_actions(folder, observation=observations, uniform=uniform)
    with torch.no_grad():
        logits = agent.actor(agent.statistics(torch.from_numpy(observations[:1])))[0]
        probabilities = logits.softmax(dim=1)[0]
    frequencies = np.bincount(actions, minlength=2) / 1_000
    np.testing.assert_allclose(frequencies, probabilities, atol=1e-3)
    assert 0.01 < frequencies[0] < 0.99


def test_discrete_cql_cannot_be_sampled(exported: Callable[..., Path]):
    with pytest.raises(ConfigError, match=r"sampled=true needs a policy that is a distribution"):
        export(exported("cql-discrete"), "sampled=true")


# --- The check -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [*((kind, ()) for kind in KINDS), *((kind, ("sampled=true",)) for kind in SAMPLED)],
)
def test_a_file_with_other_weights_fails_the_check(
    exported: Callable[..., Path], kind: str, overrides: tuple[str, ...]
):
    folder = exported(kind, *overrides)
    agent = agent_of(folder)
    observation = torch.from_numpy(random_observations(agent, 50))
    content = (folder / "policy.onnx").read_bytes()
    policy = exportable_policy(agent, sampled=bool(overrides))
    assert check_onnx(content, policy, observation) < 1e-5
    with torch.no_grad():
        network = agent.policy().network
        mlp = network.mlp if hasattr(network, "mlp") else network
        mlp.biases[-1][..., 0] += 5.0  # the score of action 0, or the mean of dimension 0
    with pytest.raises(ExportError, match=r"differ from torch's by up to \d.*, more than 0.001"):
        check_onnx(content, exportable_policy(agent, sampled=bool(overrides)), observation)


def test_nan_fails_the_check(run: Path):
    policy = exportable_policy(agent_of(run), sampled=False)
    with pytest.raises(ExportError, match="no action at 2 of 2 observations"):
        check_onnx((run / "policy.onnx").read_bytes(), policy, torch.full((2, 3), torch.nan))


def test_rounding_at_large_observations_passes_the_check():
    """Unnormalized observations in the thousands."""
    agent = build(settings("network.actor_hidden=[256,256]"), continuous_data().spaces)
    policy = exportable_policy(agent, sampled=False)
    large = 3_000 * torch.from_numpy(random_observations(agent, 1_000))
    assert check_onnx(onnx_bytes(policy, 3), policy, large) < 1e-3


def test_a_file_that_fails_the_check_is_not_written(
    run: Path, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    names = ("policy.onnx", "policy.json")
    before = [(run / name).read_bytes() for name in names]
    wrong = (exported("bc-continuous") / "policy.onnx").read_bytes()
    monkeypatch.setattr(command, "onnx_bytes", lambda *_: wrong)
    with pytest.raises(ExportError, match="no file was written"):
        export(run)
    assert [(run / name).read_bytes() for name in names] == before


def test_the_check_uses_local_data(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check = read_json(run / "policy.json")["check"]
    assert (check["from"], check["observations"]) == ("data set", 1_000)
    assert check["largest_difference"] <= check["tolerance"] == 1e-3
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "empty"))
    check = export(run)["check"]
    assert (check["from"], check["observations"]) == ("random normal", 1_000)
    assert not list((tmp_path / "empty").rglob("metadata.json"))  # no data set was recorded


# --- policy.json -----------------------------------------------------------------------------


def test_policy_json_describes_the_policy(run: Path):
    description, metadata = (read_json(run / name) for name in ("policy.json", "metadata.json"))
    assert description["format"] == 2
    assert description["inputs"] == [{"name": "observation", "shape": ["batch", 3]}]
    observation = description["observation"]
    assert [observation[key] for key in ("size", "names", "keys", "shift")] == [3, [], None, None]
    assert observation["normalization"].startswith("(observation - mean) / std")
    bounds = {"low": [-2.0], "high": [2.0]}
    assert description["action"] == {"discrete": False, "size": 1, "names": [], **bounds}
    assert description["env"] == {"name": "pendulum", "id": "Pendulum-v1", "arguments": {}}
    assert description["dataset"] == metadata["dataset"]
    assert [description[key] for key in ("algorithm", "alpha", "seed")] == ["cql", 5.0, 0]
    assert (description["updates"], description["checkpoint"]) == (40, "last")
    assert description["commit"] == metadata["commit"]
    assert (description["estimate"], description["behavior_estimate"]) == (None, None)


def test_the_file_says_how_well_the_data_support_an_action(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "UPDATES", 300)
    description = export(run, "support=true")
    assert description["support"].startswith("the share of logged actions with a lower density")
    session = onnxruntime.InferenceSession(run / "policy.onnx")
    observations = random_observations(agent_of(run), 4)
    action, support = session.run(None, {"observation": observations})
    np.testing.assert_allclose(action, agent_actions(agent_of(run), observations), atol=1e-5)
    assert support.shape == (4,)
    assert ((support >= 0) & (support <= 1)).all()
    answers = serve(run, [json.dumps(row.tolist()) for row in observations])
    np.testing.assert_allclose([answer["support"] for answer in answers], support, atol=1e-4)
    for answer in answers:
        assert ("warning" in answer) == (answer["support"] < 0.01)


def test_behavior_cloning_has_no_alpha(exported: Callable[..., Path]):
    assert read_json(exported("bc-discrete") / "policy.json")["alpha"] is None


def test_the_estimate_belongs_to_the_exported_weights(tmp_path: Path):
    def estimate(value: float) -> dict[str, Any]:
        return {"method": "fqe", "value": value, "low": 0.0, "high": 9.0, "assumptions": ["a"]}

    checkpoints = {"20": [estimate(2.0), estimate(3.0)]}
    content = {"gamma": 0.9, "validation_episodes": 30, "behavior": estimate(1.0)}
    content["checkpoints"] = checkpoints
    write_json(tmp_path / "ope.json", content)
    behavior = estimate(1.0) | {"gamma": 0.9, "text": "1 [0, 9]"}
    assert command.describe_estimates(tmp_path, 20, sampled=False) == {
        "estimate": estimate(2.0) | {"gamma": 0.9, "text": "2 [0, 9]"},
        "behavior_estimate": behavior,
    }
    # Other weights, and a sampled policy: ope.json estimates deterministic ones.
    without = {"estimate": None, "behavior_estimate": behavior}
    assert command.describe_estimates(tmp_path, 40, sampled=False) == without
    assert command.describe_estimates(tmp_path, 20, sampled=True) == without


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an exported run on a table whose columns and actions have names."""
    folder = tmp_path_factory.mktemp("named")
    generator = np.random.default_rng(0)
    path, size = folder / "logs.parquet", 400
    columns: dict[str, Any] = {
        "episode": np.arange(size) // 20,
        "step": np.arange(size) % 20,
        "obs_speed": generator.normal(size=size),
        "obs_gap": generator.normal(size=size),
        "action": generator.choice(["brake", "coast", "push"], size),
        "reward": generator.normal(size=size),
        "terminated": np.arange(size) % 20 == 19,
    }
    pq.write_table(pa.table(columns), path)
    simulated = ("dataset.size", "evaluation", "checkpoint")
    run = train_run(
        folder / "run",
        *(key for key in BC if not key.startswith(simulated)),
        *("env=logged", "dataset=table", f"dataset.path={path}"),
        *("updates=20", "checkpoint_every=20"),
        *infer_columns(str(path)).overrides(),
    )
    export(run)
    return run


def test_names_come_from_the_data(named: Path):
    description = read_json(named / "policy.json")
    assert description["observation"]["names"] == ["obs_gap", "obs_speed"]
    assert description["action"]["names"] == ["brake", "coast", "push"]
    assert description["env"] == {"name": "logged", "id": None, "arguments": {}}


def test_changed_data_are_not_used(named: Path, capsys: Any):
    path = named.parent / "logs.parquet"
    before = path.read_bytes()
    try:
        pq.write_table(pq.read_table(path).slice(0, 200), path)
        assert command.load_local_data(load_config(named), load_state(named, "last")) is None
    finally:
        path.write_bytes(before)
    assert "has changed since the run was trained" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_remedy(
    run: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, name, None)
    remedy = rf"{name}.* is not installed; run: pip install 'offline-cql\[export\]'"
    with pytest.raises(ConfigError, match=remedy):
        export(run)


# --- examples/serve_policy.py ----------------------------------------------------------------

WITHOUT_TORCH = (
    "import runpy, sys\n"
    "for name in ('torch', 'offline_cql', 'onnx', 'onnxscript'): sys.modules[name] = None\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


def start(path: Path, lines: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the example where torch and this package cannot be imported."""
    example = str(ROOT / "examples" / "serve_policy.py")
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, example, str(path), *arguments],
        cwd=path.parent,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        timeout=60,
        check=False,
    )


def serve(folder: Path, lines: list[str], *arguments: str) -> list[dict[str, Any]]:
    """Return the example's answers, one per line."""
    process = start(folder / "policy.onnx", lines, *arguments)
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_the_example_answers_with_the_agents_actions(exported: Callable[..., Path]):
    folder = exported("cql-continuous")
    agent = agent_of(folder)
    observations = random_observations(agent, 3)
    answers = serve(folder, [json.dumps(row.tolist()) for row in observations])
    actions = np.array([answer["action"] for answer in answers])
    np.testing.assert_allclose(actions, agent_actions(agent, observations), atol=1e-5)


def test_the_example_names_the_action(named: Path):
    (answer,) = serve(named, ["[0.5, -1]"])
    expected = int(agent_actions(agent_of(named), np.array([[0.5, -1.0]], np.float32))[0])
    assert answer == {"action": expected, "name": ["brake", "coast", "push"][expected]}


def test_the_example_rejects_invalid_observations_and_continues(named: Path):
    lines = ["[0.5, NaN]", "[1e300, 0]", "[0.5]", '["0.5", 1]', "[null, 1]", "{", "3", "[0.5, 1]"]
    *rejected, last = serve(named, lines)
    assert [answer["error"] for answer in rejected[:4]] == [
        "obs_speed is not finite",
        "obs_gap is not finite",
        "the observation has 1 numbers, expected 2",
        "an observation must be a list of numbers",
    ]
    assert all(list(answer) == ["error"] for answer in rejected)
    assert "action" in last


def test_the_example_takes_names_and_lists(named: Path):
    """An invalid observation of a list has an error, and the others their answers."""
    row, by_name = "[0.5, -1]", '{"obs_speed": -1, "obs_gap": 0.5}'
    batch_line = f'[{row}, {{"obs_gap": 0.5}}, {by_name}]'
    lines = [row, by_name, batch_line, '{"obs_speed": -1, "obs_gap": 0.5, "x": 2}']
    first, second, batch, unknown = serve(named, lines)
    assert "action" in first
    assert second == first
    assert batch == [first, {"error": "the observation does not have obs_speed"}, first]
    assert unknown == {"error": "the observation has the unknown x"}


@pytest.fixture(scope="module")
def address(named: Path) -> Iterator[str]:
    """Start the HTTP example; return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = ROOT / "examples" / "serve_http.py"
    words = [sys.executable, str(script), str(named / "policy.onnx"), f"--port={port}"]
    with subprocess.Popen(words) as server:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def post(address: str, content: str) -> tuple[int, Any]:
    """Return the status and the body of the answer of /act."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{address}/act", content.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_policy_answers_over_http(named: Path, address: str):
    (expected,) = serve(named, ["[0.5, -1]"])
    assert post(address, '{"observation": [0.5, -1]}') == (200, expected)
    named_one = '{"observation": {"obs_gap": 0.5, "obs_speed": -1}}'
    assert post(address, named_one) == (200, expected)
    both = post(address, '{"observations": [[0.5, -1], [0.5]]}')
    error = "the observation has 1 numbers, expected 2"
    assert both == (200, {"answers": [expected, {"error": error}]})
    with urllib.request.urlopen(f"{address}/policy", timeout=30) as answer:
        assert json.load(answer) == read_json(named / "policy.json")


@pytest.mark.parametrize(
    "content",
    [
        *('{"observation": [0.5]}', '{"observation": [NaN, 1]}', '{"observation": ["0.5", 1]}'),
        *('{"observation": [true, 1]}', '{"observations": 3}', '{"other": [0.5, 1]}', "{}", "["),
        *('{"observation": [1, 2], "observations": []}', '{"observation": {"x": 1}}', ""),
        '{"observation": [1e999, 0]}',
    ],
)
def test_an_invalid_request_is_status_422(address: str, content: str):
    status, body = post(address, content)
    assert status == 422
    assert body["detail"]


@pytest.mark.parametrize("kind", SAMPLED)
def test_the_example_draws_for_a_sampled_policy(exported: Callable[..., Path], kind: str):
    folder = exported(kind, "sampled=true")
    lines = [json.dumps([0.1] * agent_of(folder).spaces.observation_dim)] * 40
    answers = serve(folder, lines, "--seed", "1")
    assert len({str(answer["action"]) for answer in answers}) > 1
    assert serve(folder, lines, "--seed", "1") == answers


def test_the_example_serves_only_the_file_that_policy_json_describes(run: Path):
    (run / "policy.onnx").write_bytes((run / "policy.onnx").read_bytes() + b" ")
    process = start(run / "policy.onnx", ["[0, 0, 0]"])
    assert process.returncode == 1
    assert process.stdout == ""
    assert process.stderr.startswith("error: ")
    assert "is not the file that policy.json describes" in process.stderr
