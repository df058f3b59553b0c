"""Guarantee: run folders carry what was typed, in plain characters: `ls` shows a grid."""

import re

import pytest
from support.config import settings

from offline_cql.config.run_name import LONGEST_NAME, label, run_name


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "seed_0"),
        (["env=hopper", "algorithm=bc", "logger=csv", "hardware.threads=2", "seed=0"], "seed_0"),
        (["cql.alpha=0.1", "seed=0"], "alpha_0.1-seed_0"),
        (["cql=lagrange", "updates=2_000"], "cql_lagrange-updates_2_000-seed_0"),
        (["network.actor_hidden=[64,64]"], "actor_hidden_64_64-seed_0"),
        (["cql.polyak=0.1", "bc.polyak=0.2"], "cql.polyak_0.1-bc.polyak_0.2-seed_0"),
        (["dataset.path=/data/my logs (new).parquet"], "my_logs_new-seed_0"),
        (["dataset.path=logs/*.parquet"], "logs-seed_0"),
        (["experiment=quick/hopper", "+env.arguments={a: '$x'}"], None),
    ],
)
def test_a_name_says_what_was_typed(overrides: list[str], name: str | None):
    made = run_name(overrides, seed=0)
    assert name in (None, made)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", made)


def test_a_name_is_short_and_has_the_seed():
    name = run_name([f"cql.setting_{k}={'x' * 300}" for k in range(9)], seed=7)
    assert len(name) <= LONGEST_NAME
    assert name.endswith("-seed_7")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("/data/hopper-v2.hdf5", None), "hopper-v2"),
        ((None, "hopper-medium-v2"), "hopper-medium-v2"),
        ((None, "D4RL/door/human-v2"), "human-v2"),
        ((None, None), "unnamed"),
    ],
)
def test_a_data_set_has_a_name(values: tuple[str | None, str | None], text: str):
    assert label(*values) == text


def test_data_given_by_a_path_are_named_by_the_file():
    overrides = ("env=logged", "dataset=d4rl", "dataset.path=/x/own.hdf5", "evaluation=none")
    assert settings(*overrides).run_dir.startswith("outputs/logged/d4rl-own/cql/")
    overrides = ("env=logged", "dataset=minari", "dataset.id=own/logs-v3", "evaluation=none")
    assert settings(*overrides).dataset.name == "minari-logs-v3"
