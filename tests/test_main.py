"""Guarantee: `offline-cql train` and `python -m offline_cql train` are `python train.py`.

They need no checkout: the wheel has conf/.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml
from support.config import CONF, ROOT, run_python
from support.train import rows

from offline_cql import __main__ as program
from offline_cql import __version__
from offline_cql.config import command_line
from offline_cql.runs.folder import METRICS

# The first example of docs/python.md, small.
API = """
import numpy as np
from offline_cql import Dataset, load_policy, train

rng = np.random.default_rng(0)
observations, actions = rng.normal(size=(200, 3)), rng.uniform(-1, 1, (200, 1))
terminated = np.arange(200) % 20 == 19
dataset = Dataset.from_arrays(observations, actions, rng.normal(size=200), terminated)
small = ["network=small", "batch_size=16", "logger=csv", "hardware=cpu"]
run = train(dataset, overrides=["cql.alpha=5", "updates=10", *small])
policy = load_policy(run.folder)
print(policy.predict(observations[0]).shape, policy.predict(observations[:5]).shape)
"""
TINY = ("experiment=smoke", "hardware=cpu", "logger=csv")


def run_program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "offline_cql", *arguments, cwd=cwd)


def test_train_is_the_script_of_this_name(recorded: Path, tmp_path: Path):
    """The same metrics; what it prints and records is a command of the same form."""
    process = run_program("train", *TINY, "run_dir=one", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    script = [sys.executable, str(ROOT / "train.py"), *TINY, "run_dir=two"]
    subprocess.run(script, cwd=tmp_path, capture_output=True, check=True)
    assert rows(tmp_path / "one" / METRICS) == rows(tmp_path / "two" / METRICS) != []
    assert "next    python -m offline_cql evaluate run=one" in process.stdout
    recorded_command = yaml.safe_load((tmp_path / "one" / "metadata.json").read_text())["command"]
    assert recorded_command.startswith("python -m offline_cql train experiment=smoke")


@pytest.mark.slow
def test_a_grid_runs_on_several_processes(recorded: Path, tmp_path: Path):
    """Joblib's processes get the function of the entry point, which is in no script of theirs."""
    launcher = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = run_program("train", *launcher, *TINY, "seed=0,1", "run_dir=s${seed}", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "s0" / "result.json").exists()
    assert (tmp_path / "s1" / "result.json").exists()


@pytest.mark.parametrize("folder", [[], ["--config-path", "conf"]])
def test_a_mistake_is_one_line(folder: list[str], tmp_path: Path):
    """--config-path, too, is relative to the folder of train.py."""
    process = run_program("train", *folder, "cql.alhpa=3", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr == "error: cql.alhpa is unknown; did you mean cql.alpha?\n"


def test_an_unknown_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["offline-cql", "trian"])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert capsys.readouterr().err == "error: 'trian' is not a command; did you mean train?\n"


def test_help_lists_every_entry_point_and_version_is_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert set(program.COMMANDS) == set(command_line.ENTRY_POINTS)
    monkeypatch.setattr(sys, "argv", ["offline-cql"])
    program.main()
    assert re.findall(r"(?m)^  (\w+)", capsys.readouterr().out) == list(program.COMMANDS)
    for arguments in (["--version"], ["train", "--version"]):
        monkeypatch.setattr(sys, "argv", ["offline-cql", *arguments])
        program.main()
        assert capsys.readouterr().out == f"offline-cql {__version__}\n"


def test_a_checkout_reads_the_configs_beside_its_scripts():
    assert command_line.conf_folder() == CONF


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment(recorded: Path, tmp_path: Path):
    """Outside the repository; only the dependencies are those of this environment."""
    source, place = tmp_path / "source", tmp_path / "elsewhere"
    place.mkdir()
    source.mkdir()
    for name in (
        "src",
        "conf",
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
    ):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*words: str) -> str:
        process = subprocess.run(
            words, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    build = ("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--quiet")
    run(sys.executable, "-m", "pip", *build, f"--wheel-dir={tmp_path}", str(source))
    venv.create(tmp_path / "venv", with_pip=False)
    purelib = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (wheel,) = tmp_path.glob("*.whl")
    install = ("install", "--no-deps", "--no-index", "--quiet", f"--prefix={tmp_path / 'venv'}")
    python = str(tmp_path / "venv" / "bin" / "python")
    run(python, sysconfig.get_path("purelib") + "/pip", *install, str(wheel))
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    installed = run(python, "-c", "import offline_cql; print(offline_cql.__file__)").strip()
    assert installed == str(purelib / "offline_cql" / "__init__.py")

    start = str(tmp_path / "venv" / "bin" / "offline-cql")
    output = run(start, "train", "env=pendulum", "updates=200", "logger=csv", "hardware=cpu")
    assert f"next    {start} evaluate run=outputs/pendulum" in output
    assert len(list(place.glob("outputs/pendulum/*/*/*/result.json"))) == 1
    assert run(python, "-c", API).splitlines()[-1] == "(1,) (5, 1)"
