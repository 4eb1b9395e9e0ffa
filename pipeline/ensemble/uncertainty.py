"""How sure a mean is when rows that share a prompt move together: clustered standard errors and paired bootstraps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DRAWS = 1000


def cluster_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Returns the standard error of the mean of `values` (rows,), independent only across `groups` (rows,) int.

    The sandwich estimator with the usual correction for few clusters (Cameron and Miller 2015); with every row in a
    group of its own it is the ordinary standard error.
    """
    sums = np.bincount(_dense(groups), weights=values - values.mean())
    count = len(sums)
    if count < 2:
        return float("inf")
    return float(np.sqrt((sums**2).sum() * count / (count - 1)) / len(values))


@dataclass(frozen=True)
class Interval:
    """A mean with the interval that holds it in 95 of 100 resamplings of the groups."""

    mean: float
    low: float
    high: float


def bootstrap(values: np.ndarray, groups: np.ndarray, seed: int, draws: int = DRAWS) -> list[Interval]:
    """Returns the mean of each column of `values` (rows, columns) with its 95 % percentile interval.

    Whole groups are drawn with replacement (Efron and Tibshirani 1993, chapter 8), the same ones for all columns. Give
    the differences of two models' losses: the comparison is then paired.
    """
    codes = _dense(groups)
    count = int(codes.max()) + 1
    sums = np.stack([np.bincount(codes, weights=column, minlength=count) for column in values.T], axis=1)
    sizes = np.bincount(codes, minlength=count)
    rng = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    for draw in range(draws):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        means[draw] = times @ sums / (times @ sizes)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return [Interval(*map(float, each)) for each in zip(values.mean(axis=0), low, high, strict=True)]


def _dense(groups: np.ndarray) -> np.ndarray:
    return np.unique(groups, return_inverse=True)[1]
