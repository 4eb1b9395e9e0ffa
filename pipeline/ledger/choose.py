"""Which two submissions to select: by paired out-of-fold errors, and by the public leaderboard for what it is worth.

python -m stages.choose --public 0.3

The model is a Gaussian one. A submission's true score is its CV, off by the rows' sampling error (which submissions
share, as they answered the same rows), by a shift that is common to all (CV and test differ), and by something of its
own (choice by CV flatters, folds help some). A public score is the true one, off by the sampling error of its rows; so
is the private score, by other rows. What a row tells of two submissions is taken to be the same in CV and test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import ndtr

DRAWS = 20_000
SHIFT = 100.0
"""The common shift's standard deviation, in units of the scores' own spread: next to nothing is known of it."""
OWN = 0.5
"""With fewer than three public scores: a submission's own deviation, in units of its CV's error against the others'."""
LEAST = 3
"""Public scores from which on that deviation is estimated."""


@dataclass(frozen=True)
class History:
    """What is known of some submissions; scores that are better when lower."""

    cv: np.ndarray
    """(submissions,)"""
    errors: np.ndarray
    """(submissions, submissions) covariance of the CV scores, by rows that share a prompt."""
    rows: int
    """Behind the CV scores."""
    public: np.ndarray
    """(submissions,) NaN where there is none."""
    public_rows: int
    private_rows: int


@dataclass(frozen=True)
class Choice:
    """What is to be expected of the private leaderboard."""

    expected: np.ndarray
    """(submissions,) private scores, but for the common shift where no public score tells it."""
    best: np.ndarray
    """(submissions,) the probability that each is the best of all."""
    pair: tuple[int, int]
    """The two whose better one is expected to be best; twice the same where there is one submission."""
    value: float
    """What is expected of the better one."""
    own: float
    """Standard deviation of what is a submission's own."""
    covariance: np.ndarray
    """(submissions, submissions) of the private scores."""

    def best_of(self, one: int, other: int) -> float:
        """Returns the private score that is expected of the better one of two submissions."""
        return best_of_two(self.expected, self.covariance, one, other)


def paired_errors(scores: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the covariance of the means of `scores` (rows, submissions), independent only across `groups` (rows,).

    The sandwich estimator of ensemble.uncertainty.cluster_error, for several means at a time.
    """
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    sums = np.zeros((count, scores.shape[1]))
    np.add.at(sums, codes, scores - scores.mean(axis=0))
    return sums.T @ sums * (count / max(count - 1, 1)) / len(scores) ** 2


def choose(history: History, seed: int) -> Choice:
    """Returns the two submissions to select, and what is expected of each."""
    count, known = len(history.cv), np.isfinite(history.public)
    per_row = history.errors * history.rows
    public_errors = per_row[np.ix_(known, known)] / max(history.public_rows, 1)
    own = _own(history, known, public_errors)
    spread = max(float(np.ptp(history.cv)), float(np.sqrt(np.diag(history.errors)).max(initial=0.0)), 1.0e-6)
    prior = history.errors + own**2 * np.eye(count) + (SHIFT * spread) ** 2
    mean, covariance = history.cv.astype(np.float64), prior
    if known.any():
        gain = np.linalg.solve(prior[np.ix_(known, known)] + public_errors, prior[known]).T
        mean = mean + gain @ (history.public[known] - mean[known])
        covariance = prior - gain @ prior[known]
    private = covariance + per_row / max(history.private_rows, 1)
    draws = np.random.default_rng(seed).multivariate_normal(mean, private, DRAWS, method="eigh")
    best = np.bincount(draws.argmin(axis=1), minlength=count) / DRAWS
    pairs = list(combinations(range(count), 2)) or [(0, 0)]
    values = [best_of_two(mean, private, *pair) for pair in pairs]
    place = int(np.argmin(values))
    return Choice(mean, best, pairs[place], values[place], own, private)


def best_of_two(mean: np.ndarray, covariance: np.ndarray, one: int, other: int) -> float:
    """Returns the expected lower one of two normal numbers (Clark 1961, "The greatest of a finite set")."""
    variance = covariance[one, one] + covariance[other, other] - 2 * covariance[one, other]
    apart = float(mean[other] - mean[one])
    if variance <= 0 or one == other:
        return float(min(mean[one], mean[other]))
    deviation = math.sqrt(variance)
    density = math.exp(-0.5 * (apart / deviation) ** 2) / math.sqrt(2 * math.pi)
    share = float(ndtr(apart / deviation))
    return float(mean[one]) * share + float(mean[other]) * (1 - share) - deviation * density


def _own(history: History, known: np.ndarray, public_errors: np.ndarray) -> float:
    """Returns the standard deviation of what is a submission's own: what public scores differ more from CV, each from
    their mean, than sampling explains; by the method of moments."""
    centred = np.eye(int(known.sum())) - 1 / max(int(known.sum()), 1)
    errors = centred @ (history.errors[np.ix_(known, known)] + public_errors) @ centred
    if known.sum() < LEAST:
        relative = history.errors - history.errors.mean(axis=0)
        return OWN * float(np.sqrt(np.abs(np.diag(relative - relative.mean(axis=1, keepdims=True))).mean()))
    differences = centred @ (history.public - history.cv)[known]
    return math.sqrt(max(0.0, float(differences @ differences - np.trace(errors))) / (known.sum() - 1))
