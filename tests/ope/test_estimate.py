"""Guarantee: the bootstrap resamples whole episodes, and its intervals are Student's."""

import subprocess
import sys

import numpy as np
import pytest

from offline_cql.ope.estimate import bootstrap_counts, bootstrap_interval


def test_each_replicate_draws_as_many_episodes_as_there_are():
    counts = bootstrap_counts(7, 5, np.random.default_rng(0))
    assert counts.shape == (5, 7)
    assert counts.sum(axis=1).tolist() == [7.0] * 5
    assert len({tuple(row) for row in counts.tolist()}) > 1


def test_an_interval_is_students_t_around_the_mean():
    """Five replicates with mean 2 and standard deviation 1: 2 ± 2.776."""
    low, high = bootstrap_interval(np.array([2.0, 2.0, 2.0, 2.0 - 2**0.5, 2.0 + 2**0.5]))[1:]
    assert (low, high) == (pytest.approx(2 - 2.776, abs=1e-3), pytest.approx(2 + 2.776, abs=1e-3))


def test_the_report_can_import_estimates_without_torch():
    code = "import sys; sys.modules['torch'] = None; import offline_cql.ope.estimate"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
