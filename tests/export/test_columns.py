"""Guarantee: an exported policy of a table takes its raw columns and answers as the run does."""

import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.builders import build, continuous_data, settings
from support.config import ROOT
from support.expressions import EXPRESSIONS
from support.train import TINY, train_run

from offline_cql import DataError, PolicyError, Run, load_policy
from offline_cql.errors import ExportError
from offline_cql.export.columns import columns_onnx_bytes, encode
from offline_cql.export.onnx_file import check_onnx
from offline_cql.export.policy import exportable_policy
from offline_cql.features import Feature, Features, column_inputs

SIZE = 200
START = datetime.datetime(2026, 1, 1)
OBSERVATION = ["age", "mode", "ward", '=ln("heart rate") / 2', "=epoch(time) % 86400 / 3600"]


def log() -> dict[str, list[Any]]:
    """Return the columns of 20 episodes of 10 rows, with missing values."""
    generator = np.random.default_rng(0)
    gaps = generator.random((2, SIZE)) < 0.1
    ages = generator.normal(60, 10, SIZE)
    modes = generator.choice(["auto", "off", "manual"], SIZE)
    return {
        "episode": np.repeat(np.arange(20), 10).tolist(),
        "time": [START + datetime.timedelta(hours=hour) for hour in range(SIZE)],
        "age": [None if gap else float(age) for gap, age in zip(gaps[0], ages, strict=True)],
        "mode": [None if gap else str(mode) for gap, mode in zip(gaps[1], modes, strict=True)],
        "ward": generator.integers(3, 7, SIZE).tolist(),
        "heart rate": generator.uniform(50, 150, SIZE).tolist(),
        "dose": generator.uniform(0, 1, SIZE).tolist(),
        "reward": generator.normal(size=SIZE).tolist(),
    }


