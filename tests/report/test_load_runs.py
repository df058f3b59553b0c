"""Guarantee: a run folder becomes one value; one that cannot be read is listed with its reason."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.run_dirs import write_run

from offline_cql.config.algorithms import ALGORITHMS
from offline_cql.errors import ConfigError
from offline_cql.report.load_runs import load_runs
from offline_cql.report.run import by_task, differences, grids, methods, validation_rows


def test_a_run_has_the_values_of_its_folder(tmp_path: Path):
    finding = {"level": "warning", "name": "x", "message": "it leans", "remedy": "hold it"}
    returns = {100: [1.0, 2.0], 200: [3.0, 5.0]}
    results = {"bounds": {100: (60, 70)}, "returns": returns, "score": 7.5, "findings": (finding,)}
    write_run(tmp_path / "run", alpha=2.5, seed=4, **results)
    (run,) = load_runs(str(tmp_path)).runs
    assert (run.alpha, run.seed, run.updates, run.finished) == (2.5, 4, 200, True)
    assert run.task == ("cart", "a" * 64)
    assert run.task_name == "cart · sim/cart/mixed-v0"
    assert validation_rows(run.offline, "validation/td_error") == {100: 2.0, 200: 1.0}
    assert {k: (e.low, e.high) for k, e in run.offline.estimates.items()} == {100: (60, 70)}
    assert run.offline.best_return == 100
    assert run.simulated.evaluation["return"].tolist() == [1, 2, 3, 5]
    assert (run.simulated.return_mean, run.simulated.normalized_score) == (4.0, 7.5)
    assert [(f.level, f.message, f.remedy) for f in run.findings] == [
        ("warning", "it leans", "hold it")
    ]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "of_another_version"])
def test_a_run_has_an_alpha_where_its_algorithm_has_one(algorithm: str, tmp_path: Path):
    write_run(tmp_path / "run", algorithm=algorithm, alpha=2.5)
    has_alpha = algorithm in ALGORITHMS and ALGORITHMS[algorithm].has_alpha
    assert load_runs(str(tmp_path)).runs[0].alpha == (2.5 if has_alpha else None)


def test_only_kept_policies_are_candidates(tmp_path: Path):
    """There are estimates for both updates; the policy of 200 was deleted, its state was not."""
    folder = write_run(tmp_path / "run", bounds={100: (50, 60), 200: (60, 70)})
    (folder / "checkpoints" / "resume").mkdir()
    (folder / "checkpoints" / "200.ckpt").rename(folder / "checkpoints" / "resume" / "200.ckpt")
    assert list(load_runs(str(tmp_path)).runs[0].offline.estimates) == [100]


def cut(size: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:-size]


def result(**values: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps(json.loads(content) | values).encode()


IN_PROGRESS = "result.json is missing: the run is in progress or was killed"
PREEMPTED = "the run was preempted after 200 updates; continue it: python train"
WRONG = "a value is missing or has the wrong type: "
NO_METHOD = b'{"validation_episodes": 3, "checkpoints": {"100": [{}]}}'


@pytest.mark.parametrize(
    ("name", "change", "reason"),  # change: of the file's content; None: the file is removed
    [
        ("config.yaml", None, "config.yaml is missing"),
        ("config.yaml", lambda _: b"seed: [1", "config.yaml cannot be read: "),
        ("config.yaml", lambda _: b"", "config.yaml lacks seed"),
        ("metadata.json", None, "metadata.json is missing"),
        ("result.json", None, IN_PROGRESS),
        ("result.json", cut(20), "result.json cannot be read: "),
        ("result.json", result(status="failed", error="out\nof"), "status failed: out of"),
        ("result.json", result(status="preempted"), PREEMPTED),
        ("result.json", result(updates="many"), WRONG),
        ("validation.csv", cut(10), "validation.csv is truncated in line 3"),
        (
            "validation.csv",
            lambda content: content + b"300,1e" + b",0" * 7 + b"\n",
            "validation.csv cannot be read: could not convert",
        ),
        ("evaluation.csv", lambda _: b"\xff\xfe\x00", "evaluation.csv cannot be read: "),
        ("ope.json", cut(40), "ope.json cannot be read: "),
        ("ope.json", lambda _: NO_METHOD, f"{WRONG}'method'"),
    ],
)
def test_a_corrupt_run_is_left_out_with_its_reason_and_the_others_stay(
    name: str, change: Callable[[bytes], bytes] | None, reason: str, tmp_path: Path
):
    write_run(tmp_path / "good", bounds={100: (60, 70)})
    bad = write_run(tmp_path / "bad", bounds={100: (60, 70)}, returns={100: [1.0]})
    content = (bad / name).read_bytes()
    (bad / name).unlink()
    if change is not None:
        (bad / name).write_bytes(change(content))
    loaded = load_runs(str(tmp_path))
    assert [run.name for run in loaded.runs] == [f"{tmp_path}/good"]
    (skipped,) = loaded.left_out
    assert skipped.name == f"{tmp_path}/bad"
    assert skipped.reason.startswith(reason)
    assert "\n" not in skipped.reason


def test_a_diverged_run_is_reported(tmp_path: Path):
    write_run(tmp_path / "run", status="diverged")
    assert [run.finished for run in load_runs(str(tmp_path)).runs] == [False]


def test_a_file_without_rows_is_valid(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    (folder / "evaluation.csv").write_text("update,episode,seed,return,length\n")
    run = load_runs(str(tmp_path)).runs[0]
    assert run.simulated.evaluation["return"].shape == (0,)


def test_runs_are_found_at_any_depth_and_not_inside_runs(tmp_path: Path):
    """A logger's own folder has a config.yaml too."""
    write_run(tmp_path / "hopper" / "cql" / "run")
    (tmp_path / "hopper" / "cql" / "run" / "wandb" / "files").mkdir(parents=True)
    (tmp_path / "hopper" / "cql" / "run" / "wandb" / "files" / "config.yaml").touch()
    write_run(tmp_path / "run")
    (tmp_path / "audits").mkdir()
    (tmp_path / "audits" / "audit.json").write_text("{}")
    loaded = load_runs(str(tmp_path))
    names = [f"{tmp_path}/hopper/cql/run", f"{tmp_path}/run"]
    assert [run.name for run in loaded.runs] == sorted(names)
    assert loaded.left_out == []
    assert [run.name for run in load_runs(f"{tmp_path}/hop*").runs] == names[:1]
    assert [run.name for run in load_runs(f"{tmp_path}/run").runs] == names[1:]


