"""Guarantee: any Gymnasium environment is used from a package that the user names, and only then.

The package is written by the test: a chain of cells with a Dict observation and two actions. It
writes a file when it is imported.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.forked import Ended, Forks

PACKAGE = """
from pathlib import Path
import gymnasium as gym
import numpy as np

Path(__file__).with_name("imported").touch()


class Chain(gym.Env):
    observation_space = gym.spaces.Dict(
        {"cell": gym.spaces.Discrete(3), "noise": gym.spaces.Box(-1, 1, (1,))}
    )
    action_space = gym.spaces.Discrete(2)

    def __init__(self, config=None):
        self.last = (config or {}).get("last", 2)

    def observe(self):
        noise = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return {"cell": self.cell, "noise": noise}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.cell, self.steps = 0, 0
        return self.observe(), {}

    def step(self, action):
        self.cell, self.steps = max(0, self.cell + 2 * int(action) - 1), self.steps + 1
        ended = self.cell == self.last
        return self.observe(), float(ended), ended, self.steps == 8, {}


def right(observation):
    return 1


gym.register("Own/Chain-v0", entry_point="own_tasks:Chain")
gym.register("Own/Class-v0", entry_point=Chain)
gym.register("Own/Lambda-v0", entry_point=lambda **arguments: Chain(**arguments))
"""
CHAIN = ("env=gymnasium", "env.package=own_tasks", "env.id=Own/Chain-v0")
SMALL = (
    *("dataset.size=400", "updates=10", "batch_size=8", "network=small", "hardware=cpu"),
    *("logger=csv", "evaluation.every=10", "evaluation.episodes=2", "evaluation.environments=2"),
)
RANDOM_DATA = "sim/own-chain-v0/random_400-v0"


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as process:
        yield process


class User:
    """Someone with a package of environments, a store and a folder to work in."""

    def __init__(self, forks: Forks, folder: Path):
        self.forks, self.folder = forks, folder
        (folder / "own_tasks").mkdir()
        (folder / "own_tasks" / "__init__.py").write_text(PACKAGE)

    def run(self, *command: str) -> Ended:
        """Run a command; forget whether the package was imported before."""
        (self.folder / "own_tasks" / "imported").unlink(missing_ok=True)
        store = {"MINARI_DATASETS_PATH": str(self.folder / "store")}
        return self.forks.run(*command, env=store | {"PYTHONPATH": str(self.folder)})

    @property
    def imported(self) -> bool:
        return (self.folder / "own_tasks" / "imported").exists()


@pytest.fixture
def user(forks: Forks, tmp_path: Path) -> User:
    return User(forks, tmp_path)


def test_from_random_data_to_an_exported_policy(user: User):
    """Every printed command names the package; without it each command says so in one line."""
    run = user.folder / "run"
    trained = user.run("train.py", *CHAIN, *SMALL, f"run_dir={run}")
    assert trained.code == 0, trained.err
    assert f"run={run} env.package=own_tasks" in trained.out
    assert json.loads((run / "metadata.json").read_text())["dataset"]["id"] == RANDOM_DATA
    commands = (
        ("evaluate.py", f"run={run}", "evaluation.episodes=10"),
        ("export.py", f"run={run}"),
        ("train.py", f"resume={run}", "updates=20"),
    )
    for words in commands:
        refused = user.run(*words)
        line = refused.err.strip().splitlines()[-1]
        assert line.endswith("which is only imported if you name it: add env.package=own_tasks")
        assert (refused.code, user.imported, "Traceback" in refused.err) == (2, False, False)
        assert user.run(*words, "env.package=own_tasks").code == 0
        assert user.imported
    assert json.loads((run / "result.json").read_text())["updates"] == 20


def test_an_id_with_its_package(user: User):
    """The notation of Gymnasium: package:Id."""
    run = user.folder / "run"
    chain = ("env=gymnasium", "env.id=own_tasks:Own/Chain-v0")
    ended = user.run("train.py", *chain, *SMALL, f"run_dir={run}")
    assert ended.code == 0, ended.err
    assert yaml.safe_load((run / "config.yaml").read_text())["env"]["name"] == "own-chain-v0"
    assert f"evaluate.py run={run} env.package=own_tasks" in ended.out
    user.run("evaluate.py", f"run={run}", "evaluation.episodes=10")
    assert not user.imported


def test_an_environment_in_a_yaml_file_of_the_user(user: User):
    """As CONTRIBUTING.md describes; with nested arguments: 1 is the last cell."""
    file = user.folder / "conf" / "env" / "chain.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "defaults: [base, _self_]\n"
        "name: chain\nid: Own/Chain-v0\npackage: own_tasks\nqualities: [random]\nquality: random\n"
        "arguments: {config: {last: 1}}\n"
    )
    words = ("--config-dir", str(file.parents[1]), "env=chain", *SMALL)
    run = user.folder / "run"
    ended = user.run("train.py", *words, f"run_dir={run}")
    assert ended.code == 0, ended.err
    assert json.loads((run / "metadata.json").read_text())["dataset"]["id"] == (
        "sim/chain/random_400-v0"
    )
    assert yaml.safe_load((run / "config.yaml").read_text())["env"]["arguments"] == {
        "config": {"last": 1}
    }


@pytest.mark.parametrize(("last", "episodes"), [(1, 60), (2, 30)])
def test_a_function_acts_in_an_environment_with_arguments(user: User, last: int, episodes: int):
    """Always to the right: as many steps per episode as the number of the last cell."""
    arguments = f"env.arguments={{config: {{last: {last}}}}}"
    ended = user.run("collect.py", *CHAIN, arguments, "policy=own_tasks:right", "dataset.size=60")
    assert ended.code == 0, ended.err
    assert re.search(rf"episodes +│ +{episodes} │", ended.out)
    metadata = user.folder / "store/sim/own-chain-v0/right_60-v0/data/metadata.json"
    spec = json.loads(json.loads(metadata.read_text())["env_spec"])
    assert spec["kwargs"] == {"config": {"last": last}}


@pytest.mark.parametrize("id", ["Class", "Lambda"])
def test_an_environment_registered_by_an_object_is_recorded(user: User, id: str):
    """The data set describes it by its name, if it has one; a typed id is that of the data set."""
    words = ("env=gymnasium", "env.package=own_tasks", f"env.id=Own/{id}-v0")
    typed = ("policy=random", "dataset.size=60", "dataset.id=mine/first-v0")
    ended = user.run("collect.py", *words, *typed)
    assert ended.code == 0, ended.err
    metadata = json.loads((user.folder / "store/mine/first-v0/data/metadata.json").read_text())
    if id == "Class":
        assert json.loads(metadata["env_spec"])["entry_point"] == "own_tasks:Chain"
    else:
        assert "warning: Minari cannot make the environment from the data set" in ended.err
        assert "env_spec" not in metadata
    data = ("dataset=minari", "dataset.id=mine/first-v0")
    small = (word for word in SMALL if not word.startswith("dataset"))
    assert user.run("train.py", *words, *data, *small).code == 0


@pytest.mark.parametrize(
    ("policy", "name"), [("random", "random"), ("own_tasks:right", "right"), ("run", "run")]
)
def test_data_of_any_policy_are_recorded(user: User, policy: str, name: str):
    """And a second time they are there; the printed command trains on them."""
    if policy == "run":
        run = user.folder / "run"
        assert user.run("train.py", *CHAIN, *SMALL, f"run_dir={run}").code == 0
        policy = f"run:{run}"
    words = ("collect.py", *CHAIN, f"policy={policy}", "dataset.size=60")
    recorded = user.run(*words)
    assert recorded.code == 0, recorded.err
    identifier = f"sim/own-chain-v0/{name}_60-v0"
    suffix = f"{' '.join(CHAIN)} dataset=minari dataset.id={identifier}"
    assert recorded.out.strip().endswith(suffix)
    again = user.run(*words)
    assert again.code == 0
    same = "" if policy == "random" else ", by a policy of this name"
    assert f"{identifier} is already recorded{same}; overwrite=true records it again" in again.out
    small = [word for word in SMALL if not word.startswith("dataset")]
    folder = f"run_dir={user.folder / 'new'}"  # a policy of few updates may earn nothing
    trained = user.run("train.py", *suffix.split(), *small, "cql.alpha_unit=reward", folder)
    assert trained.code == 0, trained.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("env.package=no_such",), "env.package=no_such cannot be imported (ModuleNotFoundError"),
        (("env.package=own_tasks", "policy=own_tasks:left"), "cannot be imported (AttributeError"),
        (("env.id=null",), "env.id is missing; set env.id=ID"),
        (("env.id=No/Such-v0",), "check env.id and env.arguments"),
        (("env.package=own_tasks", "policy=left"), "must be random, run:FOLDER or module:function"),
        (("env.package=own_tasks", "env.id=other:Own/Chain-v0"), "must be in env.package=own_tas"),
    ],
)
def test_what_is_not_there_is_named(user: User, words: tuple[str, ...], reason: str):
    ended = user.run("collect.py", "env=gymnasium", "env.id=Own/Chain-v0", *words)
    assert (ended.code, "Traceback" in ended.err) == (2, False)
    assert reason in ended.err.strip().splitlines()[-1]
