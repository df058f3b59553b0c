"""Guarantee: what ends a run can be read and pasted on a terminal of any width."""

from pathlib import Path

import pytest
from support.config import settings

from offline_cql.commands.summary import print_run
from offline_cql.io import write_json

RESULT = {
    **{"behavior_return": 1.0, "episodes": 0, "updates": 10, "updates_per_second": 2.0},
    **{"wall_seconds": 3.0},
}


def test_a_title_does_not_break_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "40")
    data = "/data/of/the/second/ward/long_term_measurements-2026.csv"
    dataset = {"id": data, "sha256": "0" * 64}
    metadata = {"commit": None, "grid": None, "wandb_id": None, "dataset": dataset}
    write_json(tmp_path / "metadata.json", metadata)
    print_run(tmp_path, settings("env=hopper"), RESULT)
    assert f"hopper · {data} · cql" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("exported", "warned"), [(10, False), (6, True), (None, False)])
def test_an_exported_policy_of_other_updates_is_named(
    exported: int | None,
    warned: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    dataset = {"id": "sim/hopper/medium-v0", "sha256": "0" * 64}
    metadata = {"commit": None, "grid": None, "wandb_id": None, "dataset": dataset}
    write_json(tmp_path / "metadata.json", metadata)
    if exported is not None:
        write_json(tmp_path / "policy.json", {"updates": exported})
    print_run(tmp_path, settings("env=hopper"), RESULT)
    assert ("policy.onnx is the policy of 6 updates" in capsys.readouterr().out) == warned
