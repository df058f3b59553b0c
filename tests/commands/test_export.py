"""Promise: what export.py writes is the policy of the checkpoint, in the environment's units; what
cannot be exported is one line and leaves no file; it is served without torch."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.builders import build, continuous_data, settings
from support.config import CONF, composed
from support.train import DISCRETE, TINY, trained

from offline_cql.commands import export as entry_point
from offline_cql.commands.evaluate import load_run, restored_agent
from offline_cql.config import ExportConfig, typed_as
from offline_cql.errors import ConfigError, ExportError
from offline_cql.export.onnx_file import agreement, onnx_bytes
from offline_cql.export.policy import policy_alone
from offline_cql.io import read_json, write_json
from offline_cql.readers.table.inference import inferred
from offline_cql.simulation.environments import Array, make_environments, roll_out
from offline_cql.simulation.evaluation import greedy_policy

pytestmark = pytest.mark.usefixtures("recorded")

ROOT = CONF.parent
# Cloning has no critics, and discrete CQL no actor: settings without effect are refused.
NETWORKS = ("cql.n_action_samples", "network.critic", "network.actor")
PLAIN = tuple(key for key in TINY if not key.startswith(NETWORKS))
ACTOR = "network.actor_hidden=[16,16]"
SHORT = ("updates=40", "checkpoint_every=20", "evaluation.every=20")
KINDS = {
    "cql-continuous": (*TINY, *SHORT),
    "cql-discrete": (*DISCRETE, *SHORT),
    "bc-continuous": (*PLAIN, ACTOR, "algorithm=bc", *SHORT),
    "bc-discrete": (*PLAIN, ACTOR, "env=cartpole", "algorithm=bc", *SHORT),
}
SAMPLED = ("cql-continuous", "bc-discrete")


@pytest.fixture(scope="module")
def finished(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A short run of a kind, exported as asked; made once: leave it as it is."""
    base = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run(kind: str) -> Path:
        return trained(base / "runs" / kind, *KINDS[kind])

    @functools.cache
    def made(kind: str, *overrides: str) -> Path:
        folder = Path(shutil.copytree(run(kind), base / f"{kind}-{len(overrides)}"))
        exported(folder, *overrides)
        return folder

    return made


