"""Guarantee: the sweep of examples/ gives train.py commands that it accepts, as W&B writes them."""

import itertools

import yaml
from support.config import ROOT, compose_config

from offline_cql.config import TrainConfig, validate_config


def test_every_job_of_the_sweep_can_be_run():
    sweep = yaml.safe_load((ROOT / "examples" / "wandb_sweep.yaml").read_text())
    assert sweep["command"] == ["${interpreter}", "${program}", "${args_no_hyphens}"]
    assert sweep["program"] == "train.py"
    keys, choices = zip(*sweep["parameters"].items(), strict=True)
    jobs = list(itertools.product(*(c.get("values", [c.get("value")]) for c in choices)))
    assert len(jobs) == 12
    for values in jobs:
        overrides = [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        validate_config(TrainConfig, compose_config(*overrides))
