"""Guarantee: Hydra's undocumented parts behave as config/hydra_internals.py expects.

After an update of Hydra, the failing test names the part that changed.
"""

import argparse

import pytest
from support.config import CONF

from offline_cql.config.hydra_internals import (
    OverrideError,
    format_options,
    open_folder,
    parse_options,
    sweep_values,
)


def test_options_are_parsed_without_exiting():
    options, surplus = parse_options(["-m", "--cfg=job", "seed=0,1", "--nope"])
    assert (options.multirun, options.cfg, options.overrides) == (True, "job", ["seed=0,1"])
    assert surplus == ["--nope"]
    for name in ("help", "hydra_help", "info", "shell_completion", "experimental_rerun"):
        assert not getattr(options, name)
    assert (options.config_dir, options.config_path, options.config_name) == (None, None, None)
    with pytest.raises(argparse.ArgumentError):
        parse_options(["--cfg=all_of_it"])


def test_groups_and_options_are_listed():
    with open_folder(CONF) as conf:
        assert {"env", "cql", "network"} <= set(conf.groups())
        assert "hydra" not in conf.groups()
        assert conf.options("algorithm") == ["bc", "cql"]
        assert conf.options("seed") == []


def test_options_are_formatted_with_those_of_inner_groups():
    with open_folder(CONF):
        lines = format_options("algorithm", "experiment").splitlines()
    assert lines[0] == "algorithm: bc, cql"
    assert "  experiment/quick: cartpole, halfcheetah, hopper, pendulum, walker2d" in lines


def test_a_long_list_of_options_is_wrapped():
    with open_folder(CONF):
        first, second, *_ = format_options("env").splitlines()
    assert first.startswith("env: ant, ")
    assert len(first) <= 100
    assert second.startswith("  ")


def test_a_config_is_composed():
    with open_folder(CONF) as conf:
        assert conf.compose("train", ["cql.alpha=3"]).cql.alpha == 3


def test_overrides_are_parsed():
    with open_folder(CONF) as conf:
        override = conf.parse("++cql.alpha=5")
        assert (override.key_or_group, override.value()) == ("cql.alpha", 5)
        assert (override.is_sweep_override(), override.is_delete()) == (False, False)
        assert override.input_line == "++cql.alpha=5"
        assert conf.parse("~cql").is_delete()
        with pytest.raises(OverrideError, match="missing EQUAL"):
            conf.parse("cql.alpha")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("seed=0,1", ["seed=0", "seed=1"]),
        ("+seed=range(0,3)", ["+seed=0", "+seed=1", "+seed=2"]),
        ("gamma=interval(0.5,0.9)", ["gamma=0.5", "gamma=0.9"]),
    ],
)
def test_sweeps_are_expanded(text: str, values: list[str]):
    with open_folder(CONF) as conf:
        override = conf.parse(text)
        assert override.is_sweep_override()
        assert list(sweep_values(override)) == values