@pytest.fixture
def run(finished: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of a run of continuous CQL that was exported."""
    return Path(shutil.copytree(finished("cql-continuous"), tmp_path / "run"))


def exported(folder: Path, *overrides: str) -> dict[str, Any]:
    """policy.json after `python export.py run=FOLDER …`."""
    entry_point.export(composed(f"run={folder}", *overrides, entry_point="export"))
    return read_json(folder / "policy.json")


def acted(folder: Path, **inputs: Array) -> Array:
    """What onnxruntime answers."""
    (action,) = session_of(folder).run(["action"], inputs)
    return action


def session_of(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])


def agent_of(folder: Path, checkpoint: str = "last") -> Any:
    return restored_agent(*load_run(folder, checkpoint))


def drawn(agent: Any, size: int) -> Array:
    generator = np.random.default_rng(5)
    return generator.normal(size=(size, agent.spaces.observation_dim)).astype(np.float32)


def greedy(agent: Any, observations: Array) -> Array:
    with torch.no_grad():
        return np.asarray(agent.act(torch.from_numpy(observations)))


# --- It is the policy ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 500])
def test_any_number_of_observations_gives_the_agents_actions(
    finished: Callable[..., Path], kind: str, size: int
):
    folder = finished(kind)
    agent = agent_of(folder)
    observations = drawn(agent, size)
    found, expected = acted(folder, observation=observations), greedy(agent, observations)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "env"), [("cql-continuous", "Pendulum-v1"), ("cql-discrete", "CartPole-v1")]
)
def test_returns_in_the_environment_are_those_of_the_checkpoint(
    finished: Callable[..., Path], kind: str, env: str
):
    folder = finished(kind)
    session = session_of(folder)

    def served(observations: Array, _indices: Array, _starts: Array) -> Array:
        return session.run(["action"], {"observation": observations})[0]

    environments = make_environments(env, 2)
    returns = [
        [e.return_ for e in roll_out(environments, policy, episodes_each=2, seed=3)]
        for policy in (served, greedy_policy(agent_of(folder)))
    ]
    np.testing.assert_allclose(*returns, rtol=1e-3)
    assert len(set(returns[0])) > 1


def test_a_kept_checkpoint_is_exported_as_it_was(run: Path):
    about = exported(run, "checkpoint=20")
    assert (about["checkpoint"], about["updates"]) == ("20", 20)
    observations = drawn(agent_of(run), 7)
    found = acted(run, observation=observations)
    np.testing.assert_allclose(found, greedy(agent_of(run, "20"), observations), atol=1e-5)
    assert np.abs(found - greedy(agent_of(run), observations)).max() > 1e-4


def test_actions_never_leave_the_bounds():
    """Where tanh saturates, the map to bounds like -0.4 and 0.3 rounds past some of them."""
    low, high = np.random.default_rng(0).uniform((-3, 0.1), (-0.1, 3), (100, 2)).T.tolist()
    data = continuous_data(low=low, high=high)
    policy = policy_alone(build(settings(), data.spaces), sampled=False)
    action = policy(1e6 * torch.from_numpy(drawn(build(settings(), data.spaces), 100)))
    assert (action == torch.tensor(high)).any()
    assert (action <= torch.tensor(high)).all()
    assert (action >= torch.tensor(low)).all()


def test_the_file_says_nothing_of_this_machine(run: Path):
    content = (run / "policy.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == read_json(run / "policy.json")["sha256"]
    assert str(ROOT).encode() not in content
    assert not list(run.glob(".*.tmp"))


# --- Sampled ---------------------------------------------------------------------------------


def test_noise_moves_the_action_by_standard_deviations_before_tanh(finished: Callable[..., Path]):
    run = finished("cql-continuous", "sampled=true")
    agent = agent_of(run)
    observations, noise = drawn(agent, 7), np.full((7, 1), 0.5, np.float32)
    assert read_json(run / "policy.json")["inputs"][1] == {
        "name": "noise",
        "shape": ["batch", 1],
        "distribution": "standard normal",
    }
    with torch.no_grad():
        mean, log_std = agent.actor(agent.statistics(torch.from_numpy(observations)))
    expected = 2.0 * torch.tanh(mean + 0.5 * log_std.exp())  # Pendulum's torque is within ±2
    found = acted(run, observation=observations, noise=noise)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    still = acted(run, observation=observations, noise=0 * noise)
    np.testing.assert_allclose(still, greedy(agent, observations), atol=1e-5)


def test_uniform_numbers_choose_actions_as_often_as_the_softmax_says(
    finished: Callable[..., Path],
):
    run = finished("bc-discrete", "sampled=true")
    agent = agent_of(run)
    observations = np.repeat(drawn(agent, 1), 1_000, axis=0)
    uniform = (np.arange(1_000, dtype=np.float32) + 0.5) / 1_000
    chosen = acted(run, observation=observations, uniform=uniform)
    with torch.no_grad():
        likely = agent.logits(torch.from_numpy(observations[:1])).softmax(dim=1)[0]
    shares = np.bincount(chosen, minlength=2) / 1_000
    np.testing.assert_allclose(shares, likely, atol=1e-3)
    assert 0.01 < shares[0] < 0.99


def test_discrete_cql_has_no_distribution_to_sample_from(finished: Callable[..., Path]):
    with pytest.raises(ConfigError, match=r"sampled=true needs a policy that is a distribution"):
        exported(finished("cql-discrete"), "sampled=true")


# --- The check -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [*((kind, ()) for kind in KINDS), *((k, ("sampled=true",)) for k in SAMPLED)],
)
def test_a_file_of_other_weights_is_refused_with_the_largest_difference(
    finished: Callable[..., Path], kind: str, overrides: tuple[str, ...]
):
    folder = finished(kind, *overrides)
    other = agent_of(folder)
    observation = torch.from_numpy(drawn(other, 50))
    content = (folder / "policy.onnx").read_bytes()
    sampled = bool(overrides)
    assert agreement(content, policy_alone(other, sampled=sampled), observation).tolerance == 1e-5
    with torch.no_grad():
        network = other.actor if hasattr(other, "actor") else other.critic
        last = (network.mlp if hasattr(network, "mlp") else network).biases[-1]
        last[..., 0] += 5.0  # the first action's score, or the mean's first dimension
    with pytest.raises(ExportError, match=r"differ from torch's by up to \d.*, more than 1e-05"):
        agreement(content, policy_alone(other, sampled=sampled), observation)


def test_a_file_that_does_not_agree_is_not_put_in_place(
    run: Path, finished: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    names = ("policy.onnx", "policy.json")
    before = [(run / name).read_bytes() for name in names]
    wrong = (finished("bc-continuous") / "policy.onnx").read_bytes()
    monkeypatch.setattr(entry_point, "onnx_bytes", lambda *_: wrong)
    with pytest.raises(ExportError, match="nothing was written"):
        exported(run)
    assert [(run / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_that_is_not_the_agents_is_refused(finished: Callable[..., Path], kind: str):
    """The file would agree with the policy, but the policy not with the agent."""
    agent = agent_of(finished(kind))
    observation = torch.from_numpy(drawn(agent, 500))
    assert entry_point.float32_changes(agent, observation) <= 1e-5
    own = agent.act
    agent.act = lambda observation: 1 - own(observation)  # another action everywhere
    with pytest.raises(ExportError, match=r"the policy alone differs from the agent by up to \d"):
        entry_point.float32_changes(agent, observation)


def test_actions_that_are_no_numbers_do_not_pass_the_check(run: Path):
    policy = policy_alone(agent_of(run), sampled=False)
    with pytest.raises(ExportError, match="by up to inf"):
        agreement((run / "policy.onnx").read_bytes(), policy, torch.full((2, 3), torch.nan))


def test_rounding_of_large_observations_is_no_difference():
    """Where float32 itself is off by more than 1e-5, onnxruntime may be too."""
    agent = build(settings("network.actor_hidden=[256,256]"), continuous_data().spaces)
    policy = policy_alone(agent, sampled=False)
    large = 3_000 * torch.from_numpy(drawn(agent, 1_000))
    assert 1e-5 < agreement(onnx_bytes(policy, 3), policy, large).tolerance < 1e-2


def test_the_data_are_what_it_is_checked_on_where_they_are_at_hand(run: Path):
    check = read_json(run / "policy.json")["check"]
    assert (check["from"], check["observations"]) == ("the data set", 1_000)
    assert check["largest_difference"] <= check["tolerance"] == 1e-5


def test_without_the_data_the_file_is_the_same_checked_on_drawn_observations(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = read_json(run / "policy.json")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "empty"))
    about = exported(run)
    assert about["check"]["from"] == "drawn around the policy's statistics"
    assert about["check"]["observations"] == 1_000
    assert about["sha256"] == before["sha256"]
    assert not list((tmp_path / "empty").rglob("metadata.json"))  # nothing was recorded for it


def test_a_bf16_run_is_exported_in_float32_and_says_what_that_changes(tmp_path: Path):
    folder = trained(tmp_path / "run", *KINDS["cql-continuous"], "hardware.precision=bf16")
    about, agent = exported(folder), agent_of(folder)
    assert about["precision"] == "bf16"
    observations = drawn(agent, 100)
    found, own = acted(folder, observation=observations), greedy(agent, observations)
    agent.actor.mlp.bf16 = False
    np.testing.assert_allclose(found, greedy(agent, observations), atol=1e-5)
    assert np.abs(found - own).max() > 1e-5
    assert 1e-5 < about["check"]["float32_changes"] < 0.1


# --- policy.json -----------------------------------------------------------------------------


def test_policy_json_says_what_the_policy_is(run: Path):
    about, record = (read_json(run / name) for name in ("policy.json", "metadata.json"))
    assert about["format"] == 1
    assert about["inputs"] == [{"name": "observation", "shape": ["batch", 3]}]
    observation = about["observation"]
    assert [observation[key] for key in ("size", "names", "keys", "shift")] == [3, [], None, None]
    assert about["observation"]["normalization"].startswith("(observation - mean) / std")
    assert about["action"] == {
        **{"discrete": False, "size": 1, "names": []},
        **{"low": [-2.0], "high": [2.0]},
    }
    assert about["env"] == {"name": "pendulum", "id": "Pendulum-v1", "arguments": {}}
    assert about["dataset"] == record["dataset"]
    assert (about["algorithm"], about["alpha"], about["seed"]) == ("cql", 5.0, 0)
    assert (about["updates"], about["checkpoint"]) == (40, "last")
    assert about["commit"] == record["commit"]
    assert about["estimate"] is None
    assert about["behavior_estimate"] is None


def test_cloning_has_no_alpha(finished: Callable[..., Path]):
    assert read_json(finished("bc-discrete") / "policy.json")["alpha"] is None


def test_the_estimate_is_the_one_of_the_exported_weights(tmp_path: Path):
    def estimate(value: float) -> dict[str, Any]:
        return {"method": "fqe", "value": value, "low": 0.0, "high": 9.0, "assumptions": ["a"]}

    listed = {"20": [estimate(2.0), estimate(3.0)]}
    content = {"gamma": 0.9, "behavior": estimate(1.0), "checkpoints": listed}
    write_json(tmp_path / "ope.json", content)
    behavior = estimate(1.0) | {"gamma": 0.9}
    assert entry_point.known_estimates(tmp_path, 20, sampled=False) == {
        "estimate": estimate(2.0) | {"gamma": 0.9},
        "behavior_estimate": behavior,
    }
    nothing = {"estimate": None, "behavior_estimate": behavior}
    assert entry_point.known_estimates(tmp_path, 40, sampled=False) == nothing
    assert (
        entry_point.known_estimates(tmp_path, 20, sampled=True) == nothing
    )  # it was deterministic


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table whose columns and actions have names."""
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
    mine = ("env=logged", "dataset=table", f"dataset.path={path}", "algorithm=bc", ACTOR)
    plain = [k for k in PLAIN if not k.startswith(("dataset.size", "evaluation", "checkpoint"))]
    short = ("updates=20", "checkpoint_every=20")
    run = trained(folder / "run", *plain, *mine, *short, *inferred(str(path)).overrides())
    exported(run)
    return run


def test_names_come_from_the_data(named: Path):
    about = read_json(named / "policy.json")
    assert about["observation"]["names"] == ["obs_gap", "obs_speed"]
    assert about["action"]["names"] == ["brake", "coast", "push"]
    assert about["env"] == {"name": "logged", "id": None, "arguments": {}}


def test_data_that_changed_are_said_and_not_used(named: Path, capsys: Any):
    path = named.parent / "logs.parquet"
    before = path.read_bytes()
    try:
        pq.write_table(pq.read_table(path).slice(0, 200), path)
        assert entry_point.data_at_hand(*load_run(named)) is None
    finally:
        path.write_bytes(before)
    assert "changed since the run was trained" in capsys.readouterr().err


# --- What cannot be --------------------------------------------------------------------------


def test_a_checkpoint_that_is_not_there(run: Path):
    with pytest.raises(ConfigError, match=r"checkpoint=30 must be one of last, 20, 40$"):
        exported(run, "checkpoint=30")


def test_a_checkpoint_that_is_no_number():
    with pytest.raises(ConfigError, match=r"checkpoint=best must be last or a number of updates"):
        typed_as(ExportConfig, composed("run=x", "checkpoint=best", entry_point="export"))


def test_a_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is no run folder: it has no config.yaml"):
        exported(tmp_path)


def test_a_damaged_checkpoint(run: Path):
    path = run / "checkpoints" / "20.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"20.ckpt is damaged: sha256"):
        exported(run, "checkpoint=20")


@pytest.mark.parametrize("name", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line_with_the_remedy(
    run: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, name, None)
    expected = rf"{name} .*which export.py needs: pip install 'offline-cql\[export\]'"
    with pytest.raises(ConfigError, match=expected):
        exported(run)


def test_help_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "export.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "python export.py run=" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in loaded
    assert not loaded & {"torch", "onnxruntime", "numpy"}


# --- The example -----------------------------------------------------------------------------

BLOCKED = (
    "import runpy, sys\n"
    "for name in ('torch', 'offline_cql', 'onnx', 'onnxscript'): sys.modules[name] = None\n"
    "sys.argv = sys.argv[1:]\n"
    "runpy.run_path(sys.argv[0], run_name='__main__')\n"
)


def served(path: Path, lines: list[str], *arguments: str) -> list[dict[str, Any]]:
    """What the example answers to lines, in a process that cannot import torch or this package."""
    done = started(path, lines, *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def started(path: Path, lines: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    example = str(ROOT / "examples" / "serve_policy.py")
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, example, str(path), *arguments],
        cwd=path.parent,
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        timeout=60,
        check=False,
    )


def test_the_example_answers_with_the_agents_actions(run: Path):
    agent = agent_of(run)
    observations = drawn(agent, 3)
    answers = served(run / "policy.onnx", [json.dumps(row.tolist()) for row in observations])
    found = np.array([answer["action"] for answer in answers])
    np.testing.assert_allclose(found, greedy(agent, observations), atol=1e-5)


def test_the_example_names_the_action(named: Path):
    (answer,) = served(named / "policy.onnx", ["[0.5, -1]"])
    expected = int(greedy(agent_of(named), np.array([[0.5, -1.0]], np.float32))[0])
    assert answer == {"action": expected, "name": ["brake", "coast", "push"][expected]}


def test_the_example_refuses_what_is_no_observation_and_goes_on(named: Path):
    lines = ["[0.5, NaN]", "[1e300, 0]", "[0.5]", '["0.5", 1]', "[null, 1]", "{", "3", "[0.5, 1]"]
    *refused, last = served(named / "policy.onnx", lines)
    assert [answer["error"] for answer in refused[:4]] == [
        "obs_speed of the observation is not finite",
        "obs_gap of the observation is not finite",
        "the observation has 1 numbers, expected 2",
        "an observation is a list of numbers",
    ]
    assert all(list(answer) == ["error"] for answer in refused)
    assert "action" in last


@pytest.mark.parametrize("kind", SAMPLED)
def test_the_example_draws_for_a_sampled_policy(finished: Callable[..., Path], kind: str):
    run = finished(kind, "sampled=true")
    lines = [json.dumps([0.1] * agent_of(run).spaces.observation_dim)] * 40
    answers = served(run / "policy.onnx", lines, "--seed", "1")
    assert len({str(answer["action"]) for answer in answers}) > 1
    assert served(run / "policy.onnx", lines, "--seed", "1") == answers


def test_the_example_serves_only_the_file_that_policy_json_describes(run: Path):
    (run / "policy.onnx").write_bytes((run / "policy.onnx").read_bytes() + b" ")
    done = started(run / "policy.onnx", ["[0, 0, 0]"])
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "is not the file that policy.json describes" in done.stderr