def test_a_folder_without_runs_is_an_error(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"^runs=\S+ contains no run folder; train.py creates run"
    ):
        load_runs(str(tmp_path))
    with pytest.raises(ConfigError, match=r"^runs=\S+/none does not exist"):
        load_runs(f"{tmp_path}/none")


# --- Groups of runs ------------------------------------------------------------------------------


def test_runs_are_grouped_by_environment_and_data(tmp_path: Path):
    write_run(tmp_path / "a", sha256="a" * 64)
    write_run(tmp_path / "b", sha256="b" * 64)
    write_run(tmp_path / "c", env="pole")
    groups = by_task(load_runs(str(tmp_path)).runs)
    assert list(groups) == [
        "cart · sim/cart/mixed-v0 aaaaaaaa",
        "cart · sim/cart/mixed-v0 bbbbbbbb",
        "pole · sim/pole/mixed-v0",
    ]


def test_runs_of_a_grid_differ_in_alpha_seed_and_neutral_settings_only(tmp_path: Path):
    write_run(tmp_path / "a", alpha=1, seed=0)
    write_run(tmp_path / "b", alpha=5, seed=1, settings={"evaluation.every": 50})
    write_run(tmp_path / "c", alpha=5, seed=1, settings={"gamma": 0.9})
    write_run(tmp_path / "d", algorithm="bc")
    groups = grids(load_runs(str(tmp_path)).runs)
    named = {apart: [Path(run.name).name for run in group] for apart, group in groups.items()}
    assert named == {"gamma=0.99": ["a", "b"], "gamma=0.9": ["c"]}


def test_differences_and_methods_name_the_settings_that_vary(tmp_path: Path):
    write_run(tmp_path / "a", alpha=1, seed=0)
    write_run(tmp_path / "b", alpha=5, seed=1)
    write_run(tmp_path / "c", alpha=5, settings={"gamma": 0.9})
    write_run(tmp_path / "d", algorithm="bc")
    runs = load_runs(str(tmp_path)).runs
    settings = {Path(name).name: values for name, values in differences(runs).items()}
    assert settings["a"] == {"algorithm": "cql", "cql.alpha": "1", "gamma": "0.99"}
    assert {Path(name).name: method for name, method in methods(runs).items()} == {
        "a": "alpha=1 gamma=0.99",
        "b": "alpha=5 gamma=0.99",
        "c": "alpha=5 gamma=0.9",
        "d": "bc",
    }


def test_numbers_are_read_exactly(tmp_path: Path):
    exact = 0.1 + 0.2
    write_run(tmp_path / "run", validation={"validation/td_error": (exact, 1e-300)})
    run = load_runs(str(tmp_path)).runs[0]
    assert np.array_equal(run.offline.validation["validation/td_error"], [exact, 1e-300])
