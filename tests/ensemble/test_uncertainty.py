from __future__ import annotations

import numpy as np
import pytest

from pipeline.ensemble.uncertainty import bootstrap, cluster_error


def clustered(groups: int, seed: int, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Values whose mean is 0, most of whose spread is shared within a group."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(groups), size)
    return rng.normal(size=groups)[codes] + 0.3 * rng.normal(size=len(codes)), codes


def test_rows_of_their_own_give_the_ordinary_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=300)
    assert cluster_error(values, np.arange(300)) == pytest.approx(values.std(ddof=1) / np.sqrt(300))


def test_repeating_every_row_does_not_make_a_mean_surer() -> None:
    values = np.random.default_rng(1).normal(size=200)
    once = cluster_error(values, np.arange(200))
    assert cluster_error(np.repeat(values, 5), np.repeat(np.arange(200), 5)) == pytest.approx(once)


def test_error_and_interval_cover_the_truth_as_often_as_they_say() -> None:
    covered = {"error": 0, "interval": 0, "naive": 0}
    for seed in range(200):
        values, groups = clustered(40, seed)
        found = bootstrap(values[:, None], groups, seed, draws=200)[0]
        covered["interval"] += found.low <= 0 <= found.high
        covered["error"] += abs(values.mean()) <= 1.96 * cluster_error(values, groups)
        covered["naive"] += abs(values.mean()) <= 1.96 * cluster_error(values, np.arange(len(values)))
    assert 175 <= covered["error"] <= 200
    assert 175 <= covered["interval"] <= 200
    assert covered["naive"] < 140


def test_the_bootstrap_is_the_same_each_time_and_agrees_with_the_error() -> None:
    values, groups = clustered(300, 5)
    both = np.stack([values, values], axis=1)
    first, second = bootstrap(both, groups, 0)
    assert first == second == bootstrap(both, groups, 0)[0]
    assert (first.high - first.low) / 3.92 == pytest.approx(cluster_error(values, groups), rel=0.15)


def test_one_group_says_nothing_about_the_error() -> None:
    assert cluster_error(np.arange(5.0), np.zeros(5)) == float("inf")