@pytest.fixture(scope="module", params=["discrete", "continuous"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run on the log with discrete or continuous actions."""
    folder = tmp_path_factory.mktemp("run")
    pq.write_table(pa.table(log()), folder / "log.parquet")
    high = "=CASE WHEN dose > 0.5 THEN 'high' ELSE 'low' END"
    action = "dose" if request.param == "continuous" else high
    tiny = TINY
    if request.param == "discrete":
        tiny = tuple(k for k in TINY if not k.startswith(("cql.n_act", "network.act")))
    lines = ["env=logged", "dataset=table", f"dataset.path={folder / 'log.parquet'}"]
    lines += [f"dataset.columns.observation={json.dumps(OBSERVATION)}", "dataset.missing=fill"]
    lines += ["dataset.columns.categories=[mode,{column:ward,values:8}]"]
    lines += [f"dataset.columns.action=[{json.dumps(action)}]"]
    tiny = tuple(key for key in tiny if not key.startswith("dataset.size"))
    return Run(train_run(folder / "run", *tiny, *lines, "updates=20"))


def rows(*names: str) -> dict[str, list[Any]]:
    columns = log()
    return {name: columns[name][:50] for name in names}


NAMES = ("age", "mode", "ward", "heart rate", "time")


def test_run_file_and_server_answer_alike_to_raw_columns(run: Run):
    observations = rows(*NAMES)
    expected = run.policy().predict(observations)
    path = run.export()  # with the support of actions
    actions = load_policy(path).predict(observations)
    assert actions.shape == expected.shape
    table = pa.table(dict(reversed(observations.items())))
    np.testing.assert_array_equal(run.policy().predict(table), expected)
    np.testing.assert_allclose(actions, expected, atol=1e-6)
    one = {name: values[3] for name, values in observations.items()}
    np.testing.assert_allclose(load_policy(path).predict(one), expected[3], atol=1e-6)
    answers = serve(path, [{n: plain(v[k]) for n, v in observations.items()} for k in range(50)])
    served = np.array([answer["action"] for answer in answers])
    np.testing.assert_allclose(served, expected, atol=1e-6)
    assert all(0 <= answer["support"] <= 1 for answer in answers)


def plain(value: Any) -> Any:
    """Return a value for JSON."""
    return value.isoformat() if isinstance(value, datetime.datetime) else value


def serve(path: Path, observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    example = str(ROOT / "examples" / "serve_policy.py")
    process = subprocess.run(
        [sys.executable, example, str(path)],
        input="".join(f"{json.dumps(observation)}\n" for observation in observations),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_frames_rows_and_lists_of_rows_are_read_by_name(run: Run):
    """Columns of a data frame that the policy does not observe do not count."""
    columns = rows(*NAMES)
    path = run.export(["support=false"])
    for policy in (run.policy(), load_policy(path)):
        actions = policy.predict(columns)
        frame = pd.DataFrame(columns | {"dose": 0.5})
        np.testing.assert_array_equal(policy.predict(frame), actions)
        np.testing.assert_array_equal(policy.predict(frame[[*NAMES]].to_dict("records")), actions)
        np.testing.assert_allclose(policy.predict(frame.iloc[3]), actions[3], atol=1e-6)
        frames = (pl.DataFrame(columns), pa.table(columns))
        for each in frames:
            np.testing.assert_array_equal(policy.predict(each), actions)
        empty = policy.predict(frame[:0])
        assert (empty.shape, empty.dtype) == ((0, *actions.shape[1:]), actions.dtype)
        with pytest.raises(DataError, match="the unknown dose"):
            policy.predict(columns | {"dose": [0.5] * len(columns["age"])})


def test_the_graph_has_the_columns_as_inputs(run: Run):
    session = ort.InferenceSession(
        run.export(["support=false"]), providers=["CPUExecutionProvider"]
    )
    assert {node.name: node.type for node in session.get_inputs()} == {
        **dict.fromkeys(("age", "ward", "heart rate", "time"), "tensor(double)"),
        "mode": "tensor(string)",
    }


def test_every_operator_is_in_the_graph():
    """Beside NumPy's and torch's values, which the check before each export compares too."""
    columns = ("a", "b", "heart rate")
    features = Features([Feature(f"={text}") for text in EXPRESSIONS])
    spaces = continuous_data(observation_dim=len(EXPRESSIONS)).spaces
    policy = exportable_policy(build(settings(), spaces, std=10.0), sampled=False)
    values = np.random.default_rng(0).uniform(0.5, 5, (50, len(columns)))
    by_name = dict(zip(columns, values.T, strict=True))
    ordered = np.stack([by_name[name] for name in features.columns], axis=1)
    observation = torch.from_numpy(features.encode(ordered)).float()
    content, inputs = columns_onnx_bytes(policy, features), column_inputs(features, ordered)
    assert check_onnx(content, policy, observation, inputs) < 1e-6
    tensors = {name: torch.from_numpy(column) for name, column in by_name.items()}
    encoded = torch.cat([encode(feature, tensors) for feature in features.features], dim=1)
    np.testing.assert_allclose(encoded, features.encode(ordered), rtol=1e-12)
    with pytest.raises(ExportError, match="differ from torch's"):
        check_onnx(content, policy, observation + 10, inputs)


def test_columns_may_have_the_names_of_values_of_the_graph():
    """The file's other inputs and outputs keep their names, values inside it get others."""
    names = ("action", "support", "observation", "noise", "add", "cat", "mul_1", "linear")
    features = Features(
        [Feature("action", categories=("x", "y")), *(Feature(name, fill=0.0) for name in names[1:])]
    )
    spaces = continuous_data(observation_dim=len(features.names)).spaces
    policy = exportable_policy(build(settings(), spaces, std=10.0), sampled=False)
    values = np.random.default_rng(0).integers(0, 2, (50, len(names))).astype(float)
    inputs = column_inputs(features, values)
    assert list(inputs)[:2] == ["action (column)", "support (column)"]
    content = columns_onnx_bytes(policy, features)
    observation = torch.from_numpy(features.encode(values)).float()
    assert check_onnx(content, policy, observation, inputs) < 1e-6


def test_what_the_data_never_show_has_no_action(run: Run):
    """The file has no action; the policies and the server say why."""
    path = run.export(["support=false"])
    one = {name: values[3] for name, values in rows(*NAMES).items()}
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for change in ({"mode": "on"}, {"ward": 9.0}, {"ward": np.nan}, {"heart rate": np.nan}):
        values = {"age": np.nan, "mode": "", "ward": 3.0, "heart rate": 80.0, "time": 0.0}
        inputs = {
            name: np.array([value], object if name == "mode" else np.float64)
            for name, value in (values | change).items()
        }
        (action,) = session.run(["action"], inputs)
        assert (action == -1).all() if action.ndim == 1 else np.isnan(action).all()
    for policy in (run.policy(), load_policy(path)):
        with pytest.raises(DataError, match="mode is 'on', in the training data: auto, manual"):
            policy.predict(one | {"mode": "on"})
        with pytest.raises(DataError, match="ward is missing"):
            policy.predict(one | {"ward": None})
        with pytest.raises((DataError, PolicyError)):
            policy.predict(one | {"heart rate": -1.0})
        for change in ({"ward": True}, {"time": True}, {"age": 10**400}, {"age": np.inf}):
            with pytest.raises(DataError, match=rf"{next(iter(change))} is .*, (expected|in the)"):
                policy.predict(one | change)
        np.testing.assert_array_equal(
            policy.predict(one | {"age": True, "mode": ""}),
            policy.predict(one | {"age": 1, "mode": None}),
        )
    with pytest.raises(DataError, match="age is not finite in float32"):
        run.policy().predict(one | {"age": 1e60})
    refused = [{"ward": True}, {"time": True}, {"age": 10**400}]
    for answer in serve(path, [{n: plain(v) for n, v in (one | c).items()} for c in refused]):
        assert "error" in answer
    pair = [{"age": True, "mode": ""}, {"age": 1, "mode": None}]
    answers = serve(path, [{n: plain(v) for n, v in (one | c).items()} for c in pair])
    assert "action" in answers[0]
    assert answers[0] == answers[1]
    wrong = [{"mode": "on"}, {"ward": None}, {"heart rate": "x"}, {"time": "noon"}]
    answers = serve(path, [{n: plain(v) for n, v in (one | change).items()} for change in wrong])
    assert [answer["error"].partition(" ")[0].strip(":") for answer in answers] == [
        *("mode", "ward", "heart", "time"),
    ]
    with pytest.raises(DataError, match="by the names of its columns: age, mode, ward, heart rate"):
        load_policy(path).predict(np.zeros(14))


def test_a_column_that_only_an_expression_needs_has_a_range(run: Run):
    """The heart rates are between 50 and 150, the times in 2026."""
    path = run.export()
    one = {name: plain(values[3]) for name, values in rows(*NAMES).items()}
    far = [{}, {"heart rate": 1e6}, {"time": "1970-01-01"}]
    inside, *outside = serve(path, [one | change for change in far])
    assert "warning" not in inside or "hardly show" in inside["warning"]
    assert outside[0]["warning"].startswith("heart rate is 1e+06, in the training data 5")
    assert outside[1]["warning"].startswith("time is 0, in the training data 1.767")


def test_without_the_table_random_columns_are_compared(run: Run, tmp_path: Path):
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("log.parquet", "gone.parquet"))
    path = Run(folder).export()
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["check"]["from"] == "random normal"
    assert description["support"] is None
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["features"].pop()
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="the description of the observation has 15 numbers"):
        load_policy(folder)


def test_a_sampled_policy_takes_columns_and_noise(run: Run):
    if not run.policy().discrete:
        path = run.export(["sampled=true", "support=false"])
        observations = rows(*NAMES)
        one, same = (load_policy(path, seed=0).predict(observations) for _ in range(2))
        np.testing.assert_array_equal(one, same)
        assert np.abs(one - run.policy().predict(observations)).max() > 1e-3
